"""The layout of `ALEXNET_HOME`, which holds everything the project makes."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, kw_only=True)
class Home:
    """Paths under one folder, `ALEXNET_HOME`."""

    root: Path

    @property
    def runs(self) -> Path:
        """The training runs, one folder each."""
        return self.root / "runs"

    @property
    def weights(self) -> Path:
        """A symbolic link to the selected weights: those that the next index is built with.

        By default those of the last finished run. An index that is in service names its own.
        """
        return self.root / "weights.safetensors"

    @property
    def imported(self) -> Path:
        """Weights that were imported from elsewhere, a file each."""
        return self.root / "imported"

    @property
    def downloads(self) -> Path:
        """Others' files as they were downloaded, with the SHA-256 of each."""
        return self.root / "downloads"

    @property
    def index(self) -> Path:
        """The versions of the index, one folder each, and the symbolic link `current`."""
        return self.root / "index"

    @property
    def index_activity(self) -> Path:
        """What a running build of the index is doing (storage/activity.py)."""
        return self.root / ".index.json"

    @property
    def demo_activity(self) -> Path:
        """What `make demo` has started behind the page (storage/activity.py)."""
        return self.root / ".demo.json"

    @property
    def training_activity(self) -> Path:
        """What training is doing before its run has a folder (storage/activity.py)."""
        return self.root / ".training.json"

    @property
    def uploads(self) -> Path:
        """The pictures of uploads, deleted after some time."""
        return self.root / "uploads"

    @property
    def database(self) -> Path:
        """The SQLite file used when DATABASE_URL is not set."""
        return self.root / "app.sqlite3"

    @property
    def demo(self) -> Path:
        """The demo photographs, cut from the pictures that scikit-image ships."""
        return self.root / "demo"

    @property
    def imagenette(self) -> Path:
        """Imagenette's photographs, downloaded."""
        return self.root / "imagenette"

    @property
    def datasets(self) -> Path:
        """The data sets that were made in the browser, one folder each."""
        return self.root / "datasets"

    @property
    def evaluations(self) -> Path:
        """The evaluations written by `training/evaluate.py`, one file each."""
        return self.root / "evaluations"

    @property
    def runtimes(self) -> Path:
        """What was measured to choose each network's runtime, one file for each weights."""
        return self.root / "runtimes"

    @property
    def splits(self) -> Path:
        """Folders of links to photographs that were split into train and val."""
        return self.root / "splits"

    @property
    def moved_folders(self) -> Path:
        """Where folders of photographs lie that were moved, as JSON."""
        return self.root / "moved.json"

    @property
    def prepared(self) -> Path:
        """Training sets decoded once: squares of pixels, mean image and PCA."""
        return self.root / "prepared"


def home_from_environment(environ: Mapping[str, str] = os.environ) -> Home:
    """Return the folder that `ALEXNET_HOME` names, or `var` in the current directory."""
    return Home(root=Path(environ.get("ALEXNET_HOME") or "var").absolute())

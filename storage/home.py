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
        """The training runs, a folder each."""
        return self.root / "runs"

    @property
    def weights(self) -> Path:
        """A symbolic link to the weights that index and application use: those of the last run."""
        return self.root / "weights.safetensors"

    @property
    def index(self) -> Path:
        """The versions of the index, a folder each, and the link `current`."""
        return self.root / "index"

    @property
    def uploads(self) -> Path:
        """The pictures of uploads whose results are kept for a while."""
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
    def evaluations(self) -> Path:
        """The evaluations by `training/evaluate.py`, a file each."""
        return self.root / "evaluations"

    @property
    def prepared(self) -> Path:
        """Training sets decoded once: 256 × 256 pixels, mean image, PCA."""
        return self.root / "prepared"


def home_from_environment(environ: Mapping[str, str] = os.environ) -> Home:
    """The folder that `ALEXNET_HOME` names, or `var` in the current directory."""
    return Home(root=Path(environ.get("ALEXNET_HOME") or "var").absolute())

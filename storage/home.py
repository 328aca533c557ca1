"""The folder in which everything made here lives: runs, weights, index, database, uploads."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, kw_only=True)
class Home:
    """Where things are under one folder, `ALEXNET_HOME`."""

    root: Path

    @property
    def runs(self) -> Path:
        """One folder a training run."""
        return self.root / "runs"

    @property
    def weights(self) -> Path:
        """A symbolic link to the weights of the run finished last: what index and app use."""
        return self.root / "weights.safetensors"

    @property
    def index(self) -> Path:
        """One folder an index version, and the link `current`."""
        return self.root / "index"

    @property
    def uploads(self) -> Path:
        """Pictures of the results kept for a while."""
        return self.root / "uploads"

    @property
    def database(self) -> Path:
        """The SQLite file used when no DATABASE_URL is given."""
        return self.root / "app.sqlite3"

    @property
    def demo(self) -> Path:
        """The demo photographs, cut from those scikit-image ships."""
        return self.root / "demo"

    @property
    def evaluations(self) -> Path:
        """What `training/evaluate.py` found, a file each, for the application to show."""
        return self.root / "evaluations"

    @property
    def prepared(self) -> Path:
        """Training sets decoded once: 256×256 pixels, mean image, PCA."""
        return self.root / "prepared"


def home_from_environment(environ: Mapping[str, str] = os.environ) -> Home:
    """Give the folder that `ALEXNET_HOME` names, or `var` under the current directory."""
    return Home(root=Path(environ.get("ALEXNET_HOME") or "var").absolute())


def point(link: Path, target: Path) -> None:
    """Make `link` a symbolic link to `target`, replacing it by one atomic rename.

    The link is relative, so that the folder that holds both can be moved.
    """
    link.parent.mkdir(parents=True, exist_ok=True)
    new = link.with_name(f".{link.name}.{os.getpid()}")
    new.unlink(missing_ok=True)
    new.symlink_to(os.path.relpath(target, link.parent))
    new.replace(link)


def write_whole(path: Path, content: str | bytes) -> None:
    """Write a file beside its place, make it durable, then rename it into place.

    Text is written as UTF-8. Raises OSError when it cannot be written; then nothing of it stays.
    """
    part = path.with_name(f".{path.name}.part")
    try:
        part.write_bytes(content.encode() if isinstance(content, str) else content)
        sync(part)
        part.replace(path)
        sync(path.parent)
    finally:
        part.unlink(missing_ok=True)


def make_durable(folder: Path) -> None:
    """Bring a folder and the files in it to the disk."""
    for file in folder.iterdir():
        sync(file)
    sync(folder)


def sync(path: Path) -> None:
    """Bring one file or folder to the disk."""
    opened = os.open(path, os.O_RDONLY)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)

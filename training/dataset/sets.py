"""The prepared sets on disk: what they hold, what needs them, and which can be removed."""

import json
import shutil
from collections.abc import Collection, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from model.dataset.folder import FolderError, ImageFolder
from storage.files import lock_file
from storage.home import Home
from storage.runs import RunFolder
from training.dataset.find_source import find_source
from training.dataset.folder import FolderSource
from training.dataset.prepare import name_set
from training.dataset.shards import is_url
from training.dataset.source import DataError
from training.dataset.store import META_FILE


@dataclass(frozen=True, kw_only=True)
class StoredSet:
    """A folder of the store.

    root: where its photographs lay. images: in both splits; None if it is not finished. size: in
    bytes. used: when it was last used, in seconds since 1970. runs: the unfinished runs that need
    it. obsolete: why nothing finds it any more; empty if it is in use.
    """

    folder: Path
    root: str
    images: int | None
    size: int
    used: float
    runs: tuple[str, ...]
    obsolete: str


def list_sets(home: Home) -> list[StoredSet]:
    """List the prepared sets, last used first; links to other sets are not listed."""
    needed = dict(find_needed_contents(home))
    folders = list(home.prepared.iterdir()) if home.prepared.is_dir() else []
    # Folders that were moved or copied have links to a set.
    linked = {folder.resolve() for folder in folders if folder.is_symlink()}
    sets = [
        examine_set(folder, needed, linked=folder.resolve() in linked)
        for folder in folders
        if folder.is_dir() and not folder.is_symlink()
    ]
    return sorted(sets, key=lambda stored: stored.used, reverse=True)


def examine_set(folder: Path, needed: dict[str, str], *, linked: bool) -> StoredSet:
    """Read what a set's folder holds.

    needed: runs by the content that they need. linked: whether another folder's photographs are
    the same.
    """
    size = sum(file.stat().st_size for file in folder.iterdir())
    meta: dict[str, object] = {}
    with suppress(OSError, ValueError):
        meta = json.loads((folder / META_FILE).read_text())
    root, form = str(meta.get("root", "")), str(meta.get("form", ""))
    if not (folder / META_FILE).exists():
        obsolete = "unfinished"
    elif not form:
        obsolete = "of an older version"
    else:
        obsolete = "" if linked else find_why_obsolete(folder, root, form)
    images = meta.get("images")
    run = needed.get(str(meta.get("content")))
    return StoredSet(
        folder=folder,
        root=root,
        images=images if isinstance(images, int) else None,
        size=size,
        used=folder.stat().st_mtime,
        runs=(run,) if run else (),
        obsolete=obsolete,
    )


def find_why_obsolete(folder: Path, root: str, form: str) -> str:
    """Return why no training would find a finished set; empty if one would."""
    if is_url(root):
        return ""
    try:
        source = find_source(root)
    except (FolderError, DataError, OSError):
        return "its photographs are gone"
    name = name_set(FolderSource(source) if isinstance(source, ImageFolder) else source, form)
    return "" if name == folder.name else "its photographs have changed"


def find_needed_contents(home: Home) -> Iterator[tuple[str, str]]:
    """Yield the contents that unfinished runs were trained on, with a run's name."""
    for path in sorted(home.runs.glob("*")):
        run = RunFolder(path)
        described = run.read_description()
        if not described.get("finished") and run.list_checkpoints():
            yield str(described.get("content")), path.name


def prune_sets(
    home: Home, sets: Collection[StoredSet], older_than: float | None = None
) -> list[StoredSet]:
    """Remove the sets that are obsolete, or unused since a moment; return those removed.

    Sets that an unfinished run needs stay, and those that a process is preparing.
    """
    removed: list[StoredSet] = []
    for stored in sets:
        unused = older_than is not None and stored.used < older_than
        if stored.runs or not (stored.obsolete or unused):
            continue
        with suppress(BlockingIOError):
            with lock_file(home.prepared / f".{stored.folder.name}.lock", wait=False):
                shutil.rmtree(stored.folder)
            removed.append(stored)
    for link in home.prepared.iterdir() if home.prepared.is_dir() else ():
        if link.is_symlink() and not link.exists():
            link.unlink()
    return removed

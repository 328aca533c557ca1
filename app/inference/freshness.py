"""Whether what the links to weights and index point to is still what was read."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeVar

from index import store
from storage.home import Home

T = TypeVar("T")


@dataclass(frozen=True)
class Signature:
    """What the links point to at a moment; it changes when weights or index are exchanged."""

    weights: tuple[object, ...] | None
    index: tuple[object, ...] | None


def signature(home: Home) -> Signature:
    """Look at the links, without reading what they point to."""
    current = home.index / store.CURRENT_LINK
    return Signature(
        weights=stamp(home.weights, home.weights),
        index=stamp(current, *contents(current)),
    )


def contents(folder: Path) -> list[Path]:
    """What lies in a folder; nothing when it is not there."""
    try:
        return sorted(folder.iterdir())
    except OSError:
        return []


def stamp(link: Path, *files: Path) -> tuple[object, ...] | None:
    """A link's target and the times and sizes of files; None when there is no such link."""
    try:
        target = str(link.readlink()) if link.is_symlink() else str(link.lstat().st_ino)
    except OSError:
        return None
    return (target, *(times(file) for file in files))


def times(file: Path) -> tuple[int, ...]:
    """What changes when a file does; nothing when it is not there."""
    try:
        stat = file.stat()
    except OSError:
        return ()
    return stat.st_ino, stat.st_size, stat.st_mtime_ns


class Remembered(Generic[T]):
    """The last value read, or the error met, and what it was read from: read once for each."""

    def __init__(self, error: type[Exception]) -> None:
        self.error = error
        self.key: object = None
        self.value: T | Exception | None = None

    def forget(self) -> None:
        """Read anew the next time."""
        self.key = self.value = None

    def get(self, key: object, read: Callable[[], T]) -> T:
        """The value for `key`, reading it unless it was the last one. Raises what reading does."""
        if self.value is None or key != self.key:
            try:
                self.key, self.value = key, read()
            except self.error as error:
                self.key, self.value = key, error
        if isinstance(self.value, Exception):
            raise self.value
        return self.value

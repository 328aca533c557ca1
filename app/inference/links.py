"""Notices when what serves has changed on disk, without reading it."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeVar

from index import store
from storage.home import Home

T = TypeVar("T")
FileIdentity = tuple[int, ...]


@dataclass(frozen=True)
class LinkSignature:
    """What the link `current` leads to, and the files that decide about the weights.

    It changes when any of them is replaced.
    """

    index: tuple[object, ...] | None
    files: tuple[tuple[Path, FileIdentity], ...]

    def is_current(self, home: Home) -> bool:
        """Whether nothing has changed since; a few calls of `stat`."""
        files = read_file_identities(file for file, _ in self.files)
        return self == LinkSignature(index=read_index_stamp(home.index), files=files)


def read_index_stamp(root: Path) -> tuple[object, ...] | None:
    """Read where the link `current` leads and the identity of the files there; None without it."""
    current = root / store.CURRENT_LINK
    try:
        files = sorted(current.iterdir())
    except OSError:
        files = []
    try:
        target = str(current.readlink()) if current.is_symlink() else str(current.lstat().st_ino)
    except OSError:
        return None
    return (target, *map(read_file_identity, files))


def read_file_identities(files: Iterable[Path]) -> tuple[tuple[Path, FileIdentity], ...]:
    """Read the identity of each file."""
    return tuple((file, read_file_identity(file)) for file in files)


def read_file_identity(file: Path) -> FileIdentity:
    """Read a file's device, inode, size and time, which show a change; empty if there is none."""
    try:
        stat = file.stat()
    except OSError:
        return ()
    return stat.st_dev, stat.st_ino, stat.st_size, stat.st_mtime_ns


class LastRead(Generic[T]):
    """The value read last, or the error it raised, with the key it was read for."""

    def __init__(self, error: type[Exception]) -> None:
        self.error = error
        self.key: object = None
        self.value: T | Exception | None = None

    def forget(self) -> None:
        """Read again the next time."""
        self.key = self.value = None

    def get(self, key: object, read: Callable[[], T]) -> T:
        """Return the value for `key`, reading it unless it was the last. Raises as `read`."""
        if self.value is None or key != self.key:
            try:
                self.key, self.value = key, read()
            except self.error as error:
                self.key, self.value = key, error
        if isinstance(self.value, Exception):
            raise self.value
        return self.value

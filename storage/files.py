"""Write files atomically, switch symbolic links, and lock between processes."""

import errno
import fcntl
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

DISK_FULL = frozenset({errno.ENOSPC, errno.EDQUOT})
"""Values of `OSError.errno` for a full disk, or a user's exhausted quota."""
LEFTOVER = re.compile(r"\..+\.part|\.tmp\w{6}")
"""Names of temporary files: this module's, and safetensors' own."""


@contextmanager
def replace_atomically(path: Path, *, keep_as: Path | None = None) -> Iterator[Path]:
    """Yield a temporary path beside `path` to write to; then make it durable and rename it.

    Readers see either the old file or the new one, never a part, even after a power failure. If
    the body raises, the temporary file is removed and `path` is unchanged. Raises OSError if the
    file cannot be written.

    keep_as: a path in the same folder under which the old file, if there is one, stays.
    """
    part = temporary_path(path)
    try:
        yield part
        fsync(part)
        if keep_as is not None and path.exists():
            link_file(path, keep_as)
        part.replace(path)
        fsync(path.parent)
    finally:
        part.unlink(missing_ok=True)


def link_file(path: Path, name: Path) -> None:
    """Give a file a second name in the same folder, replacing what had it.

    Where the file system has no hard links, the file is renamed. Raises OSError.
    """
    link = temporary_path(name)
    link.unlink(missing_ok=True)
    try:
        os.link(path, link)
    except OSError:
        path.replace(name)
        return
    link.replace(name)
    # Of two names of the same file, rename leaves both.
    link.unlink(missing_ok=True)


def remove_leftovers(folder: Path) -> None:
    """Remove the temporary files that killed processes left in a folder.

    Those of this module and of safetensors, which writes a file of its own beside the one that it
    is given. No other process may be writing there. Raises OSError.
    """
    for file in folder.iterdir():
        if LEFTOVER.fullmatch(file.name) and not file.is_dir():
            file.unlink(missing_ok=True)


def temporary_path(path: Path) -> Path:
    """Return the hidden path, in the same folder, that `replace_atomically` writes to."""
    return path.with_name(f".{path.name}.part")


def check_writable(path: Path) -> None:
    """Raise OSError, naming the file, unless it can be written. Leaves no file behind."""
    if path.is_dir():
        raise IsADirectoryError(f"{path} cannot be written: it is a folder")
    part = temporary_path(path)
    try:
        part.open("wb").close()
        part.unlink()
    except OSError as error:
        raise OSError(f"{path} cannot be written: {error.strerror}") from error


def write_atomically(path: Path, content: str | bytes) -> None:
    """Write a file atomically and durably, text as UTF-8. Raises OSError."""
    with replace_atomically(path) as part:
        part.write_bytes(content.encode() if isinstance(content, str) else content)


def make_links(folder: Path, links: Mapping[str, str | Path]) -> None:
    """Make symbolic links below a folder, by their paths relative to it. Raises OSError."""
    for name, target in links.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).symlink_to(target)


def switch_link(link: Path, target: Path) -> None:
    """Make `link` a symbolic link to `target`, replacing any earlier one atomically.

    The link is relative, so that the folder that holds both can be moved. Raises OSError.
    """
    link.parent.mkdir(parents=True, exist_ok=True)
    new = link.with_name(f".{link.name}.{os.getpid()}")
    new.unlink(missing_ok=True)
    new.symlink_to(os.path.relpath(target, link.parent))
    new.replace(link)


def fsync_folder(folder: Path) -> None:
    """Flush a folder and the files in it to the disk."""
    for file in folder.iterdir():
        fsync(file)
    fsync(folder)


def fsync(path: Path) -> None:
    """Flush one file or folder to the disk."""
    opened = os.open(path, os.O_RDONLY)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)


@contextmanager
def lock_file(path: Path, *, wait: bool = True, keep: bool = False) -> Iterator[None]:
    """Hold an exclusive lock among the processes of this machine.

    The operating system releases the lock when its holder dies. On release the file is removed,
    or with `keep` left there, its modification time showing when the lock was last taken. Raises
    BlockingIOError if another process holds the lock and `wait` is false, and OSError if the file
    cannot be created.
    """
    opened = open_and_lock(path, wait=wait)
    try:
        yield
    finally:
        if not keep:
            path.unlink(missing_ok=True)
        os.close(opened)


def open_and_lock(path: Path, *, wait: bool) -> int:
    """Open and lock a file; return its descriptor."""
    how = fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB
    while True:
        opened = os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o644)
        try:
            fcntl.flock(opened, how)
            # The last holder may have removed the file: then a new one may have its name.
            with suppress(FileNotFoundError):
                if os.path.samestat(os.fstat(opened), path.stat()):
                    return opened
        except BaseException:
            os.close(opened)
            raise
        os.close(opened)

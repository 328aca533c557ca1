"""The store's disk: one at a time, whole or not at all, and its errors in one line."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from storage.files import DISK_FULL, lock_file
from training.dataset.sample import DataError, UnfinishedError


@contextmanager
def writing(store: Path) -> Iterator[None]:
    """Say in one line what is wrong with the store's disk."""
    try:
        yield
    except OSError as error:
        if error.errno in DISK_FULL:
            raise UnfinishedError(
                f"the disk of {store} is full; what was decoded so far is kept: make room, or set "
                "ALEXNET_HOME to another disk, and call again"
            ) from error
        raise DataError(
            f"files cannot be written to {store}: {error.strerror or error}; make it writable or "
            "set ALEXNET_HOME to another folder"
        ) from error


@contextmanager
def locked(file: Path) -> Iterator[None]:
    """Wait until no other process of this machine holds the lock, and hold it."""
    with ExitStack() as stack:
        with writing(file.parent):
            stack.enter_context(lock_file(file))
        yield

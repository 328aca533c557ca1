"""The store's disk: one at a time, whole or not at all, and its errors in one line."""

import errno
import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from training.dataset.sample import DataError, UnfinishedError

FULL = {errno.ENOSPC, errno.EDQUOT}


@contextmanager
def writing(store: Path) -> Iterator[None]:
    """Say in one line what is wrong with the store's disk."""
    try:
        yield
    except OSError as error:
        if error.errno in FULL:
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
    with writing(file.parent):
        held = hold(file)
    try:
        yield
    finally:
        file.unlink(missing_ok=True)
        os.close(held)


def hold(file: Path) -> int:
    """Lock a file that still has its name when it is locked."""
    while True:
        opened = os.open(file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        fcntl.flock(opened, fcntl.LOCK_EX)
        with suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(opened), file.stat()):
                return opened
        os.close(opened)

"""The files of kept pictures: written whole or not at all, put aside on the way out.

A picture is `TOKEN.jpg`; while it is written `TOKEN.jpg.part`; while it is deleted
`TOKEN.jpg.erased`. What a crash leaves can be told by these names.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

PART_SUFFIX, ERASED_SUFFIX = ".part", ".erased"


@contextmanager
def write_then_rename(file: Path, data: bytes) -> Iterator[Path]:
    """Write a picture beside its place, for the body to rename into it.

    Nothing of it stays when anything fails. Raises OSError.
    """
    file.parent.mkdir(parents=True, exist_ok=True)
    part = file.with_name(file.name + PART_SUFFIX)
    try:
        with part.open("wb") as out:
            out.write(data)
            out.flush()
            os.fsync(out.fileno())
        yield part
    except BaseException:
        part.unlink(missing_ok=True)
        file.unlink(missing_ok=True)
        raise


@contextmanager
def delete_on_success(file: Path) -> Iterator[None]:
    """Take a picture's name away while the body runs, then delete it; give it back if that fails.

    One that somebody else put aside before, and that is still there, goes with it. Raises OSError.
    """
    aside = file.with_name(file.name + ERASED_SUFFIX)
    try:
        file.rename(aside)
        renamed = True
    except FileNotFoundError:
        renamed = False
    try:
        yield
    except BaseException:
        if renamed:
            aside.rename(file)
        raise
    # What cannot be deleted now is when leftovers are sought.
    with suppress(OSError):
        aside.unlink(missing_ok=True)

"""The files of stored pictures: written completely or not at all, and deleted in two steps.

A picture is `TOKEN.jpg`; while it is being written, `TOKEN.jpg.part`; while it is being deleted,
`TOKEN.jpg.erased`. These names identify what a crash leaves behind.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

PART_SUFFIX, ERASED_SUFFIX = ".part", ".erased"


@contextmanager
def write_then_rename(file: Path, data: bytes) -> Iterator[Path]:
    """Write a picture under its temporary name, for the body to rename.

    Removes it if anything fails. Raises OSError.
    """
    file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
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
    """Rename a picture while the body runs, then delete it, or rename it back if the body fails.

    Also deletes what an interrupted deletion of the same picture left. Raises OSError.
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
    # `clean_uploads` tries again if this fails.
    with suppress(OSError):
        aside.unlink(missing_ok=True)

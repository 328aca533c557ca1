"""The folder of a build at work: blocks of finished vectors, so that a new start goes on from them.

A piece is a file of vectors and, beside it, a file that says what they are of. The second is
written durably after the first and renamed into place: with it the piece counts, without it there
is none. So a build may be killed at any moment, and the power may fail.
"""

import hashlib
import json
import os
import re
import shutil
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from index.building.file_list import FileEntry, UnreadableFile
from index.manifest import PREPROCESSING, Shard, StoreError
from index.vectors import HEADER_BYTES, Floats, Vectors, write_shard
from storage.files import write_atomically

SEGMENT_NAME = re.compile(r"(block-\d+|shard)-(\d+)")
ScannedFile = FileEntry | UnreadableFile


@dataclass(frozen=True, kw_only=True)
class Segment:
    """Vectors in the work folder.

    found: what is known of the files. rows: each one's row in the piece, −1 where it has none
    because it is left out or another photograph has the same pixels.
    """

    name: str
    number: int
    shard: Shard
    files: list[ScannedFile]
    rows: list[int]

    @property
    def is_compacted(self) -> bool:
        """Whether it was put together of blocks, to be part of a version."""
        return self.name.startswith("shard")


def checkpoint_folder(place: Path, weights: str, data: Path, dtype: str) -> Path:
    """Where a build under `place` works: a folder for what vectors depend on."""
    seen = hashlib.sha256()
    for part in (weights, os.fsencode(data.absolute()), PREPROCESSING, dtype):
        seen.update(part if isinstance(part, bytes) else part.encode())
        seen.update(b"\0")
    return place / f".work-{seen.hexdigest()[:16]}"


def delete_checkpoints(place: Path) -> None:
    """Delete what builds under `place` have worked on; only for who holds the right to build."""
    for folder in place.glob(".work-*"):
        shutil.rmtree(folder, ignore_errors=True)


def delete_published_checkpoints(place: Path, version: Path) -> None:
    """Delete the work whose vectors are all a version's own files, by their other name.

    A build that died after its switch left it. Other work is kept: a build will go on from it.
    """
    own = {file.stat().st_ino for file in version.glob("*.npy")}
    for folder in place.glob(".work-*"):
        stats = [file.stat() for file in folder.glob("*.npy")]
        if all(stat.st_ino in own or stat.st_size <= HEADER_BYTES for stat in stats):
            shutil.rmtree(folder, ignore_errors=True)


class BuildCheckpoint:
    """A work folder, made when it is not there. Raises StoreError when it cannot be."""

    def __init__(self, folder: Path, dtype: str) -> None:
        self.folder, self.dtype = folder, dtype
        with disk_errors(folder):
            folder.mkdir(parents=True, exist_ok=True)

    def remove_partial(self) -> None:
        """Remove what a build that died left half done; only for the first process."""
        for entry in list(self.folder.iterdir()):
            if not (description_file(entry).exists() and SEGMENT_NAME.fullmatch(entry.stem)):
                entry.unlink(missing_ok=True)

    def segments(self) -> list[Segment]:
        """The finished pieces: those put together first, then blocks, each by their number."""
        found = [
            piece for file in self.folder.glob("*.jsonl") if (piece := self.read_segment(file))
        ]
        return sorted(found, key=lambda piece: (not piece.is_compacted, piece.number, piece.name))

    def read_segment(self, file: Path) -> Segment | None:
        """A piece, by the file that tells of it; None where it is not as it was written."""
        named = SEGMENT_NAME.fullmatch(file.stem)
        try:
            with file.open(encoding="utf-8") as lines:
                shard = Shard(**json.loads(next(lines)))
                told = [json.loads(line) for line in lines]
            Vectors(self.folder, [shard], self.dtype)
            rows = [values.pop("row") for values in told]
            found = [parse_scanned_file(values) for values in told]
        except (OSError, StopIteration, ValueError, TypeError, KeyError, StoreError):
            return None
        number = int(named[2]) if named else 0
        return Segment(name=file.stem, number=number, shard=shard, files=found, rows=rows)

    def write_segment(
        self,
        name: str,
        parts: Iterable[Floats],
        found: Sequence[ScannedFile],
        rows: Sequence[int],
    ) -> Shard:
        """Write a piece durably, whole or not at all. Raises StoreError."""
        file = self.folder / f"{name}.npy"
        with disk_errors(self.folder):
            try:
                shard = write_shard(file, iter(parts), self.dtype)
                told = (
                    json.dumps(asdict(one) | {"row": row})
                    for one, row in zip(found, rows, strict=True)
                )
                write_atomically(
                    description_file(file), "\n".join([json.dumps(asdict(shard)), *told]) + "\n"
                )
            except BaseException:
                with suppress(OSError):
                    file.unlink(missing_ok=True)
                raise
        return shard

    def delete_segment(self, piece: Segment) -> None:
        """Delete a piece; what tells of it first."""
        for suffix in (".jsonl", ".npy"):
            (self.folder / f"{piece.name}{suffix}").unlink(missing_ok=True)


def description_file(file: Path) -> Path:
    """The file that tells what a file of vectors is of."""
    return file.with_suffix(".jsonl")


def parse_scanned_file(values: dict[str, Any]) -> ScannedFile:
    """An entry, or what was left out. Raises TypeError for anything else."""
    if "reason" in values:
        stamp = values.pop("stamp")
        return UnreadableFile(**values, stamp=None if stamp is None else tuple(stamp))
    return FileEntry(**values)


@contextmanager
def disk_errors(folder: Path) -> Iterator[None]:
    """Turn a disk that is full, or read-only, into StoreError."""
    try:
        yield
    except OSError as error:
        raise StoreError(
            f"{folder} cannot be written: {error.strerror or error}. What was finished is kept: "
            "mend that, then start the build again"
        ) from error

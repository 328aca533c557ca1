"""The checkpoint of a running build: finished vectors, from which the next build resumes.

A segment is a file of vectors with a file that describes them: either a block, as it was computed,
or a shard compacted from blocks. The description is synced to disk after the vectors and renamed
into place; a segment without one is ignored. So a build survives a kill or a power cut at any time.
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
from index.manifest import PREPROCESSINGS, Shard, StoreError
from index.vectors import HEADER_BYTES, Floats, Vectors, write_shard
from storage.files import write_atomically

SEGMENT_NAME = re.compile(r"(block-\d+|shard)-(\d+)")
ScannedFile = FileEntry | UnreadableFile


@dataclass(frozen=True, kw_only=True)
class Segment:
    """Vectors in the checkpoint's folder.

    files: the scanned files that it covers. rows: the row of each file's vector in the segment; −1
    for an unreadable file, and for one whose pixels equal those of another photograph.
    """

    name: str
    number: int
    shard: Shard
    files: list[ScannedFile]
    rows: list[int]

    @property
    def is_compacted(self) -> bool:
        """Whether it is a shard compacted from blocks, ready for a version."""
        return self.name.startswith("shard")


def name_checkpoint_folder(place: Path, weights: str, data: Path, dtype: str) -> Path:
    """Return the folder of a build's checkpoint, named by a hash of what its vectors depend on."""
    digest = hashlib.sha256()
    for part in (weights, os.fsencode(data.absolute()), PREPROCESSINGS["bicubic"], dtype):
        digest.update(part if isinstance(part, bytes) else part.encode())
        digest.update(b"\0")
    return place / f".work-{digest.hexdigest()[:16]}"


def delete_checkpoints(place: Path) -> None:
    """Delete all checkpoints of the index in `place`; the caller holds the build lock."""
    for folder in place.glob(".work-*"):
        shutil.rmtree(folder, ignore_errors=True)


def delete_published_checkpoints(place: Path, version: Path) -> None:
    """Delete checkpoints whose vectors are all files of a version too, by hard links.

    A build that died right after publishing leaves them behind; others are kept to resume from.
    """
    published = {file.stat().st_ino for file in version.glob("*.npy")}
    for folder in place.glob(".work-*"):
        stats = [file.stat() for file in folder.glob("*.npy")]
        if all(stat.st_ino in published or stat.st_size <= HEADER_BYTES for stat in stats):
            shutil.rmtree(folder, ignore_errors=True)


class BuildCheckpoint:
    """A checkpoint's folder, created if needed. Raises StoreError if it cannot be created."""

    def __init__(self, folder: Path, dtype: str) -> None:
        self.folder, self.dtype = folder, dtype
        with translate_disk_errors(folder):
            folder.mkdir(parents=True, exist_ok=True)

    def remove_partial(self) -> None:
        """Remove incomplete segments of a dead build. Call it in the first process only."""
        for entry in list(self.folder.iterdir()):
            if not (name_description_file(entry).exists() and SEGMENT_NAME.fullmatch(entry.stem)):
                entry.unlink(missing_ok=True)

    def list_segments(self) -> list[Segment]:
        """List the finished segments: shards first, then blocks, each sorted by number."""
        files = self.folder.glob("*.jsonl")
        segments = [segment for file in files if (segment := self.read_segment(file))]
        return sorted(segments, key=lambda s: (not s.is_compacted, s.number, s.name))

    def read_segment(self, file: Path) -> Segment | None:
        """Read a segment, given its description; None if either file is damaged."""
        name = SEGMENT_NAME.fullmatch(file.stem)
        try:
            with file.open(encoding="utf-8") as lines:
                shard = Shard(**json.loads(next(lines)))
                described = [json.loads(line) for line in lines]
            Vectors(self.folder, [shard], self.dtype)
            rows = [values.pop("row") for values in described]
            files = [parse_scanned_file(values) for values in described]
        except (OSError, StopIteration, ValueError, TypeError, KeyError, StoreError):
            return None
        number = int(name[2]) if name else 0
        return Segment(name=file.stem, number=number, shard=shard, files=files, rows=rows)

    def write_segment(
        self,
        name: str,
        parts: Iterable[Floats],
        files: Sequence[ScannedFile],
        rows: Sequence[int],
    ) -> Shard:
        """Write a segment atomically and durably. Raises StoreError.

        parts: float32 [n, 4096] each.
        """
        file = self.folder / f"{name}.npy"
        with translate_disk_errors(self.folder):
            try:
                shard = write_shard(file, iter(parts), self.dtype)
                described = (
                    json.dumps(asdict(one) | {"row": row})
                    for one, row in zip(files, rows, strict=True)
                )
                write_atomically(
                    name_description_file(file),
                    "\n".join([json.dumps(asdict(shard)), *described]) + "\n",
                )
            except BaseException:
                with suppress(OSError):
                    file.unlink(missing_ok=True)
                raise
        return shard

    def delete_segment(self, segment: Segment) -> None:
        """Delete a segment, its description first."""
        for suffix in (".jsonl", ".npy"):
            (self.folder / f"{segment.name}{suffix}").unlink(missing_ok=True)


def name_description_file(file: Path) -> Path:
    """Return the path of the description of a file of vectors."""
    return file.with_suffix(".jsonl")


def parse_scanned_file(values: dict[str, Any]) -> ScannedFile:
    """Parse the description of one file. Raises TypeError if fields are missing or unknown."""
    if "reason" in values:
        stamp = values.pop("stamp")
        return UnreadableFile(**values, stamp=None if stamp is None else tuple(stamp))
    return FileEntry(**values)


@contextmanager
def translate_disk_errors(folder: Path) -> Iterator[None]:
    """Turn errors of a full or read-only disk into StoreError."""
    try:
        yield
    except OSError as error:
        raise StoreError(
            f"{folder} cannot be written: {error.strerror or error}. What was finished is kept: "
            "free the disk, then start the build again"
        ) from error

"""A list of corrections as a zip: its photographs by class, and the list as CSV and JSON.

The photographs lie as `flask data apply` would arrange them, relabelled ones in the folder of their
new class; dropped ones lie under `dropped`. The zip is made while it is sent, one photograph at a
time in memory, and stores the files as they are, since photographs are compressed already.
"""

import hashlib
import io
import time
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from app.review.apply import choose_free_path, move_to_class
from app.review.correction_list import format_corrections_csv, format_corrections_json
from app.review.corrections import CorrectionError, ListedCorrection

MAX_ZIP_BYTES = 2_000_000_000
"""Bytes of all photographs in a zip."""
FOLDER, DROPPED, LEFT_OUT = "corrections", "dropped", "left-out.txt"


@dataclass(frozen=True, kw_only=True)
class PackedPhotograph:
    """A photograph to pack: its file, its path in the zip, and the SHA-256 that was reviewed."""

    file: Path
    path: str
    sha256: str


def plan_zip(
    corrections: Sequence[ListedCorrection], files: Mapping[int, Path]
) -> list[PackedPhotograph]:
    """Plan where each photograph of a list lies in the zip.

    files: by the image's id. Raises CorrectionError if the photographs are too large together.
    """
    taken: dict[str, Path] = {}
    planned = []
    for one in corrections:
        if file := files.get(one.image_id):
            path = choose_free_path(arrange(one), taken)
            taken[path] = file
            planned.append(PackedPhotograph(file=file, path=path, sha256=one.sha256))
    size = sum(file.stat().st_size for file in taken.values() if file.is_file())
    if size > MAX_ZIP_BYTES:
        raise CorrectionError(
            f"The listed photographs take {size / 1e9:,.1f} GB, and a zip has at most "
            f"{MAX_ZIP_BYTES / 1e9:,.0f} GB; export the list as CSV and use `flask data apply`."
        )
    return planned


def arrange(one: ListedCorrection) -> str:
    """Return the path of a listed photograph in the zip's folder."""
    if one.action == "relabel":
        return move_to_class(one.file, one.label, one.to)
    return f"{DROPPED}/{one.file}" if one.action == "drop" else one.file


def stream_zip(
    corrections: Sequence[ListedCorrection], photographs: Sequence[PackedPhotograph]
) -> Iterator[bytes]:
    """Make the zip, piece by piece.

    A photograph that is gone, or has changed since it was reviewed, is named in `left-out.txt`
    instead.
    """
    out = Outbox()
    left_out = []
    with zipfile.ZipFile(out, "w") as archive:
        archive.writestr(f"{FOLDER}/corrections.csv", format_corrections_csv(corrections))
        archive.writestr(f"{FOLDER}/corrections.json", format_corrections_json(corrections))
        for one in photographs:
            try:
                data = one.file.read_bytes()
                modified = time.localtime(one.file.stat().st_mtime)[:6]
            except OSError:
                left_out.append(f"{one.path}: cannot be read")
                continue
            if hashlib.sha256(data).hexdigest() != one.sha256:
                left_out.append(f"{one.path}: has changed since it was reviewed")
                continue
            info = zipfile.ZipInfo(f"{FOLDER}/{one.path}", max(modified, (1980, 1, 1, 0, 0, 0)))
            archive.writestr(info, data)
            yield out.take()
        if left_out:
            archive.writestr(f"{FOLDER}/{LEFT_OUT}", "\n".join([*left_out, ""]))
    yield out.take()


class Outbox(io.RawIOBase):
    """Collects what is written until it is taken; it cannot be gone back in, as a connection."""

    def __init__(self) -> None:
        self.pieces: list[bytes] = []

    def writable(self) -> bool:
        """Return that it can be written to."""
        return True

    def write(self, data: bytes) -> int:  # type: ignore[override]  # zipfile writes bytes only
        """Collect bytes."""
        self.pieces.append(bytes(data))
        return len(data)

    def take(self) -> bytes:
        """Return what was written since the last time."""
        taken = b"".join(self.pieces)
        self.pieces.clear()
        return taken

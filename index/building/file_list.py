"""The file list of a version: each file's row, and what shows later whether it has changed."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from index.arrays import DAMAGED_FILE_ERRORS, load_arrays, save_arrays
from index.manifest import REBUILD_HINT, StoreError
from index.vectors import Ids

FILE_LIST = "files.npz"
"""Name of the file in a version's folder."""
Stamp = tuple[int, int, int]
"""A file's size, mtime and ctime, the times in nanoseconds."""


@dataclass(frozen=True, kw_only=True, slots=True)
class FileEntry:
    """A photograph that could be read.

    path: relative to the dataset's root, with forward slashes. size: in bytes. mtime_ns, ctime_ns:
    as they were when the file was opened. sha256: of the file, in hex. format, width, height: from
    the header, with the EXIF orientation applied. pixels: digest, 32 hex digits, of the 256×256
    square.
    """

    path: str
    size: int
    mtime_ns: int
    ctime_ns: int
    sha256: str
    format: str
    width: int
    height: int
    pixels: str

    @property
    def stamp(self) -> Stamp:
        """Size and times, at least one of which changes with the file."""
        return self.size, self.mtime_ns, self.ctime_ns

    @property
    def bytes(self) -> int:
        """The file's size, under the name of the database's column."""
        return self.size


@dataclass(frozen=True, kw_only=True, slots=True)
class UnreadableFile:
    """A file that could not be read, and why. stamp: None if it could not be opened at all."""

    path: str
    reason: str
    stamp: Stamp | None = None


def escape_file_name(name: str) -> str:
    """Escape the bytes of a file's name that are not UTF-8."""
    return name.encode("utf-8", "backslashreplace").decode()


def write_file_list(path: Path, entries: Sequence[FileEntry], rows: Ids) -> None:
    """Write M entries and their rows, int64 [M]: about 100 bytes per entry, plus its path.

    Raises OSError, and ValueError if the numbers of entries and rows differ.
    """
    paths = [entry.path.encode() for entry in entries]
    formats = sorted({entry.format for entry in entries})
    code = {name: number for number, name in enumerate(formats)}
    columns: dict[str, npt.NDArray[np.generic]] = {
        "paths": np.frombuffer(b"".join(paths), np.uint8),
        "ends": np.cumsum([len(name) for name in paths], dtype=np.int64),
        "stamps": np.array([entry.stamp for entry in entries], np.int64).reshape(-1, 3),
        "sha256": decode_hex_digests([entry.sha256 for entry in entries], 32),
        "pixels": decode_hex_digests([entry.pixels for entry in entries], 16),
        "formats": np.array(formats, np.str_),
        "format": np.array([code[entry.format] for entry in entries], np.uint8),
        "sides": np.array([(e.width, e.height) for e in entries], np.uint32).reshape(-1, 2),
        "rows": np.asarray(rows, np.int64),
    }
    if len(columns["rows"]) != len(entries):
        raise ValueError(f"{len(entries)} entries need a row each, not {len(columns['rows'])} rows")
    save_arrays(path, columns)


def decode_hex_digests(texts: Sequence[str], width: int) -> npt.NDArray[np.uint8]:
    """Convert hex digests to bytes, uint8 [M, width]."""
    return np.frombuffer(bytes.fromhex("".join(texts)), np.uint8).reshape(-1, width)


def read_file_list(path: Path) -> tuple[list[FileEntry], Ids]:
    """Read the entries, in their order, and their rows, int64 [M]. Raises StoreError."""
    columns = load_arrays(path)
    try:
        return list(decode_entries(columns)), columns["rows"]
    except DAMAGED_FILE_ERRORS as error:
        raise StoreError(f"{path} is damaged ({error}); {REBUILD_HINT}") from error


def decode_entries(columns: dict[str, npt.NDArray[np.generic]]) -> Iterator[FileEntry]:
    """Decode the columns into entries. Raises ValueError if their lengths differ."""
    ends = columns["ends"].tolist()
    blob, formats = columns["paths"].tobytes(), columns["formats"].tolist()
    values = zip(
        [0, *ends[:-1]] if ends else [],
        ends,
        columns["stamps"].tolist(),
        encode_hex_digests(columns["sha256"], 32),
        encode_hex_digests(columns["pixels"], 16),
        columns["format"].tolist(),
        columns["sides"].tolist(),
        columns["rows"],
        strict=True,
    )
    for start, end, (size, mtime, ctime), sha256, pixels, kind, (width, height), _ in values:
        yield FileEntry(
            path=blob[start:end].decode(),
            size=size,
            mtime_ns=mtime,
            ctime_ns=ctime,
            sha256=sha256,
            format=formats[kind],
            width=width,
            height=height,
            pixels=pixels,
        )


def encode_hex_digests(digests: npt.NDArray[np.generic], width: int) -> Iterator[str]:
    """Convert uint8 [M, width] to hex digests."""
    text = digests.reshape(-1, width).tobytes().hex()
    return (text[at : at + 2 * width] for at in range(0, len(text), 2 * width))

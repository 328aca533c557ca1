"""Reads files ahead of the network, each once: hash, header, the 256×256 square and its digest.

Runs in threads: hashing, decoding and resizing release Python's global lock.
"""

import hashlib
import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

from index.building.file_list import FileEntry, Stamp, UnreadableFile
from model.image.decode import ImageError, read_image_header
from model.image.preprocess import decode_square
from model.network.config import Resize
from model.predict import Pixels

S = TypeVar("S")
T = TypeVar("T")
FindBySha256 = Callable[[str], FileEntry | None]
"""Finds the entry of a file with these bytes by their SHA-256, in hex."""


@dataclass(frozen=True, slots=True)
class DecodedFile:
    """A readable file. square: uint8 [256, 256, 3]; None if a file with its bytes is known."""

    entry: FileEntry
    square: Pixels | None


def read_photograph(
    root: Path, path: str, known: FindBySha256, resize: Resize = "bicubic"
) -> DecodedFile | UnreadableFile:
    """Read and decode one file; an unreadable one is returned, since it must not stop a build.

    resize: how it becomes a square, as the network's configuration says.
    """
    try:
        data, stamp = read_bytes_and_stamp(root / path)
    except OSError as error:
        reason = error.strerror or type(error).__name__
        return UnreadableFile(path=path, reason=f"The file cannot be opened: {reason}.")
    sha256 = hashlib.sha256(data).hexdigest()
    if (seen := known(sha256)) is not None:
        size, mtime, ctime = stamp
        return DecodedFile(
            replace(seen, path=path, size=size, mtime_ns=mtime, ctime_ns=ctime), None
        )
    try:
        return decode_file(path, data, stamp, sha256, resize)
    except ImageError as error:
        return UnreadableFile(path=path, reason=str(error), stamp=stamp)


def read_bytes_and_stamp(file: Path) -> tuple[bytes, Stamp]:
    """Read a file's bytes, and its stamp from before reading. Raises OSError."""
    with file.open("rb", buffering=0) as opened:
        status = os.fstat(opened.fileno())
        data = opened.read()
    return data, (len(data), status.st_mtime_ns, status.st_ctime_ns)


def decode_file(path: str, data: bytes, stamp: Stamp, sha256: str, resize: Resize) -> DecodedFile:
    """Decode a file's bytes. Raises ImageError."""
    first = read_image_header(data, trusted=True)
    square = decode_square(data, resize=resize, trusted=True)
    size, mtime, ctime = stamp
    entry = FileEntry(
        path=path,
        size=size,
        mtime_ns=mtime,
        ctime_ns=ctime,
        sha256=sha256,
        format=first.kind,
        width=first.width,
        height=first.height,
        pixels=hashlib.sha256(square.data).hexdigest()[:32],
    )
    return DecodedFile(entry, square)


def read_file_stamp(file: Path) -> Stamp | None:
    """Read a file's size and times; None if it cannot be examined."""
    try:
        status = file.stat()
    except OSError:
        return None
    return status.st_size, status.st_mtime_ns, status.st_ctime_ns

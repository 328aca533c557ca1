"""Files read once, ahead of the network: hash, header, square of pixels, and the pixels' digest.

Threads read: hashing, decoding and resizing happen outside the interpreter's lock.
"""

import hashlib
import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

from index.building.file_list import FileEntry, Stamp, UnreadableFile
from model.decode import ImageError, read_image_header
from model.predict import Pixels
from model.preprocess import decode_square

S = TypeVar("S")
T = TypeVar("T")
FindBySha256 = Callable[[str], FileEntry | None]
"""Finds what is known of a file by the SHA-256 of its bytes, in hex."""


@dataclass(frozen=True, slots=True)
class DecodedFile:
    """A file that was read. square: uint8 [256, 256, 3]; None where its bytes are known."""

    entry: FileEntry
    square: Pixels | None


def read_photograph(root: Path, path: str, known: FindBySha256) -> DecodedFile | UnreadableFile:
    """Read one file; what is wrong with it is a value, since one bad file stops nothing."""
    try:
        data, stamp = read_bytes_and_stamp(root / path)
    except OSError as error:
        why = error.strerror or type(error).__name__
        return UnreadableFile(path=path, reason=f"The file cannot be opened: {why}.")
    sha256 = hashlib.sha256(data).hexdigest()
    if (seen := known(sha256)) is not None:
        size, mtime, ctime = stamp
        return DecodedFile(
            replace(seen, path=path, size=size, mtime_ns=mtime, ctime_ns=ctime), None
        )
    try:
        return decode_file(path, data, stamp, sha256)
    except ImageError as error:
        return UnreadableFile(path=path, reason=str(error), stamp=stamp)


def read_bytes_and_stamp(file: Path) -> tuple[bytes, Stamp]:
    """A file's bytes, and its stamp as it was before they were read. Raises OSError."""
    with file.open("rb", buffering=0) as opened:
        found = os.fstat(opened.fileno())
        data = opened.read()
    return data, (len(data), found.st_mtime_ns, found.st_ctime_ns)


def decode_file(path: str, data: bytes, stamp: Stamp, sha256: str) -> DecodedFile:
    """What the network sees of a file's bytes. Raises ImageError."""
    first = read_image_header(data)
    square = decode_square(data)
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


def file_stamp(file: Path) -> Stamp | None:
    """A file's size and times; None where it cannot be looked at."""
    try:
        found = file.stat()
    except OSError:
        return None
    return found.st_size, found.st_mtime_ns, found.st_ctime_ns

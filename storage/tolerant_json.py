"""Files that somebody else is writing: read bounded, and for what they are worth.

Whatever is missing, cut off, too large, unreadable, of another kind or of another type is nothing.
"""

import json
import os
import stat
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

LONGEST_TEXT = 500
LARGEST, SMALLEST = 1e15, 1e-30


def read_bytes(file: Path, most: int, *, end: bool = False) -> bytes | None:
    """Give a file's content; None where there is none to read, or more than `most` bytes.

    With `end` of a longer one its last `most` bytes.
    """
    # A pipe in a file's place would keep the page waiting for somebody to write into it.
    with suppress(OSError), os.fdopen(os.open(file, os.O_RDONLY | os.O_NONBLOCK), "rb") as opened:
        found = os.fstat(opened.fileno())
        if not stat.S_ISREG(found.st_mode) or (found.st_size > most and not end):
            return None
        opened.seek(max(0, found.st_size - most))
        return opened.read(most)
    return None


def read_object(file: Path, most: int) -> dict[str, Any]:
    """Give the object of a JSON file; empty where there is none."""
    return as_object(read_bytes(file, most))


def as_object(data: bytes | None) -> dict[str, Any]:
    """Read a JSON object, NaN and Infinity among its numbers; empty where it is none."""
    try:
        found = json.loads((data or b"").decode("utf-8", "replace"))
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def folders(place: Path) -> dict[str, Path]:
    """The folders directly under a place, by name, that can be named in an address."""
    return {path.name: path for path in entries(place) if is_folder(path) and sayable(path.name)}


def entries(place: Path, most: int = 10_000) -> Iterator[Path]:
    """What lies in a folder, in no order; nothing when it cannot be looked into."""
    with suppress(OSError), os.scandir(place) as found:
        for _, entry in zip(range(most), found, strict=False):
            yield Path(entry.path)


def is_folder(path: Path) -> bool:
    """Whether this is a folder that may be looked at."""
    try:
        return not path.name.startswith(".") and path.is_dir()
    except OSError:
        return False


def sayable(name: str) -> bool:
    """Whether a file's name is text: others cannot be written on a page."""
    try:
        return bool(name.encode())
    except UnicodeEncodeError:
        return False


def written(file: Path) -> float | None:
    """When a file was written last, in seconds since 1970; None when there is none."""
    try:
        return file.stat().st_mtime
    except OSError:
        return None


def file_size(file: Path) -> int | None:
    """A plain file's size in bytes; None when it is none, or is not there."""
    try:
        found = file.stat()
    except OSError:
        return None
    return found.st_size if stat.S_ISREG(found.st_mode) else None


def number(value: object) -> float | None:
    """A number of a size that can be drawn, those next to nothing being nothing; or None."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    if not -LARGEST <= value <= LARGEST:  # nor is NaN
        return None
    return float(value) if abs(value) >= SMALLEST else 0.0


def share(value: object) -> float | None:
    """A number from 0 to 1, or None."""
    found = number(value)
    return found if found is not None and 0 <= found <= 1 else None


def whole(value: object, most: int = 10**12) -> int | None:
    """A whole number from 0, or None."""
    found = number(value)
    return int(found) if found is not None and 0 <= found <= most and found == int(found) else None


def text(value: object) -> str:
    """A text, cut where it is very long; empty for anything else."""
    if not isinstance(value, str):
        return ""
    return value[:LONGEST_TEXT].encode("utf-8", "replace").decode()


def table(value: object) -> dict[str, Any]:
    """An object, or an empty one."""
    return value if isinstance(value, dict) else {}


def rows(value: object) -> list[dict[str, Any]]:
    """The objects of a list."""
    return [row for row in value if isinstance(row, dict)] if isinstance(value, list) else []

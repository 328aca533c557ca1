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

MAX_TEXT_LENGTH = 500
MAX_MAGNITUDE, MIN_MAGNITUDE = 1e15, 1e-30


def read_bounded(file: Path, max_bytes: int, *, tail_only: bool = False) -> bytes | None:
    """Give a file's content; None where there is none to read, or more than `most` bytes.

    With `end` of a longer one its last `most` bytes.
    """
    # A pipe in a file's place would keep the page waiting for somebody to write into it.
    with suppress(OSError), os.fdopen(os.open(file, os.O_RDONLY | os.O_NONBLOCK), "rb") as opened:
        found = os.fstat(opened.fileno())
        if not stat.S_ISREG(found.st_mode) or (found.st_size > max_bytes and not tail_only):
            return None
        opened.seek(max(0, found.st_size - max_bytes))
        return opened.read(max_bytes)
    return None


def read_json_object(file: Path, max_bytes: int) -> dict[str, Any]:
    """Give the object of a JSON file; empty where there is none."""
    return parse_json_object(read_bounded(file, max_bytes))


def parse_json_object(data: bytes | None) -> dict[str, Any]:
    """Read a JSON object, NaN and Infinity among its numbers; empty where it is none."""
    try:
        found = json.loads((data or b"").decode("utf-8", "replace"))
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def list_folders(place: Path) -> dict[str, Path]:
    """The folders directly under a place, by name, that can be named in an address."""
    return {
        path.name: path
        for path in list_entries(place)
        if is_visible_folder(path) and is_encodable(path.name)
    }


def list_entries(place: Path, limit: int = 10_000) -> Iterator[Path]:
    """What lies in a folder, in no order; nothing when it cannot be looked into."""
    with suppress(OSError), os.scandir(place) as found:
        for _, entry in zip(range(limit), found, strict=False):
            yield Path(entry.path)


def is_visible_folder(path: Path) -> bool:
    """Whether this is a folder that may be looked at."""
    try:
        return not path.name.startswith(".") and path.is_dir()
    except OSError:
        return False


def is_encodable(name: str) -> bool:
    """Whether a file's name is text: others cannot be written on a page."""
    try:
        return bool(name.encode())
    except UnicodeEncodeError:
        return False


def modification_time(file: Path) -> float | None:
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


def finite_number(value: object) -> float | None:
    """A number of a size that can be drawn, those next to nothing being nothing; or None."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    if not -MAX_MAGNITUDE <= value <= MAX_MAGNITUDE:  # nor is NaN
        return None
    return float(value) if abs(value) >= MIN_MAGNITUDE else 0.0


def fraction(value: object) -> float | None:
    """A number from 0 to 1, or None."""
    found = finite_number(value)
    return found if found is not None and 0 <= found <= 1 else None


def natural_number(value: object, maximum: int = 10**12) -> int | None:
    """A whole number from 0, or None."""
    found = finite_number(value)
    return (
        int(found) if found is not None and 0 <= found <= maximum and found == int(found) else None
    )


def bounded_text(value: object) -> str:
    """A text, cut where it is very long; empty for anything else."""
    if not isinstance(value, str):
        return ""
    return value[:MAX_TEXT_LENGTH].encode("utf-8", "replace").decode()


def dict_or_empty(value: object) -> dict[str, Any]:
    """An object, or an empty one."""
    return value if isinstance(value, dict) else {}


def list_of_dicts(value: object) -> list[dict[str, Any]]:
    """The objects of a list."""
    return [row for row in value if isinstance(row, dict)] if isinstance(value, list) else []

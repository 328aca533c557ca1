"""Read files that another process may be writing, within limits and without errors.

Anything missing, truncated, too large, unreadable or of the wrong type reads as None or empty.
"""

import json
import os
import stat
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

MAX_TEXT_LENGTH = 500
"""Characters of a text; the rest is cut off."""
MAX_MAGNITUDE, MIN_MAGNITUDE = 1e15, 1e-30
"""Larger numbers cannot be drawn and are dropped; smaller ones become zero."""


def read_bounded(file: Path, max_bytes: int, *, tail_only: bool = False) -> bytes | None:
    """Return a file's content; None if it cannot be read or has more than `max_bytes` bytes.

    With `tail_only`, return only the last `max_bytes` bytes of a longer file.
    """
    # Non-blocking, since opening a pipe in place of a file would wait for a writer.
    with suppress(OSError), os.fdopen(os.open(file, os.O_RDONLY | os.O_NONBLOCK), "rb") as opened:
        status = os.fstat(opened.fileno())
        if not stat.S_ISREG(status.st_mode) or (status.st_size > max_bytes and not tail_only):
            return None
        opened.seek(max(0, status.st_size - max_bytes))
        return opened.read(max_bytes)
    return None


def read_json_object(file: Path, max_bytes: int) -> dict[str, Any]:
    """Read a JSON file's object; empty if there is none."""
    return parse_json_object(read_bounded(file, max_bytes))


def parse_json_object(data: bytes | None) -> dict[str, Any]:
    """Parse a JSON object, in which NaN and Infinity are allowed; empty if it is not one."""
    try:
        content = json.loads((data or b"").decode("utf-8", "replace"))
    except (ValueError, RecursionError):
        return {}
    return content if isinstance(content, dict) else {}


def list_folders(folder: Path) -> dict[str, Path]:
    """Return the visible folders directly under a folder, by name, if it can stand in a URL."""
    return {
        path.name: path
        for path in list_entries(folder)
        if is_visible_folder(path) and is_encodable(path.name)
    }


def list_entries(folder: Path, limit: int = 10_000) -> Iterator[Path]:
    """Yield a folder's entries, at most `limit`, in arbitrary order; none if it cannot be read."""
    with suppress(OSError), os.scandir(folder) as entries:
        for _, entry in zip(range(limit), entries, strict=False):
            yield Path(entry.path)


def is_visible_folder(path: Path) -> bool:
    """Return whether a path is a folder that is not hidden."""
    try:
        return not path.name.startswith(".") and path.is_dir()
    except OSError:
        return False


def is_encodable(name: str) -> bool:
    """Return whether a file name is valid Unicode, so that a page can show it."""
    try:
        return bool(name.encode())
    except UnicodeEncodeError:
        return False


def modification_time(file: Path) -> float | None:
    """Return when a file was last written, in seconds since 1970; None if it does not exist."""
    try:
        return file.stat().st_mtime
    except OSError:
        return None


def file_size(file: Path) -> int | None:
    """Return a regular file's size in bytes; None if it does not exist or is not one."""
    try:
        status = file.stat()
    except OSError:
        return None
    return status.st_size if stat.S_ISREG(status.st_mode) else None


def finite_number(value: object) -> float | None:
    """Return a number within MAX_MAGNITUDE, or None; below MIN_MAGNITUDE it becomes zero."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    if not -MAX_MAGNITUDE <= value <= MAX_MAGNITUDE:  # also false for NaN
        return None
    return float(value) if abs(value) >= MIN_MAGNITUDE else 0.0


def fraction(value: object) -> float | None:
    """Return a number from 0 to 1, or None."""
    number = finite_number(value)
    return number if number is not None and 0 <= number <= 1 else None


def natural_number(value: object, maximum: int = 10**12) -> int | None:
    """Return an integer from 0 to `maximum`, or None."""
    number = finite_number(value)
    if number is None or not 0 <= number <= maximum or number != int(number):
        return None
    return int(number)


def bounded_text(value: object) -> str:
    """Return a text, cut to MAX_TEXT_LENGTH; empty for anything else."""
    if not isinstance(value, str):
        return ""
    return value[:MAX_TEXT_LENGTH].encode("utf-8", "replace").decode()


def dict_or_empty(value: object) -> dict[str, Any]:
    """Return a JSON object, or an empty one for anything else."""
    return value if isinstance(value, dict) else {}


def list_of_dicts(value: object) -> list[dict[str, Any]]:
    """Return the objects in a JSON list; none for anything else."""
    return [row for row in value if isinstance(row, dict)] if isinstance(value, list) else []

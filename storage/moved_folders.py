"""Folders of photographs that were moved, by where weights files say that they were."""

import json
from pathlib import Path

from storage.files import write_atomically
from storage.home import Home
from storage.tolerant_json import read_json_object

MAX_BYTES = 1_000_000


def record_moved_folder(home: Home, old: Path, new: Path) -> None:
    """Record that a folder now lies elsewhere; all that led to it leads there. Raises OSError."""
    known = read_moved_folders(home)
    moved = {place: str(new) if now == str(old) else now for place, now in known.items()}
    moved[str(old)] = str(new)
    moved.pop(str(new), None)  # it is back
    home.root.mkdir(parents=True, exist_ok=True)
    write_atomically(home.moved_folders, json.dumps(moved, indent=2, ensure_ascii=False) + "\n")


def find_moved_folder(home: Home, folder: Path) -> Path:
    """Return where a folder lies now: there, unless it was recorded as moved."""
    return Path(read_moved_folders(home).get(str(folder), folder))


def read_moved_folders(home: Home) -> dict[str, str]:
    """Read where folders lie now, by where they were; empty if none was moved."""
    found = read_json_object(home.moved_folders, MAX_BYTES)
    return {place: now for place, now in found.items() if isinstance(now, str)}

"""Files that an evaluation writes: whole or not at all."""

import json
from pathlib import Path
from typing import Any

from model.home import write_whole


def check_writable(path: Path) -> None:
    """Raise OSError, naming the file, unless it can be written; nothing stays."""
    if path.is_dir():
        raise IsADirectoryError(f"{path} cannot be written: it is a folder")
    part = beside(path)
    try:
        part.open("wb").close()
        part.unlink()
    except OSError as error:
        raise OSError(f"{path} cannot be written: {error.strerror}") from error


def write_json(content: Any, path: Path) -> None:
    """Write JSON, indented, in UTF-8."""
    write_whole(path, json.dumps(content, indent=2, ensure_ascii=False) + "\n")


def beside(path: Path) -> Path:
    """Where a file is made before it takes its name."""
    return path.with_name(f".{path.name}.part")

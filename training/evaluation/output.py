"""Files that an evaluation writes: whole or not at all."""

import json
import re
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from storage.files import temporary_path, write_atomically
from storage.home import Home
from training.evaluation.metrics import Verdict
from training.evaluation.predictions import ENSEMBLE

LONGEST_NAME = 80


def check_writable(path: Path) -> None:
    """Raise OSError, naming the file, unless it can be written; nothing stays."""
    if path.is_dir():
        raise IsADirectoryError(f"{path} cannot be written: it is a folder")
    part = temporary_path(path)
    try:
        part.open("wb").close()
        part.unlink()
    except OSError as error:
        raise OSError(f"{path} cannot be written: {error.strerror}") from error


def write_json(content: Any, path: Path) -> None:
    """Write JSON, indented, in UTF-8."""
    write_atomically(path, json.dumps(content, indent=2, ensure_ascii=False) + "\n")


def keep(verdict: Verdict, home: Home, root: Path) -> Path:
    """Write a verdict where the application finds it, and give the file.

    To what the JSON file holds it adds what only this machine knows: `created`, the time, and
    `root`, the folder of the photographs, absolute. Raises OSError.
    """
    now = datetime.now(UTC)
    name = verdict.models[0].name if len(verdict.models) == 1 else ENSEMBLE
    stem = f"{now:%Y%m%d-%H%M%S}-{re.sub(r'[^A-Za-z0-9._-]+', '_', name)[:LONGEST_NAME]}"
    home.evaluations.mkdir(parents=True, exist_ok=True)
    taken = {file.name for file in home.evaluations.iterdir()}
    names = (f"{stem}{f'-{n}' if n > 1 else ''}.json" for n in range(1, len(taken) + 2))
    file = home.evaluations / next(name for name in names if name not in taken)
    own = {"created": f"{now:%Y-%m-%dT%H:%M:%SZ}", "root": str(root.resolve())}
    write_json(own | asdict(verdict), file)
    return file

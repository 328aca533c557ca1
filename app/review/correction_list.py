"""A list of corrections as a file: CSV or JSON."""

import csv
import io
import json
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from app.review.corrections import ACTIONS, CorrectionError, ListedCorrection
from storage.csv_cells import escape_cell, unescape_cell

FIELDS = ("file", "sha256", "action", "label", "to", "note")
FORMAT = 1


def format_corrections_json(corrections: Sequence[ListedCorrection]) -> str:
    """Write a list as JSON."""
    rows = [{name: getattr(one, name) for name in FIELDS} for one in corrections]
    content = {"format": FORMAT, "corrections": rows}
    return json.dumps(content, indent=2, ensure_ascii=False) + "\n"


def format_corrections_csv(corrections: Sequence[ListedCorrection]) -> str:
    """Write a list as CSV, without formulas for a spreadsheet."""
    out = io.StringIO()
    lines = csv.writer(out, lineterminator="\n")
    lines.writerow(FIELDS)
    lines.writerows([escape_cell(getattr(one, name)) for name in FIELDS] for one in corrections)
    return out.getvalue()


def read_correction_list(file: Path) -> list[ListedCorrection]:
    """Read a list from a .csv or .json file. Raises CorrectionError."""
    try:
        text = file.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise CorrectionError(f"{file} cannot be read as UTF-8 text: {error}") from error
    rows = parse_json(text, file) if text.lstrip().startswith("{") else parse_csv(text, file)
    found = [parse_row(row, f"{file}, correction {n}") for n, row in enumerate(rows, start=1)]
    files = [one.file for one in found]
    if twice := next((name for name in files if files.count(name) > 1), None):
        raise CorrectionError(f"{file} lists {twice} twice; remove one of the two")
    return found


def parse_json(text: str, file: Path) -> list[dict[str, Any]]:
    """Take the rows out of a JSON list. Raises CorrectionError."""
    try:
        content = json.loads(text)
    except ValueError as error:
        raise CorrectionError(f"{file} is not valid JSON: {error}") from error
    rows = content.get("corrections") if content.get("format") == FORMAT else None
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise CorrectionError(f"{file} is not a list of corrections; export it on /review")
    return rows


def parse_csv(text: str, file: Path) -> list[dict[str, Any]]:
    """Take the rows out of a CSV list. Raises CorrectionError."""
    lines = csv.DictReader(io.StringIO(text))
    if not {"file", "sha256", "action", "label", "to"} <= set(lines.fieldnames or ()):
        raise CorrectionError(
            f"{file} is not a list of corrections: its first line must name {', '.join(FIELDS)}"
        )
    return [
        {name: unescape_cell(cell or "") for name, cell in row.items() if name} for row in lines
    ]


def parse_row(row: dict[str, Any], where: str) -> ListedCorrection:
    """Check one correction. Raises CorrectionError, saying where it is."""
    values = {name: row.get(name, "") for name in FIELDS}
    if not all(isinstance(value, str) for value in values.values()):
        raise CorrectionError(f"{where}: every value must be text")
    if values["action"] not in ACTIONS:
        raise CorrectionError(f"{where}: the action is one of {', '.join(ACTIONS)}")
    path = PurePosixPath(values["file"])
    if not path.parts or path.is_absolute() or ".." in path.parts:
        raise CorrectionError(f"{where}: {values['file']!r} is not a path inside the folder")
    to = PurePosixPath(values["to"])
    if values["action"] == "relabel" and (not to.parts or to.is_absolute() or ".." in to.parts):
        raise CorrectionError(f"{where}: relabel needs the folder of another class as `to`")
    return ListedCorrection(**values)

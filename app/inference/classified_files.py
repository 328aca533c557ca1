"""Classified files as CSV or as JSON."""

import csv
import io
import json
import os
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from app.inference.classify_files import NeighbourFile, Outcome, UnclassifiedFile
from storage.csv_cells import escape_cell


def format_csv(outcomes: Sequence[Outcome], top: int, neighbours: int) -> str:
    """Write a line per file, with the same columns in every line; the first line names them."""
    out = io.StringIO()
    names = ["file", "error"] + ["verdict"] * bool(neighbours)
    names += (f"{name}_{n}" for n in range(1, top + 1) for name in ("label", "probability"))
    columns = ("neighbour", "neighbour_label", "distance")
    names += (f"{name}_{n}" for n in range(1, neighbours + 1) for name in columns)
    lines = csv.DictWriter(out, names, restval="", lineterminator="\n")
    lines.writeheader()
    lines.writerows(
        dict(zip(names, list_csv_cells(outcome, top, neighbours), strict=False))
        for outcome in outcomes
    )
    return out.getvalue()


def list_csv_cells(outcome: Outcome, top: int, neighbours: int) -> list[str]:
    """List the cells of a file's line, without the empty ones at its end."""
    file = escape_cell(decode_file_name(outcome.file))
    if isinstance(outcome, UnclassifiedFile):
        return [file, escape_cell(outcome.reason)]
    verdict = outcome.sureness.verdict if outcome.sureness else ""
    found = [file, ""] + [verdict] * bool(neighbours)
    before = len(found)
    for guess in outcome.top:
        found += [escape_cell(guess.label), f"{guess.probability:.6f}"]
    found += [""] * (before + 2 * top - len(found))
    for near in outcome.neighbours:
        label, distance = near.neighbour.label, near.neighbour.distance
        found += [escape_cell(decode_file_name(near.file)), escape_cell(label), f"{distance:.4f}"]
    return found


def format_json(outcomes: Sequence[Outcome], *, with_neighbours: bool) -> str:
    """Write a list with one object per file."""
    found = [make_json_entry(outcome, with_neighbours=with_neighbours) for outcome in outcomes]
    return json.dumps(found, indent=2, ensure_ascii=False) + "\n"


def make_json_entry(outcome: Outcome, *, with_neighbours: bool) -> dict[str, Any]:
    """Make the JSON object of one file."""
    file = {"file": decode_file_name(outcome.file)}
    if isinstance(outcome, UnclassifiedFile):
        return {**file, "error": outcome.reason}
    labels = {"top": [asdict(guess) for guess in outcome.top]}
    near = {
        "sureness": asdict(outcome.sureness) if outcome.sureness else None,
        "neighbours": [make_json_neighbour(one) for one in outcome.neighbours],
    }
    return {**file, **labels, **(near if with_neighbours else {})}


def make_json_neighbour(near: NeighbourFile) -> dict[str, Any]:
    """Make the JSON object of one training image."""
    return {**asdict(near.neighbour), "file": decode_file_name(near.file)}


def decode_file_name(file: Path | None) -> str:
    """Decode a file's name as text; bytes that are not UTF-8 become \\xNN."""
    return os.fsencode(file).decode("utf-8", "backslashreplace") if file else ""

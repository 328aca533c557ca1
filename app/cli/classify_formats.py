"""The results of `flask classify` as a table, as CSV or as JSON."""

import csv
import io
import json
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from itertools import zip_longest
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from app.inference.classify_files import ClassifiedFile, NeighbourFile, Outcome, UnclassifiedFile

FORMULA_STARTS = ("=", "+", "-", "@")
"""Characters that begin a formula in a spreadsheet."""


def format_table(outcomes: Sequence[Outcome], top: int, neighbours: int, width: int) -> str:
    """Write a table for people: per file as many rows as it has labels or neighbours."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("file", overflow="fold")
    table.add_column("label", overflow="fold")
    table.add_column("%", justify="right", no_wrap=True)
    if neighbours:
        table.add_column("how sure", no_wrap=True)
        table.add_column("nearest training images", overflow="fold")
        table.add_column("distance", justify="right", no_wrap=True)
    for outcome in outcomes:
        if isinstance(outcome, ClassifiedFile):
            for row in list_table_rows(outcome, neighbours):
                table.add_row(*row)
            table.add_section()
    failed = [outcome for outcome in outcomes if isinstance(outcome, UnclassifiedFile)]
    console = Console(file=io.StringIO(), width=width, color_system=None, highlight=False)
    with console.capture() as captured:
        if len(failed) < len(outcomes):
            console.print(table)
        for bad in failed:
            line = f"Left out: {make_printable_name(bad.file)}: {bad.reason}"
            console.print(Text(line), soft_wrap=True)
    return "".join(f"{line.rstrip()}\n" for line in captured.get().splitlines())


def list_table_rows(found: ClassifiedFile, neighbours: int) -> Iterator[list[Text]]:
    """Yield the rows of one file; the first has its name."""
    pairs = zip_longest(found.top, found.neighbours)
    for number, (guess, near) in enumerate(pairs):
        row = [make_printable_name(found.file) if number == 0 else ""]
        row += [guess.label, f"{100 * guess.probability:.1f}"] if guess else ["", ""]
        if neighbours:
            row += [found.sureness.verdict if found.sureness and number == 0 else ""]
            one = near and near.neighbour
            row += [one.label, f"{one.distance:.1f}"] if one else ["", ""]
        yield [Text(cell) for cell in row]


def format_csv(outcomes: Sequence[Outcome], top: int, neighbours: int, width: int) -> str:
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


def format_json(outcomes: Sequence[Outcome], top: int, neighbours: int, width: int) -> str:
    """Write a list with one object per file."""
    found = [make_json_entry(outcome, bool(neighbours)) for outcome in outcomes]
    return json.dumps(found, indent=2, ensure_ascii=False) + "\n"


def make_json_entry(outcome: Outcome, with_neighbours: bool) -> dict[str, Any]:
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


Format = Callable[[Sequence[Outcome], int, int, int], str]
"""Formats outcomes, given the maximum number of labels and neighbours, and the width."""
FORMATS: dict[str, Format] = {"table": format_table, "csv": format_csv, "json": format_json}


def decode_file_name(file: Path | None) -> str:
    """Decode a file's name as text; bytes that are not UTF-8 become \\xNN."""
    return os.fsencode(file).decode("utf-8", "backslashreplace") if file else ""


def make_printable_name(file: Path) -> str:
    """Escape a file's name for one line, without control characters."""
    return escape_unprintable(decode_file_name(file), but="")


def escape_unprintable(text: str, but: str) -> str:
    """Escape characters that cannot be printed, except those in `but`."""
    fine = (c if c.isprintable() or c in but else c.encode("unicode_escape").decode() for c in text)
    return "".join(fine)


def escape_cell(text: str) -> str:
    """Escape text for a CSV cell: no formulas for a spreadsheet, no control characters."""
    shown = escape_unprintable(text, but="\n")
    return f"'{shown}" if shown.startswith(FORMULA_STARTS) else shown

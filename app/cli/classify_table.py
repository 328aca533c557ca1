"""The results of `flask classify` as a table."""

import io
from collections.abc import Iterator, Sequence
from itertools import zip_longest
from pathlib import Path

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from app.inference.classified_files import decode_file_name
from app.inference.classify_files import ClassifiedFile, Outcome, UnclassifiedFile
from storage.csv_cells import escape_unprintable


def format_table(outcomes: Sequence[Outcome], neighbours: int, width: int) -> str:
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


def make_printable_name(file: Path) -> str:
    """Escape a file's name for one line, without control characters."""
    return escape_unprintable(decode_file_name(file))

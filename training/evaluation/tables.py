"""Print an evaluation as tables on the terminal."""

from collections.abc import Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text

from storage.evaluations import CROPS_LABELS, Evaluation, Rate, Result

MAX_ROWS = 10
"""Rows of the tables of worst classes, confusions and mistakes."""


def print_tables(evaluation: Evaluation, console: Console) -> None:
    """Print all errors and differences, and the main result's worst classes and mistakes."""
    result = evaluation.main_result
    subject = f"{result.name}, {CROPS_LABELS[result.crops]}"
    tables = [build_errors_table(evaluation.results)]
    if evaluation.differences:
        tables.append(build_differences_table(evaluation))
    if result.top1.wrong:
        tables += [
            build_worst_classes_table(result, subject),
            build_confusions_table(result, evaluation, subject),
        ]
    if result.mistakes:
        tables.append(build_mistakes_table(result, subject))
    for table in tables:
        console.print(table)


def build_errors_table(results: Sequence[Result]) -> Table:
    """Build the table of top-1 and top-5 errors with intervals, one numbered row per result."""
    table = create_table("Errors, with 95 % intervals (Wilson)", "", "network", "crops")
    for name in ("top-1", "95 %", "top-5", "95 %"):
        table.add_column(name, justify="right", no_wrap=True)
    for number, r in enumerate(results, start=1):
        add_row(table, f"{number}", r.name, r.crops, *format_rate(r.top1), *format_rate(r.top5))
    return table


def build_differences_table(evaluation: Evaluation) -> Table:
    """Build the table of differences between rows of the table of errors."""
    numbers = {(r.name, r.crops): n for n, r in enumerate(evaluation.results, start=1)}
    table = create_table(
        "Differences: 95 % intervals (paired bootstrap), McNemar's exact test", "rows"
    )
    for name in ("error", "difference", "95 %", "only the first wrong", "only the second", "p"):
        table.add_column(name, justify="right")
    for c in evaluation.differences:
        first, second = numbers[c.first, c.first_crops], numbers[c.second, c.second_crops]
        d = c.found
        add_row(
            table,
            f"{first} − {second}",
            f"top-{c.guesses}",
            f"{d.difference:+.2%}",
            f"{d.low:+.2%} to {d.high:+.2%}",
            f"{d.only_first_wrong:,}",
            f"{d.only_second_wrong:,}",
            f"{d.p:.2g}",
        )
    return table


def build_worst_classes_table(result: Result, subject: str) -> Table:
    """Build the table of the classes with the highest top-1 error."""
    worst = sorted(result.classes, key=lambda c: -c.top1.error)[:MAX_ROWS]
    table = create_table(f"Classes by top-1 error: {subject}", "class", "label")
    for name in ("images", "top-1", "95 %", "top-5"):
        table.add_column(name, justify="right")
    for c in worst:
        add_row(
            table,
            c.folder,
            c.label,
            f"{c.top1.images:,}",
            *format_rate(c.top1),
            f"{c.top5.error:.2%}",
        )
    return caption_omitted_rows(table, len(result.classes))


def build_confusions_table(result: Result, evaluation: Evaluation, subject: str) -> Table:
    """Build the table of the most frequent wrong guesses."""
    counts = [
        (count, true, guess)
        for true, row in result.confusion.items()
        for guess, count in row.items()
        if guess != true
    ]
    table = create_table(f"Most frequent confusions: {subject}", "class", "guessed to be")
    table.add_column("images", justify="right")
    for count, true, guess in sorted(counts, key=lambda c: -c[0])[:MAX_ROWS]:
        add_row(table, evaluation.labels[true], evaluation.labels[guess], f"{count:,}")
    return caption_omitted_rows(table, len(counts))


def build_mistakes_table(result: Result, subject: str) -> Table:
    """Build the table of the most confident mistakes."""
    table = create_table(
        f"Most confident mistakes: {subject}", "photograph", "class", "guessed to be"
    )
    table.add_column("probability", justify="right")
    table.add_column("of its class", justify="right")
    for m in result.mistakes[:MAX_ROWS]:
        probabilities = f"{m.probability:.2%}", f"{m.true_probability:.2%}"
        add_row(table, m.path, m.true_label, m.guess_label, *probabilities)
    return caption_omitted_rows(table, len(result.mistakes))


def create_table(title: str, *columns: str) -> Table:
    """Create an empty table with text columns."""
    table = Table(title=Text(title), title_justify="left")
    for column in columns:
        table.add_column(column, overflow="fold")
    return table


def add_row(table: Table, *cells: str) -> None:
    """Add a row of plain text, in which square brackets are not markup."""
    table.add_row(*(Text(cell) for cell in cells))


def caption_omitted_rows(table: Table, rows: int) -> Table:
    """Caption a table with how many of all rows it shows, unless it shows all."""
    if rows > table.row_count:
        table.caption = Text(f"{table.row_count} of {rows:,}")
    return table


def format_rate(rate: Rate) -> tuple[str, str]:
    """Format an error rate and its interval."""
    return f"{rate.error:.2%}", f"{rate.low:.2%}–{rate.high:.2%}"

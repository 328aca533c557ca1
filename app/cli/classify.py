"""The command `flask classify`: classifies files and whole folders."""

import os
import secrets
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import click
from flask.cli import with_appcontext
from rich.console import Console

from app import context
from app.cli.classify_table import format_table, make_printable_name
from app.cli.terminal import exit_interrupted, exit_with, handle_cli_errors
from app.inference.classified_files import format_csv, format_json
from app.inference.classify_files import (
    FindNeighbours,
    Judge,
    Outcome,
    UnclassifiedFile,
    classify_files,
    find_files,
    list_passed_over,
    make_judge,
    make_neighbour_finder,
)
from app.inference.state import NotReadyError
from index.search import MAX_NEIGHBOURS
from model.predict import Predictor
from storage.progress import show_step_bars

MAX_PASSED_OVER_NAMES = 20
PIPED_TABLE_WIDTH = 160
"""Width of a table that is written to a file or a pipe."""


@click.command("classify")
@click.argument("files", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option(
    "--format",
    "form",
    type=click.Choice(("table", "csv", "json")),
    default="table",
    show_default=True,
    help="Output format.",
)
@click.option(
    "--output",
    type=click.Path(path_type=Path, dir_okay=False),
    help="File to write; it is replaced only once complete. By default standard output.",
)
@click.option(
    "--top", type=click.IntRange(1), default=5, show_default=True, help="Labels per file."
)
@click.option(
    "--neighbours",
    type=click.IntRange(0, MAX_NEIGHBOURS),
    default=6,
    show_default=True,
    help="Nearest training images per file; 0 needs no index.",
)
@with_appcontext
@handle_cli_errors
def classify_command(
    files: tuple[Path, ...], form: str, output: Path | None, top: int, neighbours: int
) -> None:
    """Classify FILES; for a folder, all photographs in it.

    Exit code 1 if some could not be read, 2 if none could.
    """
    try:
        with open_output(output) as out:
            predictor, find, judge = load_predictor(neighbours)
            top = min(top, len(predictor.classes))
            outcomes = classify_with_progress(files, predictor, top, find, judge)
            match form:
                case "csv":
                    text = format_csv(outcomes, top, neighbours)
                case "json":
                    text = format_json(outcomes, with_neighbours=bool(neighbours))
                case _:
                    text = format_table(outcomes, neighbours, get_table_width())
            out.write(text.encode())
            out.flush()
        report_passed_over(files)
    except NotReadyError as error:
        exit_with(str(error), 2)
    except KeyboardInterrupt:
        exit_interrupted("Interrupted; nothing was written.")
    except BrokenPipeError:
        raise  # the reader closed the pipe; click exits quietly
    except OSError as error:
        exit_with(f"Cannot write the output: {error}", 2)
    raise click.exceptions.Exit(compute_exit_code(outcomes))


def load_predictor(neighbours: int) -> tuple[Predictor, FindNeighbours | None, Judge | None]:
    """Load the network; if neighbours are wanted, also make their search, and what judges by them.

    Raises NotReadyError.
    """
    if not neighbours:
        return context.require_predictor(), None, None
    ready = context.require_ready()
    find = make_neighbour_finder(ready, context.sessions(), neighbours)
    return ready.predictor, find, make_judge(ready)


def classify_with_progress(
    files: tuple[Path, ...],
    predictor: Predictor,
    top: int,
    find: FindNeighbours | None,
    judge: Judge | None,
) -> list[Outcome]:
    """Classify the files with a progress bar on the error stream."""
    every = find_files(files)
    with show_step_bars(Console(stderr=True)) as report:
        begun = report("Classifying", len(every))
        return list(classify_files(every, predictor, top, find, begun, judge=judge))


def report_passed_over(files: tuple[Path, ...]) -> None:
    """Name on the error stream what was left out of the folders because it is no photograph."""
    passed = list_passed_over(files)
    if not passed:
        return
    names = [str(make_printable_name(file)) for file in passed[:MAX_PASSED_OVER_NAMES]]
    more = len(passed) - len(names)
    click.echo(
        f"Passed over, no photographs: {', '.join(names)}"
        + (f" and {more:,} more" if more else ""),
        err=True,
    )


def compute_exit_code(outcomes: list[Outcome]) -> int:
    """Compute the exit code: 0 if every file was read, 1 if some were not, 2 if none was."""
    failed = sum(isinstance(outcome, UnclassifiedFile) for outcome in outcomes)
    return 0 if not failed else 2 if failed == len(outcomes) else 1


def get_table_width() -> int:
    """Return the terminal's width in columns."""
    return shutil.get_terminal_size((PIPED_TABLE_WIDTH, 0)).columns


@contextmanager
def open_output(output: Path | None) -> Iterator[BinaryIO]:
    """Open standard output, or a file that replaces `output` when it is complete.

    The file is opened first, so that an unwritable place fails before anything is computed. A pipe
    or a device is written to directly. Raises OSError.
    """
    if output is None:
        yield sys.stdout.buffer
        return
    place = output.resolve()
    if place.exists() and not place.is_file():
        with place.open("wb") as out:
            yield out
        return
    part = place.with_name(f".{secrets.token_hex(8)}.part")
    try:
        with part.open("xb") as out:
            yield out
            os.fsync(out.fileno())
        if place.exists():
            shutil.copymode(place, part)
        part.replace(place)
    finally:
        part.unlink(missing_ok=True)

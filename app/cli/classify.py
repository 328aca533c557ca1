"""The command `flask classify`: what the first page does, for whole folders."""

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
from app.cli.classify_formats import FORMATS
from app.cli.terminal import INTERRUPTED, cli_errors, exit_with
from app.inference.classify_files import (
    FindNeighbours,
    Outcome,
    UnreadableFile,
    classify_files,
    find_files,
    neighbour_finder,
)
from app.inference.loader import NotReadyError
from index.search import MAX_NEIGHBOURS
from model.predict import Predictor
from storage.progress import step_bars

WIDE = 160
"""Columns of a table that is written to a file or a pipe."""


@click.command("classify")
@click.argument("files", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option(
    "--format",
    "form",
    type=click.Choice(tuple(FORMATS)),
    default="table",
    show_default=True,
    help="How the answers are written.",
)
@click.option(
    "--output",
    type=click.Path(path_type=Path, dir_okay=False),
    help="File to write, whole or not at all; by default standard output.",
)
@click.option(
    "--top", type=click.IntRange(1), default=5, show_default=True, help="Labels of each file."
)
@click.option(
    "--neighbours",
    type=click.IntRange(0, MAX_NEIGHBOURS),
    default=6,
    show_default=True,
    help="Nearest training images of each file; 0 needs no index.",
)
@with_appcontext
@cli_errors
def classify_command(
    files: tuple[Path, ...], form: str, output: Path | None, top: int, neighbours: int
) -> None:
    """Classify FILES, and all photographs in folders among them.

    Exit code 1 when some could not be read, 2 when none could.
    """
    try:
        with open_output(output) as out:
            predictor, find = load_predictor(neighbours)
            top = min(top, len(predictor.classes))
            outcomes = classify_with_progress(files, predictor, top, find)
            text = FORMATS[form](outcomes, top, neighbours, table_width())
            out.write(text.encode())
            out.flush()
    except NotReadyError as error:
        exit_with(str(error), 2)
    except KeyboardInterrupt:
        exit_with("Interrupted; nothing was written.", INTERRUPTED)
    except BrokenPipeError:
        raise  # whoever reads has had enough, which click ends quietly
    except OSError as error:
        exit_with(f"The answers cannot be written: {error}", 2)
    raise click.exceptions.Exit(exit_code(outcomes))


def load_predictor(neighbours: int) -> tuple[Predictor, FindNeighbours | None]:
    """The network, and what finds neighbours where some are wanted. Raises NotReadyError."""
    if not neighbours:
        return context.require_predictor(), None
    ready = context.require_ready()
    return ready.predictor, neighbour_finder(ready, context.sessions(), neighbours)


def classify_with_progress(
    files: tuple[Path, ...], predictor: Predictor, top: int, find: FindNeighbours | None
) -> list[Outcome]:
    """The answers, and a bar on the error stream meanwhile."""
    every = find_files(files)
    with step_bars(Console(stderr=True)) as report:
        begun = report("Classifying", len(every))
        return list(classify_files(every, predictor, top, find, begun))


def exit_code(outcomes: list[Outcome]) -> int:
    """The exit code: 0 where every file was read, 2 where none was."""
    failed = sum(isinstance(outcome, UnreadableFile) for outcome in outcomes)
    return 0 if not failed else 2 if failed == len(outcomes) else 1


def table_width() -> int:
    """How many columns a table may take."""
    return shutil.get_terminal_size((WIDE, 0)).columns


@contextmanager
def open_output(output: Path | None) -> Iterator[BinaryIO]:
    """Open what is written: standard output, or a file that appears in its place when it is whole.

    Begins with opening it, so that a place where nothing can be written is told at once. A pipe
    or a device is written as it is. Raises OSError.
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

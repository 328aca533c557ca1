"""The commands: `flask db upgrade`, `flask index build`, `flask index precision`.

An error that can be expected is one line and exit code 2; Ctrl-C is one line and 130.
"""

import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NoReturn, ParamSpec, TypeVar

import click
from flask import Flask, current_app
from flask.cli import AppGroup
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from app import db
from app.config import Settings, SettingsError
from app.indexing import Built, Step, build
from app.precision import measure_precision
from index.store import StoreError
from model.checkpoint import WeightsError
from model.photographs import FolderError

P = ParamSpec("P")
R = TypeVar("R")
EXPECTED = (StoreError, WeightsError, FolderError, SettingsError, db.DatabaseError)
INTERRUPTED = 130


def add_commands(app: Flask, settings: Settings) -> None:
    """Give the application its commands, working with these settings."""
    app.extensions["settings"] = settings
    app.cli.add_command(database_commands)
    app.cli.add_command(index_commands)


database_commands = AppGroup("db", help="The database.")
index_commands = AppGroup("index", help="The index of the training images' features.")


def in_one_line(command: Callable[P, R]) -> Callable[P, R]:
    """Turn what a command raises into one line and an exit code."""

    @functools.wraps(command)
    def told(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return command(*args, **kwargs)
        except EXPECTED as error:
            end(" ".join(str(error).split()), 2)
        except KeyboardInterrupt:
            end("Interrupted; what was served before is unchanged.", INTERRUPTED)

    return told


def end(message: str, code: int) -> NoReturn:
    """Say why on the error stream, and exit."""
    click.echo(message, err=True)
    raise click.exceptions.Exit(code)


@database_commands.command("upgrade")
@in_one_line
def upgrade() -> None:
    """Make the tables, or bring them up to date."""
    db.upgrade(settings_now())
    click.echo("The database is up to date.")


@index_commands.command("build")
@click.option("--if-needed", is_flag=True, help="Do nothing when the index fits weights and files.")
@in_one_line
def build_index(if_needed: bool) -> None:
    """Index the training set of the weights in use, then serve that index."""
    settings = settings_now()
    with progress_bars() as bars:
        built = build(settings, db.session_factory(settings), steps(bars), if_needed=if_needed)
    for line in report(built):
        click.echo(line)


@index_commands.command("precision")
@click.option(
    "--data",
    type=click.Path(path_type=Path, file_okay=False),
    help="Folder whose val/ is asked about; by default that of the index.",
)
@in_one_line
def precision(data: Path | None) -> None:
    """Share of the validation images whose nearest training image has their class."""
    settings = settings_now()
    with progress_bars() as bars:
        found = measure_precision(settings, db.session_factory(settings), data, steps(bars))
    for line in found.report():
        click.echo(line)


def settings_now() -> Settings:
    """The settings of the application whose command runs."""
    settings: Settings = current_app.extensions["settings"]
    return settings


@contextmanager
def progress_bars() -> Iterator[Progress]:
    """Bars on the error stream, from the first step on; one line each where it is no terminal."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
    )
    bars = Progress(*columns, console=Console(stderr=True))
    try:
        yield bars
    finally:
        if bars.tasks:
            bars.stop()


def steps(bars: Progress) -> Step:
    """Begin each step as a bar of its own."""

    def step(name: str, total: int) -> Callable[[int], None]:
        bars.start()
        task = bars.add_task(name, total=total)
        return lambda done: bars.update(task, completed=done)

    return step


def report(built: Built) -> list[str]:
    """What a build did, line by line."""
    manifest = built.manifest
    if not built.fresh:
        return [f"The index fits weights and files: {manifest.count:,} images, {manifest.name}."]
    tried = manifest.count + manifest.unreadable
    rate = tried / built.seconds if built.seconds else 0
    return [
        *(f"Left out: {bad.path}: {bad.reason}" for bad in built.unreadable),
        f"Indexed {manifest.count:,} images of {manifest.data}, left out {manifest.unreadable:,}.",
        f"Features took {built.seconds:,.1f} s, {rate:,.1f} images/s. Serving {manifest.name}.",
    ]

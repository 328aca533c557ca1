"""The commands `flask db …`, and what those of `flask index …` share with them.

An error that can be expected is one line and exit code 2; Ctrl-C is one line and 130.
"""

import functools
from collections.abc import Callable
from typing import NoReturn, ParamSpec, TypeVar

import click
from flask.cli import AppGroup

from app import context
from app.config import SettingsError
from app.database.session import DatabaseError, upgrade_database
from index.engines.protocol import SearchError
from index.store import StoreError
from model.checkpoint import WeightsError
from model.dataset import FolderError

P = ParamSpec("P")
R = TypeVar("R")
EXPECTED = (
    StoreError,
    SearchError,
    WeightsError,
    FolderError,
    SettingsError,
    DatabaseError,
)
INTERRUPTED = 130


database_commands = AppGroup("db", help="The database.")


def cli_errors(command: Callable[P, R]) -> Callable[P, R]:
    """Turn what a command raises into one line and an exit code."""

    @functools.wraps(command)
    def told(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return command(*args, **kwargs)
        except EXPECTED as error:
            exit_with(" ".join(str(error).split()), 2)
        except KeyboardInterrupt:
            exit_with("Interrupted; what was served before is unchanged.", INTERRUPTED)

    return told


def exit_with(message: str, code: int) -> NoReturn:
    """Say why on the error stream, and exit."""
    click.echo(message, err=True)
    raise click.exceptions.Exit(code)


@database_commands.command("upgrade")
@cli_errors
def upgrade_command() -> None:
    """Make the tables, or bring them up to date."""
    upgrade_database(context.settings())
    click.echo("The database is up to date.")

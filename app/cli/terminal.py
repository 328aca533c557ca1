"""What the commands share: errors as one line, exit codes; and `flask db upgrade`.

An expected error ends a command with one line and exit code 2, Ctrl-C with one line and 130.
"""

import functools
from collections.abc import Callable
from typing import NoReturn, ParamSpec, TypeVar

import click
from flask.cli import AppGroup

from app import context
from app.config import SettingsError
from app.database.session import DatabaseError, downgrade_database, upgrade_database
from app.inference.switch_weights import SwitchError
from app.review.corrections import CorrectionError
from index.engines.protocol import SearchError
from index.store import StoreError
from model.dataset.folder import FolderError
from model.formats.onnx_export import ExportError
from model.weights.header import WeightsError
from storage.download import DownloadError

P = ParamSpec("P")
R = TypeVar("R")
EXPECTED_ERRORS = (
    StoreError,
    SearchError,
    WeightsError,
    FolderError,
    SettingsError,
    DatabaseError,
    SwitchError,
    DownloadError,
    CorrectionError,
    ExportError,
)
INTERRUPTED_EXIT_CODE = 130


database_commands = AppGroup("db", help="Manage the database.")


def handle_cli_errors(command: Callable[P, R]) -> Callable[P, R]:
    """Decorate a command: turn what it raises into one line and an exit code."""

    @functools.wraps(command)
    def wrapper(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return command(*args, **kwargs)
        except EXPECTED_ERRORS as error:
            exit_with(" ".join(str(error).split()), 2)
        except KeyboardInterrupt:
            exit_interrupted("Interrupted; nothing in service has changed.")

    return wrapper


def exit_with(message: str, code: int) -> NoReturn:
    """Print the reason to the error stream, and exit."""
    click.echo(message, err=True)
    raise click.exceptions.Exit(code)


def exit_interrupted(message: str) -> NoReturn:
    """Exit after Ctrl-C; called while its KeyboardInterrupt is handled."""
    # A KeyboardInterrupt that has passed through exec() of a string, as in the making of a
    # dataclass while a library is imported, counts as unhandled for CPython even when it is caught:
    # `python -m flask` would then end by SIGINT instead of with this code. The next such exec()
    # takes that back (run_eval_code_obj in CPython's pythonrun.c).
    exec("")  # noqa: S102
    exit_with(message, INTERRUPTED_EXIT_CODE)


@database_commands.command("upgrade")
@handle_cli_errors
def upgrade_command() -> None:
    """Create the tables, or bring them up to date."""
    upgrade_database(context.settings())
    click.echo("The database is up to date.")


@database_commands.command("downgrade")
@click.argument("revision")
@click.option("--yes", is_flag=True, help="Do not ask first.")
@handle_cli_errors
def downgrade_command(revision: str, yes: bool) -> None:
    """Bring the tables back to REVISION, such as 0005, for an earlier release of the project.

    What only later revisions hold is deleted: corrections, for example, before 0006.
    """
    if not yes:
        click.confirm(f"Delete what revision {revision} of the tables cannot hold?", abort=True)
    downgrade_database(context.settings(), revision)
    click.echo(f"The database is at revision {revision}; `flask db upgrade` brings it up again.")

"""The commands `flask data …`: corrections of the photographs."""

from pathlib import Path

import click
from flask.cli import AppGroup

from app import context
from app.cli.terminal import handle_cli_errors
from app.indexing.verify import choose_version
from app.review.apply import apply_corrections, revert_corrections
from app.review.correction_list import read_correction_list
from index.manifest import read_manifest

data_commands = AppGroup("data", help="Correct a folder of photographs, by links in a new one.")
FOLDER = click.Path(path_type=Path, file_okay=False)


@data_commands.command("apply")
@click.argument("file", metavar="LIST", type=click.Path(path_type=Path, dir_okay=False))
@click.option("--to", "target", type=FOLDER, required=True, help="New folder to make.")
@click.option(
    "--data",
    type=FOLDER,
    help="Folder that the list is about; by default the one that is indexed.",
)
@handle_cli_errors
def apply_command(file: Path, target: Path, data: Path | None) -> None:
    """Make a new folder of links with the corrections in LIST, a CSV or JSON export of /review.

    Photographs are neither changed nor moved.
    """
    corrections = read_correction_list(file)
    if data is None:
        root = context.settings().home.index
        data = Path(read_manifest(root / choose_version(root, None)).data)
    done = apply_corrections(corrections, data, target)
    click.echo(
        f"{done.photographs:,} photographs in {target}: {len(done.moved):,} relabelled, "
        f"{len(done.dropped):,} left out."
    )
    for folder in done.emptied:
        click.echo(f"No photograph is left in {folder}.")


@data_commands.command("revert")
@click.argument("corrected", metavar="DIR", type=FOLDER)
@click.option("--to", "target", type=FOLDER, required=True, help="New folder to make.")
@handle_cli_errors
def revert_command(corrected: Path, target: Path) -> None:
    """Make a new folder of links as it was before `flask data apply` made DIR."""
    count = revert_corrections(corrected, target)
    click.echo(f"{count:,} photographs in {target}, as before the corrections.")

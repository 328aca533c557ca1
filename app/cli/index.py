"""The commands `flask index …`."""

import json
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import Any

import click
from flask.cli import AppGroup
from rich.console import Console

from app import context
from app.cli.terminal import exit_with, handle_cli_errors
from app.config import Settings
from app.database.session import session_factory
from app.indexing.build import BuildOptions, BuildResult, build_index, update_index
from app.indexing.looks import add_looks
from app.indexing.precision import measure_precision
from app.indexing.relocate import relocate_index
from app.indexing.strangers import MAX_STRANGERS, measure_strangers
from app.indexing.units import add_units
from app.indexing.verify import collect_index_statistics, verify_version
from app.indexing.versions import prune_versions, rollback_version
from index.engines.factory import KINDS, IndexSpec
from index.engines.options import SEARCH_DEVICES, EngineOptions
from storage.progress import show_step_bars

OPTION_NAMES = tuple(known.name for known in fields(EngineOptions))
index_commands = AppGroup("index", help="Manage the index of the training images' features.")

index_device_option = click.option(
    "--index-device",
    type=click.Choice(SEARCH_DEVICES),
    help="Device that searches the index; by default ALEXNET_INDEX_DEVICE.",
)


@index_commands.command("build")
@click.option(
    "--if-needed",
    is_flag=True,
    help="Do nothing if the index is up to date.",
)
@click.option(
    "--weights",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Weights file to index with; by default the selected weights, which then serve with the "
    "index. An index of other weights serves when these are switched to.",
)
@click.option(
    "--data",
    type=click.Path(path_type=Path, file_okay=False),
    help="Folder of photographs to index, in any arrangement; by default the one the weights were "
    "trained on.",
)
@click.option(
    "--kind",
    type=click.Choice(("auto", *KINDS)),
    default="auto",
    show_default=True,
    help="Kind of index; auto chooses by size and memory.",
)
@click.option(
    "--recall",
    type=click.FloatRange(0, 1, min_open=True),
    default=0.95,
    show_default=True,
    help="Share of the six nearest images that a search must find; measured after the build.",
)
@click.option(
    "--storage",
    type=click.Choice(("auto", "float32", "float16")),
    default="auto",
    show_default=True,
    help="Type of the stored vectors; auto: float32 for the kind exact, else float16.",
)
@click.option(
    "--set",
    "options",
    multiple=True,
    metavar="NAME=NUMBER",
    help=f"A parameter of that kind, otherwise chosen by size: {', '.join(OPTION_NAMES)}.",
)
@index_device_option
@handle_cli_errors
def build_command(
    if_needed: bool,
    weights: Path | None,
    data: Path | None,
    kind: str,
    recall: float,
    storage: str,
    options: tuple[str, ...],
    index_device: str | None,
) -> None:
    """Index the training set of the selected weights, or another folder, then serve both.

    Selected are the weights of the run that finished last, or those imported or switched to since.
    """
    settings = override_index_device(index_device)
    asked = BuildOptions(
        weights=weights,
        data=data,
        spec=IndexSpec(kind=kind, target=recall, options=read_options(options)),
        dtype=storage,
    )
    with show_step_bars(Console(stderr=True)) as report:
        built = build_index(settings, session_factory(settings), report, asked, if_needed=if_needed)
    print_build(built)


@index_commands.command("update")
@handle_cli_errors
def update_command() -> None:
    """Add new images to the index, remove deleted ones and reread changed ones."""
    settings = context.settings()
    with show_step_bars(Console(stderr=True)) as report:
        built = update_index(settings, session_factory(settings), report)
    print_build(built)


@index_commands.command("relocate")
@click.argument("folder", type=click.Path(path_type=Path, file_okay=False))
@handle_cli_errors
def relocate_command(folder: Path) -> None:
    """Point the index to FOLDER, to which its photographs were moved; nothing is computed again.

    Every indexed photograph must be there with the same content.
    """
    settings = context.settings()
    with show_step_bars(Console(stderr=True)) as report:
        found = relocate_index(settings, session_factory(settings), report, folder)
    click.echo(
        f"{found.images:,} photographs of {found.old} found in {found.new}; "
        f"{', '.join(found.versions)} now point{'s' * (len(found.versions) == 1)} there."
    )


@index_commands.command("look")
@click.argument("version", required=False)
@handle_cli_errors
def look_command(version: str | None) -> None:
    """Add to an index what it was built without: VERSION, or the one in service.

    Reads the validation images, computes how sure answers are, reviews labels and copies, and finds
    the training images that excite each unit most. A running application shows it at once.
    """
    settings = context.settings()
    with show_step_bars(Console(stderr=True)) as report:
        added = add_looks(settings, session_factory(settings), report, version)
        added += add_units(settings, report, version)
    click.echo(f"Added {', '.join(added)}." if added else "Nothing to add.")


@index_commands.command("rollback")
@click.argument("version", required=False)
@handle_cli_errors
def rollback_command(version: str | None) -> None:
    """Serve an earlier version of the index again, with its weights: VERSION, or the previous."""
    settings = context.settings()
    found = rollback_version(settings, session_factory(settings), version)
    click.echo(
        f"Serving {found.name}: {found.images:,} images, built {found.created} with the weights "
        f"{found.weights[:8]}."
    )


@index_commands.command("prune")
@click.option(
    "--keep", type=click.IntRange(1), help="Versions to keep; by default ALEXNET_INDEX_KEPT."
)
@handle_cli_errors
def prune_command(keep: int | None) -> None:
    """Delete old versions of the index, never the one in service."""
    settings = context.settings()
    keep = keep or settings.index_kept
    kept, gone = prune_versions(settings, session_factory(settings), keep)
    for name in gone:
        click.echo(f"Deleted {name}.")
    click.echo(f"Kept {', '.join(kept) or 'none'}.")


@index_commands.command("verify")
@click.argument("version", required=False)
@click.option("--files/--no-files", default=True, help="Also check every training file.")
@index_device_option
@handle_cli_errors
def verify_command(version: str | None, files: bool, index_device: str | None) -> None:
    """Check an index against its checksums, the database, the files and a brute-force search.

    Exit code 1 if anything is wrong.
    """
    settings = override_index_device(index_device)
    sessions = session_factory(settings)
    with show_step_bars(Console(stderr=True)) as report:
        found = verify_version(settings, sessions, report, version, files=files)
    for line in found.checked:
        click.echo(line)
    for line in found.problems:
        click.echo(f"Wrong: {line}", err=True)
    if found.problems:
        raise click.exceptions.Exit(1)


@index_commands.command("stats")
@click.argument("version", required=False)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@handle_cli_errors
def stats_command(version: str | None, as_json: bool) -> None:
    """Print the kind, sizes, recall, weights and age of an index."""
    found = collect_index_statistics(context.settings(), version)
    if as_json:
        click.echo(json.dumps(found, indent=2, ensure_ascii=False))
        return
    labelled = {STATISTIC_LABELS.get(name, name): value for name, value in found.items()}
    width = max(map(len, labelled))
    for label, value in labelled.items():
        click.echo(f"{label:<{width}}  {format_statistic(value)}")


STATISTIC_LABELS = {
    "served": "in service",
    "left out": "unreadable images",
    "stored as": "vector type",
    "bytes an image": "bytes per image",
    "recall asked for": "target recall",
    "nearly the same up to": "near-duplicate distance",
    "photographs": "training folder",
    "made": "built",
    "made by": "built with",
}
"""How the text labels statistics; the keys of --json are not changed."""


@index_commands.command("precision")
@click.option(
    "--data",
    type=click.Path(path_type=Path, file_okay=False),
    help="Folder whose val/ holds the queries; by default the one that was indexed.",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@handle_cli_errors
def precision_command(data: Path | None, as_json: bool) -> None:
    """Measure how often the nearest image is of the same class.

    Each validation image is a query; its nearest training image is the answer.
    """
    settings = context.settings()
    with show_step_bars(Console(stderr=True)) as report:
        found = measure_precision(settings, session_factory(settings), data, report)
    if as_json:
        click.echo(json.dumps(asdict(found), indent=2, ensure_ascii=False))
        return
    for line in found.format_lines():
        click.echo(line)


@index_commands.command("strangers")
@click.option(
    "--data",
    type=click.Path(path_type=Path, file_okay=False, exists=True),
    required=True,
    help="Folder of photographs of classes that the network does not know.",
)
@click.option(
    "--most",
    type=click.IntRange(1),
    default=MAX_STRANGERS,
    show_default=True,
    help="Photographs to measure; if there are more, that many are drawn.",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@handle_cli_errors
def strangers_command(data: Path, most: int, as_json: bool) -> None:
    """Measure how well the index tells photographs of unknown classes from validation images."""
    settings = context.settings()
    with show_step_bars(Console(stderr=True)) as report:
        found = measure_strangers(settings, session_factory(settings), data, report, most)
    if as_json:
        click.echo(json.dumps(asdict(found), indent=2, ensure_ascii=False))
        return
    for line in found.format_lines():
        click.echo(line)


def override_index_device(index_device: str | None) -> Settings:
    """Return the settings, with another search device if one is given."""
    settings = context.settings()
    return replace(settings, index_device=index_device) if index_device else settings


def read_options(texts: tuple[str, ...]) -> EngineOptions:
    """Parse NAME=NUMBER parameters of a kind; exit with code 2 for an unknown one."""
    values: dict[str, Any] = {}
    for text in texts:
        name, _, number = text.partition("=")
        if name not in OPTION_NAMES or not number.isdecimal():
            exit_with(
                f"--set takes NAME=NUMBER with one of {', '.join(OPTION_NAMES)}, not {text}", 2
            )
        values[name] = int(number)
    return EngineOptions(**values)


def format_statistic(value: object) -> str:
    """Write a value for people."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return f"{value:.4g}"
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)


def print_build(built: BuildResult | None) -> None:
    """Print what a build did; processes other than the first print nothing."""
    for line in format_build(built) if built else []:
        click.echo(line)


def format_recall(recall: dict[str, float]) -> list[str]:
    """Write the measured recall as one line."""
    shares = [f"{name} {value:.3f}" for name, value in recall.items() if name != "queries"]
    return [f"{' and '.join(shares)} over {recall['queries']:.0f} queries."] if shares else []


def format_build(built: BuildResult) -> list[str]:
    """Describe what a build did, a line each."""
    manifest, gathered = built.manifest, built.gathered
    if gathered is None:
        return [f"The index is up to date: {manifest.images:,} images, {manifest.name}."]
    counts = gathered.counts
    rate = counts.computed / built.seconds if built.seconds else 0
    return [
        *(f"Left out: {bad.path}: {bad.reason}" for bad in built.unreadable),
        *built.notes,
        f"{counts.added:,} images added, {counts.changed:,} changed, {counts.removed:,} removed, "
        f"{counts.unchanged:,} unchanged; {counts.reused:,} vectors reused.",
        *format_recall(manifest.recall),
        f"Indexed {manifest.images:,} images of {manifest.data}, left out {manifest.unreadable:,}.",
        f"Computing features: {built.seconds:,.1f} s, {rate:,.1f} images/s. "
        f"{'Serving' if built.served else 'Built'} {manifest.name}.",
    ]

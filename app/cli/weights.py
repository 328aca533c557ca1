"""The commands `flask weights …`: others' weights in, and these out."""

import re
from pathlib import Path

import click
from flask.cli import AppGroup
from rich.console import Console

from app import context
from app.cli.terminal import exit_with, handle_cli_errors
from app.inference.import_weights import ImportedFile, import_file
from app.inference.switch_weights import SwitchedWeights, switch_weights
from model.dataset.folder import ClassName
from model.formats.exporting import check_suffix, export_weights
from model.formats.importing import ImportOptions
from model.formats.network import Colour
from model.formats.published import PUBLISHED_WEIGHTS
from model.network.architectures import VARIANTS
from model.weights.checkpoint import check_finite, load_weights
from storage.files import check_writable
from storage.progress import show_step_bars

KNOWN_NAMES = "; ".join(f"{name}: {w.description}" for name, w in PUBLISHED_WEIGHTS.items())
weights_commands = AppGroup("weights", help="Import others' weights, and export weights.")


@weights_commands.command(
    "import",
    help=f"""Import FILE, or published weights by name, for use.

    FILE is a state dict of torchvision's alexnet or of this project's networks (safetensors or
    .pth), a .caffemodel of bvlc_alexnet or bvlc_reference_caffenet, or bvlc_alexnet as Deep
    Compression published it. Names: {KNOWN_NAMES}.
    """,
)
@click.argument("source", metavar="FILE")
@click.option("--name", help="Name of the imported file; by default that of FILE.")
@click.option(
    "--variant",
    type=click.Choice(tuple(VARIANTS)),
    help="The network, if the file does not say which it is.",
)
@click.option(
    "--mean",
    metavar="R,G,B or FILE",
    help="Mean colour, 0-255, or mean image: Caffe's .binaryproto, or .npy in the order of colours "
    "of the network's authors. By default the mean colour that they publish.",
)
@click.option(
    "--classes",
    type=click.Path(path_type=Path, dir_okay=False, exists=True),
    help="Names of the outputs, in their order: on each line a name, and a label if it has one.",
)
@click.option(
    "--use/--no-use",
    default=True,
    show_default=True,
    help="Select the weights for the next index; switch to them if there is one.",
)
@click.option("--if-needed", is_flag=True, help="Do not import again what was imported before.")
@handle_cli_errors
def import_command(
    source: str,
    name: str | None,
    variant: str | None,
    mean: str | None,
    classes: Path | None,
    use: bool,
    if_needed: bool,
) -> None:
    """Import others' weights."""
    if name is not None and not re.fullmatch(r"\w[\w.-]*", name):
        exit_with("--name takes letters, digits, dots, hyphens and underscores.", 2)
    options = ImportOptions(
        variant=variant,
        mean=None if mean is None else parse_mean(mean),
        classes=None if classes is None else read_class_names(classes),
    )
    settings = context.settings()
    with show_step_bars(Console(stderr=True)) as report:
        found = import_file(settings, source, options, report, name=name, if_needed=if_needed)
    for line in describe_import(found):
        click.echo(line)
    if use:
        done = switch_weights(settings, context.sessions(), found.key, unindexed="select")
        if isinstance(done, SwitchedWeights):
            click.echo(describe_switch(done))


def describe_switch(done: SwitchedWeights) -> str:
    """Say what serves after an import, in a line."""
    if done.index:
        return f"These weights serve, with the index {done.index}."
    serving = "They serve labels" if done.served else "What is served stays"
    return (
        "These weights are selected: `flask index build --data DIR` indexes photographs with them. "
        f"{serving} until then."
    )


def describe_import(found: ImportedFile) -> list[str]:
    """Describe imported weights, a line each."""
    provenance, config = found.header.provenance, found.header.config
    source = provenance.source or "weights of this project"
    return [
        f"{'Imported' if found.is_new else 'Imported before:'} {source} as {found.file}.",
        f"network     {config.net}, {config.classes:,} classes",
        f"trained on  {provenance.data}",
        f"identity    {found.header.identity}",
        *(f"Assumed: {sentence}" for sentence in found.assumptions),
    ]


def parse_mean(text: str) -> Colour | Path:
    """Parse a mean colour, or take the text for a file's name; exit with code 2 for neither."""
    try:
        red, green, blue = (float(value) for value in text.split(","))
    except ValueError:
        if Path(text).is_file():
            return Path(text)
        exit_with(f"--mean takes three numbers from 0 to 255, R,G,B, or a file, not {text}.", 2)
    if not all(0 <= value <= 255 for value in (red, green, blue)):
        exit_with(f"--mean takes numbers from 0 to 255, not {text}.", 2)
    return red, green, blue


def read_class_names(file: Path) -> tuple[ClassName, ...]:
    """Read the names of the outputs; exit with code 2 if the file is not a list of them."""
    try:
        lines = file.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        exit_with(f"{file} cannot be read as UTF-8 text: {error}", 2)
    pairs = (line.split(maxsplit=1) for line in lines if line.strip())
    return tuple(ClassName(pair[0], pair[-1].strip()) for pair in pairs)


@weights_commands.command("export")
@click.argument(
    "files", metavar="FILE...", nargs=-1, required=True, type=click.Path(path_type=Path)
)
@click.option(
    "--weights",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Weights file to export; by default the selected weights.",
)
@click.option(
    "--ten-crops", is_flag=True, help="ONNX that averages over the ten crops, as the pages do."
)
@handle_cli_errors
def export_command(files: tuple[Path, ...], weights: Path | None, ten_crops: bool) -> None:
    """Export weights to FILE, in the format that its suffix names.

    .safetensors or .pth: the network's tensors alone, for torch; torchvision's networks with
    torchvision's names. .onnx: the whole way from pixels to probabilities and features, compared
    with ONNX Runtime. .md: a model card.
    """
    for file in files:
        check_suffix(file)
    source = weights or context.settings().home.weights
    loaded = load_weights(source)
    check_finite(loaded)
    for file in files:
        try:
            check_writable(file)
            click.echo(export_weights(loaded, file, ten_crops=ten_crops))
        except OSError as error:
            exit_with(str(error), 2)

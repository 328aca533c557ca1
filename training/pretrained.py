"""When training starts from the weights that ship with the project, or is replaced by them."""

from dataclasses import replace
from pathlib import Path

from rich.console import Console

from storage.files import switch_link
from storage.home import Home
from storage.pretrained import PRETRAINED_DATA, SHIPPED, install_pretrained
from storage.progress import show_step_bars
from storage.runs import RunFolder
from training.config import PAPER
from training.dataset.fetch import fetch_imagenette
from training.options import Options


def start_from_pretrained(
    options: Options, data_name: str | None, home: Home, *, shipped: RunFolder = SHIPPED
) -> Options:
    """Return the options with the weights that ship as --from, where the preset demo wants them.

    data_name: what to train on; None: the demo photographs. Unchanged if other weights are named,
    the recipe is one for random weights, or no weights ship with this copy of the project. Raises
    OSError.
    """
    photographs = data_name is None or Path(data_name).absolute() == home.demo
    demo = options.preset == "demo" or (options.preset == "auto" and photographs)
    other = options.resume or options.initial_weights or options.recipe.variant != PAPER.variant
    if not demo or other:
        return options
    run = install_pretrained(home, shipped=shipped)
    return replace(options, initial_weights=str(run.weights)) if run else options


def use_pretrained(
    options: Options,
    data_name: str | None,
    home: Home,
    console: Console,
    *,
    shipped: RunFolder = SHIPPED,
) -> Path | None:
    """Put the weights that ship into use if they were trained on this data; return their file.

    That is what --if-needed finds done already. The photographs are downloaded, so that they can
    be indexed. None if the options ask for training of another kind, or no weights ship with this
    copy of the project. Raises FetchError and OSError.
    """
    default = options.recipe == PAPER and options.preset == "auto" and not options.initial_weights
    if not (options.if_needed and default and data_name == PRETRAINED_DATA):
        return None
    run = install_pretrained(home, shipped=shipped)
    if run is None:
        return None
    with show_step_bars(console) as report:
        fetch_imagenette(home.imagenette, report)
    switch_link(home.weights, run.weights)
    console.print(
        f"Nothing to train: {run.path.name} was trained on Imagenette; using its weights."
    )
    return run.weights

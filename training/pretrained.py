"""When training starts from the weights that ship with the project, or is replaced by them."""

from dataclasses import replace
from pathlib import Path

from rich.console import Console

from storage.files import switch_link
from storage.home import Home
from storage.pretrained import PRETRAINED_DATA, PRETRAINED_RUN, SHIPPED, install_pretrained
from storage.progress import show_step_bars
from storage.runs import RunFolder
from training.dataset.fetch import fetch_imagenette
from training.recipe.config import PAPER
from training.recipe.options import MAX_SMALL_DATASET_IMAGES, Options

STARTING = ("demo", "finetune", "finetune-small")
"""Presets that start from other weights."""


def start_from_pretrained(
    options: Options, images: int | None, home: Home, *, shipped: RunFolder = SHIPPED
) -> Options:
    """Return the options with the weights that ship as --from, where they are what to start from.

    images: how many there are to train on; None: unknown. Unchanged for a large training set, if
    --from or a preset that starts from random weights is named, or another network, or no weights
    ship with this copy of the project.
    """
    is_small = images is not None and images < MAX_SMALL_DATASET_IMAGES
    wanted = options.preset in STARTING or (options.preset == "auto" and is_small)
    other = options.resume or options.initial_weights or options.recipe.variant != PAPER.variant
    if not wanted or other:
        return options
    # In place: nothing is written before it is known that there is something to train on.
    places = (shipped.weights, RunFolder(home.runs / PRETRAINED_RUN).weights)
    found = next((file for file in places if file.exists()), None)
    return replace(options, initial_weights=str(found)) if found else options


def use_pretrained(
    options: Options,
    data_name: str | None,
    home: Home,
    console: Console,
    *,
    shipped: RunFolder = SHIPPED,
) -> Path | None:
    """Select the weights that ship if they were trained on this data; return their file.

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

"""When a run starts from the weights that ship, and when they take its place."""

import io
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from storage.home import Home
from storage.runs import RunFolder
from training.pretrained import start_from_pretrained, use_pretrained
from training.recipe.config import PAPER, PRESETS
from training.recipe.options import Options

NEEDED = Options(if_needed=True)


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(root=tmp_path / "home")


@pytest.fixture
def shipped(tmp_path: Path) -> RunFolder:
    """A folder of weights that ship, as far as training looks at it."""
    run = RunFolder(tmp_path / "shipped")
    run.path.mkdir()
    run.weights.write_bytes(b"weights")
    run.update_description(finished=True, pretrained=True)
    return run


@pytest.mark.parametrize(
    ("options", "images"),
    [
        (Options(), 672),
        (Options(), 99_999),
        (Options(preset="demo", recipe=PRESETS["demo"]), None),
        (Options(preset="finetune", recipe=PRESETS["finetune"]), 1_281_167),
    ],
)
def test_small_training_sets_start_from_the_weights_that_ship(
    home: Home, shipped: RunFolder, options: Options, images: int | None
) -> None:
    started = start_from_pretrained(options, images, home, shipped=shipped)
    assert started == replace(options, initial_weights=str(shipped.weights))
    assert not home.root.exists()


@pytest.mark.parametrize(
    ("options", "images"),
    [
        (Options(), 100_000),
        (Options(), None),
        (Options(initial_weights="mine"), 672),
        (Options(initial_weights="scratch"), 672),
        (Options(resume="run"), 672),
        (Options(preset="small", recipe=PRESETS["small"]), 672),
        (Options(preset="demo-from-scratch", recipe=PRESETS["demo-from-scratch"]), 672),
        (Options(recipe=replace(PAPER, variant="one-gpu")), 672),
    ],
)
def test_whatever_is_named_otherwise_is_left_as_it_is(
    home: Home, shipped: RunFolder, options: Options, images: int | None
) -> None:
    assert start_from_pretrained(options, images, home, shipped=shipped) == options
    assert not home.runs.exists()


def test_without_weights_that_ship_the_demo_starts_from_random_ones(
    home: Home, tmp_path: Path
) -> None:
    nothing = RunFolder(tmp_path / "nothing")
    assert start_from_pretrained(Options(), 672, home, shipped=nothing) == Options()


def test_on_imagenette_nothing_is_left_to_train(home: Home, shipped: RunFolder) -> None:
    home.imagenette.mkdir(parents=True)  # as if downloaded
    console = Console(file=io.StringIO())
    weights = use_pretrained(NEEDED, "imagenette", home, console, shipped=shipped)
    assert weights is not None
    assert home.weights.resolve() == weights.resolve()
    assert home.weights.read_bytes() == b"weights"


@pytest.mark.parametrize(
    ("options", "data"),
    [
        (NEEDED, "photographs"),
        (NEEDED, None),
        (Options(), "imagenette"),
        (replace(NEEDED, recipe=replace(PAPER, epochs=3)), "imagenette"),
        (replace(NEEDED, preset="small", recipe=PRESETS["small"]), "imagenette"),
        (replace(NEEDED, initial_weights="mine"), "imagenette"),
    ],
)
def test_whoever_asks_for_training_gets_it(
    home: Home, shipped: RunFolder, options: Options, data: str | None
) -> None:
    assert use_pretrained(options, data, home, Console(), shipped=shipped) is None
    assert not home.root.exists()

"""What `--resume` and presets make of a command line."""

from dataclasses import replace
from pathlib import Path

import pytest

from storage.home import Home
from storage.runs import RunFolder
from training.dataset.prepare import PreparedDataset
from training.distributed.launch import launch
from training.recipe.config import CIFAR, ORIGINAL, PRESETS
from training.recipe.options import Options, parse_options
from training.records.resume import find_finished_run, find_interrupted_run
from training.records.run_folder import RunError, RunSpec, create_run

RECIPE = replace(CIFAR, epochs=6, batch=5, seed=7, drop_after=(2, 4))
SAVED = Options(precision="f32", compile="off", prepared_gigabytes=0.0, checkpoint_seconds=7.0)


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(root=tmp_path / "home")


@pytest.fixture
def run(tiny: PreparedDataset, home: Home) -> RunFolder:
    made = create_run(home, RunSpec(tiny, RECIPE), "cifar")
    made.update_description(start_file="/weights.safetensors", options=SAVED.to_json())
    return made


@pytest.mark.parametrize("preset", PRESETS)
def test_a_preset_that_is_named_holds_before_the_photographs_are_read(preset: str) -> None:
    assert parse_options(["--preset", preset]).recipe == PRESETS[preset]
    job = parse_options(["--preset", preset, "--batch", "3"])
    assert job.recipe == replace(PRESETS[preset], batch=3)


def test_without_one_the_recipe_waits_for_the_photographs() -> None:
    assert parse_options([]) == Options()


def test_a_run_is_resumed_as_it_was_told(run: RunFolder, tiny: PreparedDataset) -> None:
    job = parse_options(["--resume", str(run.path)])
    assert job.recipe == RECIPE
    assert (job.data, job.preset, job.initial_weights) == (
        str(tiny.root),
        "cifar",
        "/weights.safetensors",
    )
    assert job.to_json() == SAVED.to_json()
    # Another number of processes is allowed.
    assert (job.towers, job.replicas) == (None, 1)


def test_what_the_command_line_says_comes_first(run: RunFolder) -> None:
    words = ["--resume", str(run.path), "--rate", "0.5", "--precision", "bf16", "--towers", "1"]
    job = parse_options(words)
    assert (job.recipe.rate, job.precision, job.towers) == (0.5, "bf16", 1)
    assert job.recipe.drop_after == (2, 4)


def test_another_preset_is_refused(run: RunFolder) -> None:
    words = ["--resume", str(run.path), "--preset"]
    assert parse_options([*words, "cifar"]).recipe == RECIPE
    with pytest.raises(RunError, match="another preset: it was cifar"):
        parse_options([*words, "small"])


def test_a_finished_run_says_so_before_its_photographs_are_looked_for(
    run: RunFolder, tmp_path: Path
) -> None:
    words = ["--resume", str(run.path)]
    run.weights.write_bytes(b"")
    run.update_description(finished=True, data=str(tmp_path / "gone"))
    with pytest.raises(RunError, match=r"is finished: .* more than \d+ epochs"):
        launch(words)
    # To be extended, it needs a checkpoint.
    with pytest.raises(RunError, match="checkpoint is gone"):
        launch([*words, "--epochs", "1000"])


def test_if_needed_finds_a_finished_or_an_interrupted_run(
    home: Home, tiny: PreparedDataset, run: RunFolder
) -> None:
    spec, needed = RunSpec(tiny, RECIPE), Options(if_needed=True)
    assert find_interrupted_run(needed, home, spec) is None  # there is no checkpoint yet
    run.checkpoint.write_bytes(b"")
    assert find_interrupted_run(needed, home, spec) == run
    assert find_interrupted_run(Options(), home, spec) is None
    assert find_interrupted_run(needed, home, RunSpec(tiny, ORIGINAL)) is None
    assert find_finished_run(home, spec) is None
    run.update_description(finished=True)
    assert find_finished_run(home, spec) is None  # its weights were removed
    run.weights.write_bytes(b"")
    assert find_finished_run(home, spec) == run

"""What `--resume` and presets make of a command line."""

from dataclasses import replace
from pathlib import Path

import pytest

from storage.home import Home
from training.config import CIFAR, ORIGINAL, PRESETS
from training.dataset.prepare import Prepared
from training.options import Job
from training.resume import cut_off, finished_before, options, read_job
from training.run_folder import Run, RunError, Told, new_run

RECIPE = replace(CIFAR, epochs=6, batch=5, seed=7, drop_after=(2, 4))
TOLD_WITH = Job(precision="f32", compile="off", prepared_gigabytes=0.0, checkpoint_seconds=7.0)


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(root=tmp_path / "home")


@pytest.fixture
def run(tiny: Prepared, home: Home) -> Run:
    made = new_run(home, Told(tiny, RECIPE), "cifar")
    made.describe(start_file="/weights.safetensors", options=options(TOLD_WITH))
    return made


@pytest.mark.parametrize("preset", PRESETS)
def test_a_preset_that_is_named_holds_before_the_photographs_are_read(preset: str) -> None:
    assert read_job(["--preset", preset]).recipe == PRESETS[preset]
    job = read_job(["--preset", preset, "--epochs", "3"])
    assert job.recipe == replace(PRESETS[preset], epochs=3)


def test_without_one_the_recipe_waits_for_the_photographs() -> None:
    assert read_job([]) == Job()


def test_a_run_is_resumed_as_it_was_told(run: Run, tiny: Prepared) -> None:
    job = read_job(["--resume", str(run.folder)])
    assert job.recipe == RECIPE
    assert (job.data, job.preset, job.start) == (str(tiny.root), "cifar", "/weights.safetensors")
    assert options(job) == options(TOLD_WITH)
    # Another number of processes is allowed.
    assert (job.towers, job.replicas) == (None, 1)


def test_what_the_command_line_says_comes_first(run: Run) -> None:
    words = ["--resume", str(run.folder), "--rate", "0.5", "--precision", "bf16", "--towers", "1"]
    job = read_job(words)
    assert (job.recipe.rate, job.precision, job.towers) == (0.5, "bf16", 1)
    assert job.recipe.drop_after == (2, 4)


def test_another_preset_is_refused(run: Run) -> None:
    words = ["--resume", str(run.folder), "--preset"]
    assert read_job([*words, "cifar"]).recipe == RECIPE
    with pytest.raises(RunError, match="another preset: it was cifar"):
        read_job([*words, "small"])


def test_if_needed_finds_what_was_done_or_cut_off(home: Home, tiny: Prepared, run: Run) -> None:
    told, needed = Told(tiny, RECIPE), Job(if_needed=True)
    assert cut_off(needed, home, told) is None  # there is no checkpoint yet
    run.checkpoint.write_bytes(b"")
    assert cut_off(needed, home, told) == run
    assert cut_off(Job(), home, told) is None
    assert cut_off(needed, home, Told(tiny, ORIGINAL)) is None
    assert finished_before(needed, home, told) is None
    run.describe(finished=True)
    assert finished_before(needed, home, told) is None  # its weights were removed
    run.weights.write_bytes(b"")
    assert finished_before(needed, home, told) == run
    assert finished_before(Job(), home, told) is None

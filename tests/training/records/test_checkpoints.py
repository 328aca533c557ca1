"""Checkpoints outlive a bad disk, a kill, a divergence, and the end of the run."""

import json
import math
import re
import signal
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from rich.console import Console

from model.weights.checkpoint import load_weights, read_tensors, write_tensors
from storage.files import lock_file
from storage.home import Home
from storage.runs import RunFolder
from training.dataset.prepare import PreparedDataset
from training.optimisation.loop import train_network
from training.optimisation.state import TrainingState, init_state
from training.recipe.config import CIFAR, Recipe
from training.records.callbacks import Callbacks, StoppedError
from training.records.checkpoints import find_sound_position, load_checkpoint, save_checkpoint
from training.records.reporting import report_run
from training.records.run_folder import RunError, RunSpec, create_run

RECIPE = replace(CIFAR, variant="cifar-80sec", epochs=3, batch=5, hold_out=0.0, drop_after=(1, 2))
STEPS = 24 // 5
WORDS = ("--variant", "cifar-80sec", "--batch", "5", "--precision", "f32", "--no-ten-crops")
RunTraining = Callable[..., tuple[str, str]]


def fresh(data: PreparedDataset, recipe: Recipe = RECIPE) -> TrainingState:
    return init_state(recipe.network(len(data.class_names)), recipe, torch.device("cpu"))


def same(a: TrainingState, b: TrainingState) -> bool:
    pairs = zip(a.network.parameters(), b.network.parameters(), strict=True)
    return all(torch.equal(x, y) for x, y in pairs)


def train(
    data: PreparedDataset,
    run: RunFolder,
    state: TrainingState,
    stop_at: int = -1,
    recipe: Recipe = RECIPE,
) -> None:
    """Train with records and a checkpoint after every step; stop at that poll for a signal."""
    polls = iter(range(1, 10_000))
    spec = RunSpec(data, recipe)

    def stop() -> int:
        return signal.SIGTERM if next(polls) == stop_at else 0

    with report_run(run, spec, Console(quiet=True), stop, 0) as callbacks, suppress(StoppedError):
        train_network(state, data, recipe, "f32", callbacks)


@pytest.fixture(scope="module")
def whole(tiny: PreparedDataset) -> TrainingState:
    """Three epochs without a break."""
    state = fresh(tiny)
    train_network(state, tiny, RECIPE, "f32", Callbacks())
    return state


@pytest.fixture
def run(tiny: PreparedDataset, tmp_path: Path) -> RunFolder:
    """A run stopped in its third epoch."""
    run = create_run(Home(root=tmp_path), RunSpec(tiny, RECIPE), "cifar")
    train(tiny, run, fresh(tiny), 2 * (STEPS + 1) + 2)
    return run


def damage(file: Path, kind: str) -> None:
    content = bytearray(file.read_bytes())
    if kind == "truncated":
        content = content[: len(content) // 2]
    if kind == "empty":
        content.clear()
    if kind == "flipped tensor":
        content[-1000] ^= 4
    if kind == "flipped header":  # still JSON, with another number
        at = content.index(b'\\"step\\": ') + len(b'\\"step\\": ')
        content[at] = ord("0") if content[at] != ord("0") else ord("1")
    # Another file of the same name: the one before it may be a second name of the same.
    file.unlink()
    file.write_bytes(content)


@pytest.mark.parametrize("kind", ["truncated", "empty", "flipped tensor", "flipped header"])
def test_a_damaged_checkpoint_is_named_and_the_one_before_is_used(
    tiny: PreparedDataset, whole: TrainingState, run: RunFolder, kind: str
) -> None:
    assert run.previous_checkpoint in run.list_checkpoints()
    damage(run.checkpoint, kind)
    state = fresh(tiny)
    (said,) = load_checkpoint(run, state, RunSpec(tiny, RECIPE))
    assert str(run.checkpoint) in said
    assert "damaged" in said
    # One step earlier than the last, from which the same bits follow.
    assert (len(state.history), state.progress.step) == (2, 1)
    train_network(state, tiny, RECIPE, "f32", Callbacks())
    assert same(state, whole)


def test_if_all_are_damaged_each_is_named(tiny: PreparedDataset, run: RunFolder) -> None:
    for file in run.list_checkpoints():
        damage(file, "empty")
    with pytest.raises(RunError) as refused:
        load_checkpoint(run, fresh(tiny), RunSpec(tiny, RECIPE))
    assert all(str(file) in str(refused.value) for file in run.list_checkpoints())
    assert len(run.list_checkpoints()) == 4


def test_one_is_kept_at_each_drop_of_the_rate(tiny: PreparedDataset, run: RunFolder) -> None:
    drops = [run.drop_checkpoint(epoch) for epoch in (1, 2)]
    assert run.list_checkpoints() == [run.checkpoint, run.previous_checkpoint, *drops[::-1]]
    header, tensors = read_tensors(drops[0])
    one = replace(RECIPE, epochs=1)
    state = fresh(tiny, one)
    train_network(state, tiny, one, "f32", Callbacks())
    assert len(json.loads(header["history"])) == 1
    for name, parameter in state.network.named_parameters():
        assert torch.equal(tensors[name], parameter), name


def test_another_batch_size_takes_effect_with_the_next_epoch(
    tiny: PreparedDataset, run: RunFolder
) -> None:
    recipe = replace(RECIPE, batch=8, epochs=4)
    spec = RunSpec(tiny, recipe)
    state = fresh(tiny, recipe)
    load_checkpoint(run, state, spec, ["batch", "epochs"])
    assert (len(state.history), state.progress.step) == (2, 2)
    seen: list[tuple[int, int]] = []

    def saved_in_between(step: int, steps: int, _loss: float) -> None:
        seen.append((step, steps))
        if len(seen) == 1:
            # Interrupted once more within the same epoch.
            save_checkpoint(run, state, spec)

    train_network(state, tiny, recipe, "f32", Callbacks(on_step=saved_in_between))
    assert seen == [(3, 4), (4, 4), (1, 3), (2, 3), (3, 3)]
    again = fresh(tiny, recipe)
    run.update_description(**spec.to_json())
    load_checkpoint(run, again, spec)
    train_network(again, tiny, recipe, "f32", Callbacks())
    assert same(again, state)


@pytest.mark.parametrize(
    ("now", "said"),
    [
        (["cat", "coffee", "dog"], "gone: grass; new: dog"),
        (["grass", "coffee", "cat"], "order has changed"),
        (["cat", "coffee", "grass", "tea"], "new: tea"),
    ],
)
def test_other_classes_are_never_accepted(
    tiny: PreparedDataset, run: RunFolder, now: list[str], said: str
) -> None:
    names = tuple(replace(tiny.class_names[0], folder=name) for name in now)
    other = RunSpec(replace(tiny, key="other", class_names=names), RECIPE)
    with pytest.raises(RunError, match=said) as refused:
        load_checkpoint(run, fresh(tiny), other, ["content", "classes"])
    assert "--accept" not in str(refused.value)


def test_after_a_divergence_what_was_saved_in_trouble_is_passed_over(
    tiny: PreparedDataset, run: RunFolder
) -> None:
    header, tensors = read_tensors(run.checkpoint)
    recent = [2 * math.log(3)] * 20  # twice that of guessing
    changed = {k: v for k, v in header.items() if k != "checksum"} | {"recent": json.dumps(recent)}
    write_tensors(tensors, run.checkpoint, changed)
    assert str(find_sound_position(run)) == "epoch 2, step 1"
    state = fresh(tiny)
    # Only a run that has diverged is suspected.
    assert load_checkpoint(run, fresh(tiny), RunSpec(tiny, RECIPE)) == []
    run.update_description(ended="diverged")
    (said,) = load_checkpoint(run, state, RunSpec(tiny, RECIPE))
    assert str(run.checkpoint) in said
    assert state.progress.step == 1


# The whole command


def only_run(home: Path) -> RunFolder:
    (folder,) = (home / "runs").iterdir()
    return RunFolder(folder)


def test_a_diverged_run_is_resumed_by_the_command_it_gives(
    run_training: RunTraining, tmp_path: Path
) -> None:
    run_training(tmp_path, *WORDS, "--epochs", "1")
    run = only_run(tmp_path)
    wild = ("--resume", run.path, "--epochs", "2", "--rate", "1e12", "--accept", "rate")
    _, errors = run_training(tmp_path, *wild, code=2)
    (line,) = errors.splitlines()
    found = re.search(r"after epoch 1, step 0, .*: python training/run\.py (.*)$", line)
    assert found
    description = run.read_description()
    assert (description["ended"], description["finished"]) == ("diverged", False)
    assert "the loss became" in description["ended_because"]
    words = found[1].split()
    assert words == ["--resume", str(run.path), "--rate", "5e+11", "--accept", "rate"]
    words[3] = "0.0001"
    run_training(tmp_path, *words)
    description = run.read_description()
    assert (description["ended"], description["finished"]) == ("finished", True)
    assert len(run.epochs.read_text().splitlines()) == 2


def test_a_finished_run_is_extended_to_the_bits_of_a_longer_one(
    run_training: RunTraining, tmp_path: Path
) -> None:
    constant = ("--drop-after", "99")
    run_training(tmp_path / "short", *WORDS, *constant, "--epochs", "2")
    run_training(tmp_path / "long", *WORDS, *constant, "--epochs", "4")
    run = only_run(tmp_path / "short")
    _, errors = run_training(tmp_path / "short", "--resume", run.path, code=2)
    assert "is finished" in errors
    assert "--epochs" in errors
    # Whatever a kill left is swept on the way.
    left = [run.path / name for name in (".tmpA1b2C3", ".best.safetensors.part")]
    for file in left:
        file.write_bytes(b"half a file")
    run_training(tmp_path / "short", "--resume", run.path, "--epochs", "4")
    weights = [load_weights(tmp_path / name / "weights.safetensors") for name in ("short", "long")]
    for name, tensor in weights[1].state.items():
        assert torch.equal(weights[0].state[name], tensor), name
    lines = [json.loads(line) for line in run.epochs.read_text().splitlines()]
    assert [(line["epoch"], line["planned"]) for line in lines] == [(1, 2), (2, 2), (3, 4), (4, 4)]
    assert not any(file.exists() for file in left)
    # Without its checkpoint, it cannot be extended, and says what can be done.
    for file in run.list_checkpoints():
        file.unlink()
    words = ("--resume", run.path, "--epochs", "5")
    _, errors = run_training(tmp_path / "short", *words, code=2)
    assert "--from" in errors
    assert run.read_description()["finished"] is True


def test_a_run_is_trained_by_one_process_at_a_time(
    run_training: RunTraining, run: RunFolder, photographs: Path, tmp_path: Path
) -> None:
    before = run.checkpoint.read_bytes()
    with lock_file(run.lock):
        _, errors = run_training(tmp_path, "--resume", run.path, "--data", photographs, code=2)
    (line,) = errors.splitlines()
    assert f"{run.path} is being trained by another process" in line
    assert run.checkpoint.read_bytes() == before


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--resume", ""), "--resume is empty"),
        (("--from", ""), "--from is empty"),
        (("--accept", "rate"), "--accept needs --resume"),
    ],
)
def test_words_that_say_nothing_are_refused(
    run_training: RunTraining, tmp_path: Path, words: tuple[str, ...], said: str
) -> None:
    _, errors = run_training(tmp_path / "home", *words, code=2)
    (line,) = errors.splitlines()
    assert said in line
    assert not (tmp_path / "home").exists()

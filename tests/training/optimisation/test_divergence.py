"""A run that diverges stops where it happened, and writes nothing that is no number."""

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from model.network.counter_rng import derive_image_keys
from storage.runs import RunFolder
from training.batches.batches import Batch, Batches
from training.dataset.prepare import PreparedDataset
from training.optimisation.divergence import DivergedError, check_loss, check_weights
from training.optimisation.loop import train_network
from training.optimisation.state import TrainingState, init_state
from training.recipe.config import CIFAR, Recipe
from training.records.callbacks import Callbacks
from training.records.checkpoints import save_checkpoint
from training.records.run_folder import RunSpec

CPU = torch.device("cpu")
RECIPE = replace(CIFAR, batch=5, epochs=2, hold_out=0.0)


def fresh(data: PreparedDataset, recipe: Recipe = RECIPE) -> TrainingState:
    return init_state(recipe.network(len(data.class_names)), recipe, CPU)


def batch_of(data: PreparedDataset, state: TrainingState, step: int = 1) -> Batch:
    augmentation = RECIPE.augmentation(state.network.config)
    return next(iter(Batches(data, augmentation, batch=5, first=step - 1)))


def layers_that_are_not_finite(state: TrainingState, x: torch.Tensor) -> list[str]:
    """By hand, one layer after the other."""
    found = []
    with torch.no_grad():
        for name, module in state.network.named_children():
            x = module(x)
            if not torch.isfinite(x).all():
                found.append(name)
    return found


def test_a_rate_far_too_high_names_the_step_and_the_first_bad_layer(tiny: PreparedDataset) -> None:
    wild = replace(RECIPE, rate=1e12)
    state, done = fresh(tiny, wild), list[int]()
    with pytest.raises(DivergedError) as stopped:
        train_network(
            state, tiny, wild, "f32", Callbacks(on_step=lambda step, *_: done.append(step))
        )
    step = len(done) + 1
    # The weights are still those that the loss came from: all finite, as large as they are.
    assert all(torch.isfinite(p).all() for p in state.network.parameters())
    (first, *_rest) = layers_that_are_not_finite(state, batch_of(tiny, state, step).x)
    assert first != "conv1"
    assert f"at step {step} of epoch 1; the first layer whose outputs are not finite is " in str(
        stopped.value
    )
    assert f"is {first}." in str(stopped.value)


@pytest.mark.parametrize("layer", ["conv1", "conv2", "local4", "fc10"])
def test_the_first_bad_layer_is_found_wherever_it_is(tiny: PreparedDataset, layer: str) -> None:
    state = fresh(tiny)
    with torch.no_grad():
        state.network.get_parameter(f"{layer}.bias").view(-1)[0] = math.inf
    with pytest.raises(DivergedError, match=rf"at step 1 of epoch 1; .* not finite is {layer}\."):
        train_network(state, tiny, RECIPE, "f32", Callbacks())


@pytest.mark.parametrize(("loss", "past"), [(19.9, False), (20.1, True)])
def test_a_loss_far_beyond_guessing_is_past_hope(
    tiny: PreparedDataset, loss: float, past: bool
) -> None:
    state = fresh(tiny)
    batch = batch_of(tiny, state)
    keys = derive_image_keys(0, 1, batch.rows)
    state.recent_losses.extend([loss * math.log(3)] * 19)
    state.recent_losses.append(loss * math.log(3))
    if not past:
        check_loss(state, batch, keys, "f32", 20, 1)
        return
    with pytest.raises(DivergedError, match=r"at step 20 of epoch 1; the largest outputs are"):
        check_loss(state, batch, keys, "f32", 20, 1)


def test_one_wild_batch_is_not_the_end(tiny: PreparedDataset) -> None:
    state = fresh(tiny)
    batch = batch_of(tiny, state)
    state.recent_losses.extend([1.0] * 19 + [300.0])
    check_loss(state, batch, derive_image_keys(0, 1, batch.rows), "f32", 20, 1)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_no_checkpoint_is_written_of_weights_that_are_no_numbers(
    tiny: PreparedDataset, tmp_path: Path, value: float
) -> None:
    state, told, run = fresh(tiny), RunSpec(tiny, RECIPE), RunFolder(tmp_path)
    save_checkpoint(run, state, told)
    before = run.checkpoint.read_bytes()
    with torch.no_grad():
        state.network.get_parameter("local3.weight")[3, 2, 1] = value
    with pytest.raises(DivergedError, match=r"local3\.weight is no longer finite"):
        save_checkpoint(run, state, told)
    assert run.checkpoint.read_bytes() == before
    with pytest.raises(DivergedError):
        check_weights(state)


def test_weights_lost_in_the_last_step_of_an_epoch_are_never_validated(
    tiny: PreparedDataset,
) -> None:
    """The loss of the last step is still a number; what its update made is not."""
    state, epochs = fresh(tiny), list[TrainingState]()
    steps = 24 // 5

    def spoil(step: int, *_: object) -> None:
        if step == steps:
            with torch.no_grad():
                state.network.get_parameter("fc10.weight")[0, 0] = math.nan

    with pytest.raises(DivergedError, match=rf"fc10\.weight .* after step {steps} of epoch 1"):
        train_network(state, tiny, RECIPE, "f32", Callbacks(on_step=spoil, on_epoch=epochs.append))
    assert epochs == []


def test_the_command_reports_it_in_one_line_and_leaves_only_finite_weights(
    run_training: Callable[..., tuple[str, str]], tmp_path: Path
) -> None:
    words = ["--variant", "cifar", "--batch", "5", "--rate", "1e12", "--checkpoint-seconds", "0"]
    _, errors = run_training(tmp_path, *words, code=2)
    (line,) = errors.splitlines()
    assert "--rate" in line
    for file in tmp_path.rglob("*.safetensors"):
        assert all(torch.isfinite(tensor).all() for tensor in load_file(file).values())
    assert not list(tmp_path.rglob("weights.safetensors"))

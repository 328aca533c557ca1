"""The loop: it learns, it repeats itself to the bit, and it can be cut in two."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from model.checkpoint import load
from model.home import Home
from training.config import PAPER, SMALL, Recipe
from training.data import Batches
from training.loop import DivergedError, Reports, State, count_errors, start, train, update
from training.prepare import Prepared
from training.record import (
    Run,
    RunError,
    finish,
    load_checkpoint,
    new_run,
    runs_of,
    save_checkpoint,
)

CPU = torch.device("cpu")
RECIPE = replace(SMALL, epochs=3, batch=12, rate=0.002, seed=7)
SILENT = Reports(steps=lambda *_: None, epochs=lambda _: None)


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(root=tmp_path / "home")


@pytest.fixture(scope="module")
def whole(prepared: Prepared) -> State:
    """Three epochs without a break."""
    state = start(prepared, RECIPE, CPU)
    train(state, prepared, RECIPE, False, SILENT)
    return state


def same_weights(a: State, b: State) -> bool:
    pairs = zip(a.network.parameters(), b.network.parameters(), strict=True)
    return all(torch.equal(x, y) for x, y in pairs)


def test_the_loss_falls(whole: State) -> None:
    losses = [epoch.loss for epoch in whole.history]
    assert losses[-1] < losses[0]
    assert [epoch.epoch for epoch in whole.history] == [1, 2, 3]
    assert all(0 <= epoch.top5_error <= epoch.top1_error <= 1 for epoch in whole.history)
    assert all(epoch.images_per_second > 0 for epoch in whole.history)


def test_a_run_cut_off_goes_on_to_the_same_weights_bit_for_bit(
    prepared: Prepared, whole: State, home: Home
) -> None:
    run = new_run(home, prepared, RECIPE, "small")
    saved: list[int] = []

    def cut(state: State) -> None:
        if len(state.history) == 2:
            save_checkpoint(run, state, prepared, RECIPE)
            saved.append(2)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(
            start(prepared, RECIPE, CPU),
            prepared,
            RECIPE,
            False,
            Reports(steps=SILENT.steps, epochs=cut),
        )
    torch.manual_seed(12345)  # another process has another state
    resumed = start(prepared, RECIPE, CPU)
    load_checkpoint(run, resumed, prepared, RECIPE)
    assert len(resumed.history) == 2
    train(resumed, prepared, RECIPE, False, SILENT)
    assert same_weights(resumed, whole)
    assert [e.loss for e in resumed.history] == [e.loss for e in whole.history]


def test_a_checkpoint_of_another_recipe_is_refused_by_the_fields_name(
    prepared: Prepared, whole: State, home: Home
) -> None:
    run = new_run(home, prepared, RECIPE, "small")
    save_checkpoint(run, whole, prepared, RECIPE)
    other = replace(RECIPE, rate=0.001)
    resumed = start(prepared, other, CPU)
    with pytest.raises(RunError, match=r"rate was 0\.002, is 0\.001; .* --accept rate"):
        load_checkpoint(run, resumed, prepared, other)
    load_checkpoint(run, resumed, prepared, other, accept=["rate"])
    assert resumed.sgd.rate == whole.sgd.rate  # until the next epoch begins
    assert same_weights(resumed, whole)
    assert run.described()["recipe"]["rate"] == 0.001


@pytest.mark.parametrize("damage", ["missing", "truncated", "not a checkpoint"])
def test_a_damaged_checkpoint_is_refused(
    prepared: Prepared, whole: State, home: Home, damage: str
) -> None:
    run = new_run(home, prepared, RECIPE, "small")
    if damage == "truncated":
        save_checkpoint(run, whole, prepared, RECIPE)
        with run.checkpoint.open("r+b") as file:
            file.truncate(1000)
    if damage == "not a checkpoint":
        run.checkpoint.write_bytes(b"{}" * 100)
    with pytest.raises(RunError, match="cannot be resumed"):
        load_checkpoint(run, start(prepared, RECIPE, CPU), prepared, RECIPE)


def test_finishing_writes_the_weights_and_makes_them_the_current_ones(
    prepared: Prepared, whole: State, home: Home
) -> None:
    run = new_run(home, prepared, RECIPE, "small")
    made = finish(run, home, whole, prepared, (0.25, 0.0))
    assert home.weights.is_symlink()
    assert home.weights.resolve() == run.weights.resolve()
    read = load(home.weights)
    assert read.identity == made.identity
    assert read.provenance.epochs == 3
    assert read.provenance.images == 24
    assert read.provenance.preset == "small"
    assert read.provenance.top1_error == whole.history[-1].top1_error
    assert read.provenance.ten_crop_top1_error == 0.25
    assert [c.label for c in read.classes] == [c.label for c in prepared.names]
    torch.testing.assert_close(read.mean, prepared.mean)
    x = torch.randn(2, 3, 224, 224)
    with torch.inference_mode():
        theirs = whole.network.eval()(x).logits
        torch.testing.assert_close(read.network()(x).logits, theirs, rtol=1e-4, atol=1e-5)
    assert run.described()["finished"] is True
    assert [r.folder for r in runs_of(home, prepared, RECIPE)] == [run.folder]
    assert list(runs_of(home, prepared, replace(RECIPE, seed=8))) == []


def test_a_loss_that_is_no_number_stops_the_run(prepared: Prepared) -> None:
    # He's weights with raw pixels and the paper's rate: the loss overflows within a few steps.
    wild: Recipe = replace(PAPER, init="he", rate=10.0, batch=4, epochs=2)
    with pytest.raises(DivergedError, match=r"at step \d+ of epoch 1"):
        train(start(prepared, wild, CPU), prepared, wild, False, SILENT)


def test_bf16_learns_too(prepared: Prepared) -> None:
    # Two images: where the processor has no bf16 it is emulated, slowly.
    x, classes = next(iter(Batches(prepared, replace(RECIPE, batch=2), 1)))
    exact, rounded = (start(prepared, RECIPE, CPU) for _ in range(2))
    losses = {}
    for state, bf16 in ((exact, False), (rounded, True)):
        torch.manual_seed(0)
        losses[bf16] = [update(state, x, classes, bf16) for _ in range(2)]
        assert losses[bf16][1] < losses[bf16][0]
    assert losses[True] == pytest.approx(losses[False], rel=0.05)
    for a, b in zip(exact.network.parameters(), rounded.network.parameters(), strict=True):
        assert b.dtype == torch.float32
        torch.testing.assert_close(a, b, rtol=0.05, atol=1e-3)


def test_errors_are_counted_as_the_field_counts_them() -> None:
    scores = torch.tensor([[9.0, 1, 2, 3, 4, 5, 6], [1, 9, 8, 7, 6, 5, 4], [1, 9, 8, 7, 6, 5, 4]])
    # The first is right at once, the second within five, the third not.
    assert count_errors(scores, torch.tensor([0, 5, 6])).tolist() == [2, 1]
    assert count_errors(scores[:, :3], torch.tensor([0, 2, 0])).tolist() == [2, 0]


def test_a_run_without_a_folder_of_its_own_is_named(tmp_path: Path) -> None:
    assert Run(tmp_path).described() == {}

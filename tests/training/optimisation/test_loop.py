"""The loop learns, repeats to the bit, and resumes from anywhere to the same bits."""

import json
import random
import resource
import signal
import subprocess
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console

from model.network.counter_rng import derive_image_keys
from model.weights.checkpoint import load_weights
from storage.home import Home
from storage.runs import Epoch, RunFolder
from training.batches.batches import Batches
from training.dataset.prepare import PreparedDataset
from training.distributed.signals import catch_stop_signals
from training.optimisation.loop import compute_gradients, train_network
from training.optimisation.precision import Precision
from training.optimisation.state import TrainingState, init_state
from training.optimisation.validate import count_errors, measure_ten_crops
from training.recipe.config import CIFAR, Recipe
from training.records import reporting
from training.records.callbacks import Callbacks, StoppedError
from training.records.checkpoints import load_checkpoint, save_checkpoint
from training.records.reporting import report_run
from training.records.run_folder import RunSpec, create_run

CPU = torch.device("cpu")
RECIPE = replace(CIFAR, epochs=3, batch=5, seed=7, hold_out=0.0)
STEPS, POLLS = 24 // 5, 24 // 5 + 1
"""Steps of an epoch, and how often it polls for a stop signal: once more, in validation."""
SHORT = ["--variant", "cifar", "--batch", "5", "--epochs", "4", "--checkpoint-seconds", "0"]
RunTraining = Callable[..., tuple[str, str]]
StartTraining = Callable[..., subprocess.Popen[str]]


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(root=tmp_path / "home")


def fresh(data: PreparedDataset, recipe: Recipe = RECIPE) -> TrainingState:
    return init_state(recipe.network(len(data.class_names)), recipe, CPU)


@pytest.fixture(scope="module")
def whole(tiny: PreparedDataset) -> TrainingState:
    """Three epochs without a break."""
    state = fresh(tiny)
    train_network(state, tiny, RECIPE, "f32", Callbacks())
    return state


def result(epoch: Epoch | dict[str, Any]) -> dict[str, Any]:
    """What an epoch gave, without the times that it took."""
    values = epoch if isinstance(epoch, dict) else asdict(epoch)
    return {k: values[k] for k in ("epoch", "rate", "loss", "top1_error", "top5_error")}


def same(a: TrainingState, b: TrainingState) -> bool:
    """Whether weights and velocities are the same to the bit."""
    pairs = zip(a.network.parameters(), b.network.parameters(), strict=True)
    return all(
        torch.equal(x, y) and torch.equal(a.sgd.velocity(x), b.sgd.velocity(y))  # type: ignore[arg-type]
        for x, y in pairs
    )


def test_the_loss_falls(whole: TrainingState) -> None:
    losses = [epoch.loss for epoch in whole.history]
    assert losses[-1] < losses[0]
    assert [epoch.epoch for epoch in whole.history] == [1, 2, 3]
    for epoch in whole.history:
        assert 0 <= epoch.top5_error <= epoch.top1_error <= 1
        assert epoch.images_per_second > 0
        assert epoch.memory > 0
        assert 0 <= epoch.data_wait <= epoch.seconds


def test_the_same_seed_gives_the_same_bits_whatever_torchs_generator_does(
    tiny: PreparedDataset, whole: TrainingState
) -> None:
    state = fresh(tiny)

    def disturb(*_: object) -> None:
        torch.manual_seed(random.randrange(1000))

    train_network(state, tiny, RECIPE, "f32", Callbacks(on_step=disturb))
    assert same(state, whole)


# After the first step, in the middle, after the last step, in validation, and in the next epoch.
@pytest.mark.parametrize("poll", [1, 3, STEPS, POLLS, POLLS + 1])
def test_a_run_stopped_at_any_moment_resumes_to_the_same_bits(
    tiny: PreparedDataset, whole: TrainingState, home: Home, poll: int
) -> None:
    spec = RunSpec(tiny, RECIPE)
    run = create_run(home, spec, "cifar")
    polls = iter(range(1, 10_000))
    quiet = Console(quiet=True)

    def stop() -> int:
        return signal.SIGTERM if next(polls) == poll else 0

    with report_run(run, spec, quiet, stop, 1e9) as callbacks, pytest.raises(StoppedError):
        train_network(fresh(tiny), tiny, RECIPE, "f32", callbacks)
    torch.manual_seed(12345)  # another process has another state
    resumed = fresh(tiny)
    load_checkpoint(run, resumed, spec)
    epoch, step = divmod(poll - 1, POLLS)
    assert len(resumed.history) == epoch
    assert resumed.progress.step == min(step + 1, STEPS)
    with report_run(run, spec, quiet, lambda: 0, 1e9) as callbacks:
        train_network(resumed, tiny, RECIPE, "f32", callbacks)
    assert same(resumed, whole)
    lines = [json.loads(line) for line in run.epochs.read_text().splitlines()]
    assert [result(line) for line in lines] == [result(epoch) for epoch in whole.history]


def test_a_second_ctrl_c_does_not_wait_for_a_checkpoint(tiny: PreparedDataset, home: Home) -> None:
    spec = RunSpec(tiny, RECIPE)
    run = create_run(home, spec, "cifar")

    def interrupt_twice(*_: object) -> None:
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)

    quiet = Console(quiet=True)
    with (
        catch_stop_signals() as stop_signal,
        report_run(run, spec, quiet, stop_signal, 1e9) as callbacks,
    ):
        interrupted = replace(callbacks, on_step=interrupt_twice)
        with pytest.raises(KeyboardInterrupt):
            train_network(fresh(tiny), tiny, RECIPE, "f32", interrupted)
    assert not run.checkpoint.exists()


# Early, between two steps whose rates differ, and at the end of an epoch.
@pytest.mark.parametrize("poll", [1, POLLS + 2, 2 * POLLS])
def test_a_cosine_stopped_at_any_moment_resumes_to_the_same_bits(
    tiny: PreparedDataset, home: Home, poll: int
) -> None:
    recipe = replace(RECIPE, schedule="cosine", warmup=1, smoothing=0.1)
    straight = fresh(tiny, recipe)
    train_network(straight, tiny, recipe, "f32", Callbacks())
    spec = RunSpec(tiny, recipe)
    run, quiet, polls = create_run(home, spec, "cifar"), Console(quiet=True), iter(range(1, 1000))

    def stop() -> int:
        return signal.SIGTERM if next(polls) == poll else 0

    with report_run(run, spec, quiet, stop, 1e9) as callbacks, pytest.raises(StoppedError):
        train_network(fresh(tiny, recipe), tiny, recipe, "f32", callbacks)
    resumed = fresh(tiny, recipe)
    load_checkpoint(run, resumed, spec)
    assert resumed.sgd.rates != fresh(tiny, recipe).sgd.rates
    train_network(resumed, tiny, recipe, "f32", Callbacks())
    assert same(resumed, straight)
    assert resumed.sgd.rates == straight.sgd.rates


def test_the_loss_of_smoothed_labels_by_hand(tiny: PreparedDataset) -> None:
    smoothing, state = 0.1, fresh(tiny)
    augmentation = RECIPE.augmentation(state.network.config)
    batch = next(iter(Batches(tiny, augmentation, batch=6, seed=7)))
    keys = derive_image_keys(7, 1, batch.rows)
    loss = compute_gradients(state, batch, keys, 6, "f32", smoothing).loss
    with torch.no_grad():
        p = state.network(batch.x).logits.double().softmax(1)
    # q: 0.9 of each label stays, 0.1 is spread evenly over the three classes, its own included.
    q = torch.full((6, 3), smoothing / 3, dtype=torch.float64)
    q[torch.arange(6), batch.classes] += 1 - smoothing
    assert loss == pytest.approx(float(-(q * p.log()).sum(1).mean()), rel=1e-5)
    gradient = state.network.get_parameter("fc10.bias").grad
    assert gradient is not None
    torch.testing.assert_close(gradient.double(), (p - q).mean(0), rtol=1e-4, atol=1e-6)


def test_checkpoints_change_nothing(tiny: PreparedDataset, whole: TrainingState) -> None:
    saved: list[int] = []
    state = fresh(tiny)
    callbacks = Callbacks(
        checkpoint_due=lambda: True, save_checkpoint=lambda s: saved.append(s.progress.step)
    )
    train_network(state, tiny, RECIPE, "f32", callbacks)
    assert saved == [1, 2, 3, 4] * 3
    assert same(state, whole)


def test_images_held_out_join_later_also_in_a_run_that_is_resumed(
    tiny: PreparedDataset, home: Home
) -> None:
    # A fifth of 24 images leaves 19, three steps of five; from the second epoch on there are four.
    recipe = replace(RECIPE, hold_out=0.2, hold_out_until=1)
    steps: list[int] = []
    straight, spec = fresh(tiny, recipe), RunSpec(tiny, recipe)
    callbacks = Callbacks(
        checkpoint_due=lambda: True, save_checkpoint=lambda s: steps.append(s.progress.step)
    )
    train_network(straight, tiny, recipe, "f32", callbacks)
    assert steps == [1, 2, 3, *[1, 2, 3, 4] * 2]
    run, polls = create_run(home, spec, "cifar"), iter(range(1, 1000))

    def stop() -> int:
        return signal.SIGTERM if next(polls) == 2 else 0

    quiet = Console(quiet=True)
    with report_run(run, spec, quiet, stop, 1e9) as callbacks, pytest.raises(StoppedError):
        train_network(fresh(tiny, recipe), tiny, recipe, "f32", callbacks)
    resumed = fresh(tiny, recipe)
    load_checkpoint(run, resumed, spec)
    train_network(resumed, tiny, recipe, "f32", Callbacks())
    assert same(resumed, straight)


def test_the_measurement_at_the_end_can_be_stopped_too(
    tiny: PreparedDataset, whole: TrainingState
) -> None:
    stopped = Callbacks(stop_signal=lambda: signal.SIGTERM)
    with pytest.raises(StoppedError) as told:
        measure_ten_crops(whole, RunSpec(tiny, RECIPE), "f32", Console(quiet=True), stopped)
    assert told.value.signal == signal.SIGTERM


def test_errors_are_counted_as_the_paper_does() -> None:
    scores = torch.tensor([[9.0, 8, 7, 6, 5, 4], [1, 2, 3, 4, 5, 6], [6, 5, 4, 3, 2, 1]])
    # The first is right; the second's class is its least probable; the third's is its second.
    wrong = count_errors(scores, torch.tensor([0, 0, 1]))
    assert wrong.tolist() == [2, 1]


def test_short_types_learn_too_with_weights_and_velocities_in_float32(
    tiny: PreparedDataset,
) -> None:
    config = RECIPE.network(len(tiny.class_names))
    batch = next(iter(Batches(tiny, RECIPE.augmentation(config), batch=12, seed=7)))
    keys = derive_image_keys(7, 1, batch.rows)
    precisions: tuple[Precision, ...] = ("f32", "bf16", "f16")
    losses: dict[Precision, list[float]] = {}
    states = {precision: fresh(tiny) for precision in precisions}
    for precision, state in states.items():
        losses[precision] = []
        for _ in range(4):
            losses[precision].append(compute_gradients(state, batch, keys, 12, precision).loss)
            state.sgd.step()
        assert losses[precision][-1] < losses[precision][0]
    assert losses["bf16"] == pytest.approx(losses["f32"], rel=0.02)
    assert losses["f16"] == pytest.approx(losses["f32"], rel=0.003)
    for state in states.values():
        for parameter in state.network.parameters():
            velocity = state.sgd.velocity(parameter)
            assert velocity is not None
            assert parameter.dtype == velocity.dtype == torch.float32


def only_run(home: Path) -> RunFolder:
    (folder,) = (home / "runs").iterdir()
    return RunFolder(folder)


def epochs_of(home: Path) -> list[dict[str, Any]]:
    return [result(json.loads(line)) for line in only_run(home).epochs.read_text().splitlines()]


def check_same_result(home: Path, other: Path) -> None:
    """Check that two homes hold the same weights to the bit, and the same epochs."""
    ours, theirs = (load_weights(h / "weights.safetensors") for h in (home, other))
    assert ours.identity == theirs.identity
    assert ours.provenance.ten_crop_top1_error == theirs.provenance.ten_crop_top1_error
    best, others_best = (load_weights(only_run(h).best).identity for h in (home, other))
    assert best == others_best
    assert epochs_of(home) == epochs_of(other)
    assert not list(home.rglob("*.part"))


@pytest.mark.slow
def test_a_run_killed_while_it_writes_resumes_to_the_same_bits(
    run_training: RunTraining,
    start_training: StartTraining,
    wait_for_file: Callable[..., Path],
    tmp_path: Path,
) -> None:
    killed, whole = tmp_path / "killed", tmp_path / "whole"
    run_training(whole, *SHORT)
    process = start_training(killed, *SHORT)
    wait_for_file(process, killed, f"runs/*/conv1/epoch-{random.randint(1, 2):03d}.png")
    process.kill()
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    assert not (killed / "weights.safetensors").exists()
    run_training(killed, "--resume", only_run(killed).path)
    check_same_result(killed, whole)


def test_a_checkpoint_that_cannot_be_written_leaves_the_last_one(
    run_training: RunTraining, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stopped, whole = tmp_path / "stopped", tmp_path / "whole"
    run_training(whole, *SHORT)
    sent = list[int]()

    def save_and_terminate(run: RunFolder | None, state: TrainingState, spec: RunSpec) -> None:
        save_checkpoint(run, state, spec)
        sent.append(signal.SIGTERM)

    with monkeypatch.context() as patch:
        stop = "training.train.catch_stop_signals"
        patch.setattr(stop, lambda: nullcontext(lambda: sent[0] if sent else 0))
        patch.setattr(reporting, "save_checkpoint", save_and_terminate)
        printed, _ = run_training(stopped, *SHORT, code=128 + signal.SIGTERM)
    run = only_run(stopped)
    assert f"--resume {run.path}" in printed
    before = run.checkpoint.read_bytes()
    # Files may not grow beyond this, as on a disk that is full.
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(before) * 3 // 4, limits[1]))
    try:
        _, errors = run_training(stopped, "--resume", run.path, code=2)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    (line,) = errors.splitlines()
    assert str(run.checkpoint) in line
    assert run.checkpoint.read_bytes() == before
    run_training(stopped, "--resume", run.path)
    check_same_result(stopped, whole)

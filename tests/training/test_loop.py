"""The loop: it learns, it repeats itself to the bit, and it can be cut in two anywhere."""

import json
import random
import resource
import signal
import subprocess
import time
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console

from model.checkpoint import load_weights
from model.counter_rng import derive_image_keys
from storage.home import Home
from storage.runs import Epoch
from training.callbacks import Callbacks, StoppedError
from training.checkpoints import load_checkpoint
from training.config import CIFAR
from training.data import Batches
from training.dataset.prepare import Prepared
from training.loop import backward_pass, train_network
from training.reporting import report_run
from training.run_folder import RunSpec, create_run
from training.state import TrainingState, init_state
from training.validate import count_errors, measure_ten_crops

CPU = torch.device("cpu")
RECIPE = replace(CIFAR, epochs=3, batch=5, seed=7)
STEPS, ASKED = 24 // 5, 24 // 5 + 1
"""Steps of an epoch, and how often a run asks in it whether to stop: also in validation."""
TINY = ["--variant", "cifar", "--batch", "5", "--epochs", "12", "--checkpoint-seconds", "0"]
Begin = Callable[..., subprocess.Popen[str]]
End = Callable[..., tuple[str, str]]


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(root=tmp_path / "home")


def fresh(data: Prepared) -> TrainingState:
    return init_state(RECIPE.network(len(data.names)), RECIPE, CPU)


@pytest.fixture(scope="module")
def whole(tiny: Prepared) -> TrainingState:
    """Three epochs without a break."""
    state = fresh(tiny)
    train_network(state, tiny, RECIPE, False, Callbacks())
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
    tiny: Prepared, whole: TrainingState
) -> None:
    state = fresh(tiny)

    def disturb(*_: object) -> None:
        torch.manual_seed(random.randrange(1000))

    train_network(state, tiny, RECIPE, False, Callbacks(on_step=disturb))
    assert same(state, whole)


@pytest.mark.parametrize("asked", range(1, 3 * ASKED + 1))
def test_a_run_cut_off_at_any_moment_goes_on_to_the_same_bits(
    tiny: Prepared, whole: TrainingState, home: Home, asked: int
) -> None:
    told = RunSpec(tiny, RECIPE)
    run = create_run(home, told, "cifar")
    moments = iter(range(1, 10_000))
    quiet = Console(quiet=True)

    def stop() -> int:
        return signal.SIGTERM if next(moments) == asked else 0

    with report_run(run, told, quiet, stop, 1e9) as reports, pytest.raises(StoppedError):
        train_network(fresh(tiny), tiny, RECIPE, False, reports)
    torch.manual_seed(12345)  # another process has another state
    resumed = fresh(tiny)
    load_checkpoint(run, resumed, told)
    epoch, moment = divmod(asked - 1, ASKED)
    assert len(resumed.history) == epoch
    assert resumed.progress.step == min(moment + 1, STEPS)
    with report_run(run, told, quiet, lambda: 0, 1e9) as reports:
        train_network(resumed, tiny, RECIPE, False, reports)
    assert same(resumed, whole)
    lines = [json.loads(line) for line in run.epochs.read_text().splitlines()]
    assert [result(line) for line in lines] == [result(epoch) for epoch in whole.history]


def test_checkpoints_change_nothing(tiny: Prepared, whole: TrainingState) -> None:
    saved: list[int] = []
    state = fresh(tiny)
    reports = Callbacks(
        checkpoint_due=lambda: True, save_checkpoint=lambda s: saved.append(s.progress.step)
    )
    train_network(state, tiny, RECIPE, False, reports)
    assert saved == [1, 2, 3, 4] * 3
    assert same(state, whole)


def test_the_measurement_at_the_end_can_be_stopped_too(
    tiny: Prepared, whole: TrainingState
) -> None:
    stopped = Callbacks(stop_signal=lambda: signal.SIGTERM)
    with pytest.raises(StoppedError) as told:
        measure_ten_crops(whole, RunSpec(tiny, RECIPE), False, Console(quiet=True), stopped)
    assert told.value.signal == signal.SIGTERM


def test_errors_are_counted_as_the_paper_does() -> None:
    scores = torch.tensor([[9.0, 8, 7, 6, 5, 4], [1, 2, 3, 4, 5, 6], [6, 5, 4, 3, 2, 1]])
    # The first is right; the second's class is its least probable; the third's is its second.
    wrong = count_errors(scores, torch.tensor([0, 0, 1]))
    assert wrong.tolist() == [2, 1]


def test_bf16_learns_too_with_weights_and_velocities_in_float32(tiny: Prepared) -> None:
    config = RECIPE.network(len(tiny.names))
    batch = next(iter(Batches(tiny, RECIPE.augmentation(config), batch=12, seed=7)))
    keys = derive_image_keys(7, 1, batch.rows)
    losses = {}
    states = {bf16: fresh(tiny) for bf16 in (False, True)}
    for bf16, state in states.items():
        losses[bf16] = []
        for _ in range(12):
            losses[bf16].append(backward_pass(state, batch, keys, 12, bf16))
            state.sgd.step()
        assert losses[bf16][-1] < losses[bf16][0]
    assert losses[True] == pytest.approx(losses[False], rel=0.02)
    for parameter in states[True].network.parameters():
        velocity = states[True].sgd.velocity(parameter)
        assert velocity is not None
        assert parameter.dtype == velocity.dtype == torch.float32


@pytest.fixture(scope="module")
def uninterrupted(begin: Begin, end: End, tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("uninterrupted")
    end(begin(home, *TINY))
    return home


def run_in(home: Path) -> Path:
    (folder,) = (home / "runs").iterdir()
    return folder


def epochs_of(home: Path) -> list[dict[str, Any]]:
    lines = (run_in(home) / "epochs.jsonl").read_text().splitlines()
    return [result(json.loads(line)) for line in lines]


def wait_for_checkpoint(home: Path, process: subprocess.Popen[str]) -> None:
    while not list(home.glob("runs/*/checkpoint.safetensors")):
        assert process.poll() is None, process.communicate()
        time.sleep(0.01)


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL])
def test_a_process_stopped_at_a_random_moment_goes_on_to_the_same_bits(
    begin: Begin, end: End, uninterrupted: Path, tmp_path: Path, number: signal.Signals
) -> None:
    process = begin(tmp_path, *TINY)
    wait_for_checkpoint(tmp_path, process)
    time.sleep(random.uniform(0, 1))
    process.send_signal(number)
    if number == signal.SIGKILL:
        process.communicate()
        assert process.returncode == -signal.SIGKILL
    else:
        said, errors = end(process, 128 + number)
        assert errors.splitlines() == ["training/run.py: interrupted"]
        assert f"Saved. To resume: python training/run.py --resume {run_in(tmp_path)}" in said
        assert not list(tmp_path.rglob("*.part"))
    assert not (tmp_path / "weights.safetensors").exists()
    said, _ = end(begin(tmp_path, "--resume", run_in(tmp_path)))
    assert f"Resuming {run_in(tmp_path).name} after epoch" in said
    ours, theirs = (load_weights(h / "weights.safetensors") for h in (tmp_path, uninterrupted))
    assert ours.identity == theirs.identity
    assert ours.provenance.ten_crop_top1_error == theirs.provenance.ten_crop_top1_error
    best = [
        load_weights(run_in(h) / "best.safetensors").identity for h in (tmp_path, uninterrupted)
    ]
    assert best[0] == best[1]
    assert epochs_of(tmp_path) == epochs_of(uninterrupted)
    assert not list(tmp_path.rglob("*.part"))


@pytest.mark.slow
def test_a_checkpoint_that_cannot_be_written_leaves_the_last_one(
    begin: Begin, end: End, uninterrupted: Path, tmp_path: Path
) -> None:
    process = begin(tmp_path, *TINY)
    wait_for_checkpoint(tmp_path, process)
    process.send_signal(signal.SIGTERM)
    end(process, 143)
    checkpoint = run_in(tmp_path) / "checkpoint.safetensors"
    before = checkpoint.read_bytes()
    process = begin(tmp_path, "--resume", run_in(tmp_path))
    # What a file may have from now on, as on a disk that has no more room.
    most = len(before) * 3 // 4
    resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (most, most))
    _, errors = end(process, 2)
    (line,) = errors.splitlines()
    assert line.startswith(f"training/run.py: cannot write {checkpoint}: ")
    assert checkpoint.read_bytes() == before
    assert not list(tmp_path.rglob("*.part"))
    end(begin(tmp_path, "--resume", run_in(tmp_path)))
    ours, theirs = (load_weights(h / "weights.safetensors") for h in (tmp_path, uninterrupted))
    assert ours.identity == theirs.identity

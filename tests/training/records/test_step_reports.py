"""What a run says every few seconds, against the weights and numbers that it is about."""

import io
import json
import math
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from rich.console import Console
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator  # type: ignore[import-untyped]

from storage.home import Home
from storage.runs import RunFolder
from training.batches.batches import Batches, load_validation_crops
from training.dataset.prepare import PreparedDataset
from training.optimisation.loop import train_network
from training.optimisation.norms import Norms
from training.optimisation.state import TrainingState, init_state
from training.recipe.config import CIFAR
from training.records import step_reports
from training.records.callbacks import Callbacks
from training.records.reporting import report_run
from training.records.run_folder import RunSpec, create_run
from training.records.step_reports import estimate_remaining, format_time_left

RECIPE = replace(CIFAR, variant="cifar-80sec", epochs=2, batch=6, hold_out=0.0, drop_after=(1,))
STEPS = 4


def fresh(data: PreparedDataset) -> TrainingState:
    return init_state(RECIPE.network(len(data.class_names)), RECIPE, torch.device("cpu"))


@pytest.fixture(scope="module")
def run(tiny: PreparedDataset, tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    """Two epochs with a line for every step."""
    spec = RunSpec(tiny, RECIPE)
    run = create_run(Home(root=tmp_path_factory.mktemp("home")), spec, "cifar")
    with report_run(run, spec, Console(quiet=True), lambda: 0, 1e9, report_seconds=0) as callbacks:
        train_network(fresh(tiny), tiny, RECIPE, "f32", callbacks)
    return run


def test_there_is_a_line_for_every_report(run: RunFolder) -> None:
    lines = [json.loads(line) for line in run.steps.read_text().splitlines()]
    assert [(line["epoch"], line["step"], line["steps"]) for line in lines] == [
        (epoch, step, STEPS) for epoch in (1, 2) for step in (1, 2, 3, 4)
    ]
    epochs = [json.loads(line) for line in run.epochs.read_text().splitlines()]
    for number, epoch in enumerate(epochs):
        own = lines[STEPS * number :][:STEPS]
        assert sum(line["loss"] for line in own) / STEPS == pytest.approx(epoch["loss"])
        assert sum(line["data_wait"] for line in own) == pytest.approx(epoch["data_wait"])
        assert own[-1]["images"] == 24
    assert lines[0]["rates"]["conv"] == pytest.approx(0.001)
    assert lines[-1]["rates"]["conv"] == pytest.approx(0.0001)
    assert all(line["images_per_second"] > 0 for line in lines)
    remaining = [line["remaining"] for line in lines]
    assert remaining[0] > remaining[3] >= 0


def test_tensorboard_has_the_steps_beside_the_epochs(run: RunFolder) -> None:
    events = EventAccumulator(str(run.tensorboard / "steps"))
    events.Reload()
    lines = [json.loads(line) for line in run.steps.read_text().splitlines()]
    found = events.Scalars("step/loss")
    assert [event.step for event in found] == list(range(1, 2 * STEPS + 1))
    assert [event.value for event in found] == pytest.approx([line["loss"] for line in lines])
    tags = set(events.Tags()["scalars"])
    assert {"gradient norm/conv1", "update norm/fc10", "rate/conv"} <= tags


def test_the_norms_are_those_of_gradients_and_of_what_the_weights_moved(
    tiny: PreparedDataset,
) -> None:
    state, seen = fresh(tiny), list[Norms]()
    before = {name: p.detach().clone() for name, p in state.network.named_parameters()}
    gradients: dict[str, float] = {}

    def check(state: TrainingState, _steps: int, _images: int, norms: Norms) -> None:
        seen.append(norms)
        for layer in norms.updates:
            names = [f"{layer}.weight", f"{layer}.bias"]
            parameters = [state.network.get_parameter(name) for name in names]
            moved = [p.detach() - before[n] for p, n in zip(parameters, names, strict=True)]
            expected = math.sqrt(sum(float((m.double() ** 2).sum()) for m in moved))
            assert norms.updates[layer] == pytest.approx(expected, rel=1e-3)
            gradients[layer] = math.sqrt(
                sum(float((p.grad.double() ** 2).sum()) for p in parameters if p.grad is not None)
            )
            assert norms.gradients[layer] == pytest.approx(gradients[layer], rel=1e-5)

    due: Iterator[bool] = iter([True] + [False] * 100)
    callbacks = Callbacks(report_due=lambda: next(due), on_report=check)
    train_network(state, tiny, replace(RECIPE, epochs=1), "f32", callbacks)
    assert len(seen) == 1
    assert set(gradients) == {"conv1", "conv2", "conv3", "fc64", "fc10"}


def test_each_epoch_has_its_training_error_and_validation_loss(
    tiny: PreparedDataset, run: RunFolder
) -> None:
    """By hand, of a network that does not learn and sees every image as it is."""
    recipe = replace(RECIPE, epochs=1, rate=1e-30, bias_rate=1e-30, decay=0.0)
    state = init_state(recipe.network(3), recipe, torch.device("cpu"))
    train_network(state, tiny, recipe, "f32", Callbacks())
    (epoch,) = state.history
    augmentation = recipe.augmentation(state.network.config)
    state.network.eval()
    with torch.inference_mode():
        batches = list(Batches(tiny, augmentation, batch=6, seed=recipe.seed))
        wrong = sum(int((state.network(b.x).logits.argmax(1) != b.classes).sum()) for b in batches)
        (whole,) = load_validation_crops(tiny, augmentation)
        logits = state.network(whole.x).logits
        losses = -logits.log_softmax(1)[torch.arange(len(whole.classes)), whole.classes]
    assert epoch.training_top1_error == wrong / 24
    assert epoch.validation_loss == pytest.approx(float(losses.mean()), rel=1e-5)


def test_a_checkpoint_does_not_count_as_waiting(
    tiny: PreparedDataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By a clock that only the network and the saving of checkpoints move."""
    clock = [0.0]
    monkeypatch.setattr("training.optimisation.loop.time.perf_counter", lambda: clock[0])

    def pass_time(seconds: float) -> None:
        clock[0] += seconds

    state = fresh(tiny)
    state.network.register_forward_hook(lambda *_: pass_time(1))
    callbacks = Callbacks(checkpoint_due=lambda: True, save_checkpoint=lambda _: pass_time(100))
    train_network(state, tiny, replace(RECIPE, epochs=1), "f32", callbacks)
    (epoch,) = state.history
    assert epoch.data_wait == 0
    # Four steps and one batch of validation.
    assert epoch.seconds == STEPS + 1
    assert epoch.images_per_second == 24 / STEPS


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (5.4, "5 s left"),
        (61, "1 min left"),
        (3 * 3600 + 120, "3 h 2 min left"),
        (5.13 * 86400, "5 d 3 h left"),
    ],
)
def test_the_time_left_has_two_units(seconds: float, text: str) -> None:
    assert format_time_left(seconds) == text


def test_the_time_left_follows_from_the_epochs_so_far(tiny: PreparedDataset) -> None:
    state = fresh(tiny)
    assert estimate_remaining(state, 10, 50) is None
    state.progress.step, state.progress.seconds = 5, 10.0
    assert estimate_remaining(state, 10, 50) == pytest.approx(10 * 100 - 10)
    train_network(state, tiny, replace(RECIPE, epochs=1), "f32", Callbacks())
    state.history[:] = [replace(state.history[0], seconds=100.0)] * 4
    state.progress.seconds = 30.0
    assert estimate_remaining(state, 10, 50) == pytest.approx(6 * 100 - 30)


def test_a_log_file_gets_a_line_now_and_then(
    tiny: PreparedDataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(step_reports, "LOG_SECONDS", 0.0)
    spec = RunSpec(tiny, replace(RECIPE, epochs=1))
    run = create_run(Home(root=tmp_path), spec, "cifar")
    console = Console(file=io.StringIO(), width=200)
    with report_run(run, spec, console, lambda: 0, 1e9, report_seconds=0) as callbacks:
        train_network(fresh(tiny), tiny, spec.recipe, "f32", callbacks)
    assert isinstance(console.file, io.StringIO)
    lines = console.file.getvalue().splitlines()
    assert len(lines) == STEPS + 1
    assert lines[1].startswith("epoch   1/1  step 2/4  loss ")
    assert lines[1].endswith(" left")


RunTraining = Callable[..., tuple[str, str]]


def test_some_steps_are_profiled(run_training: RunTraining, tmp_path: Path) -> None:
    words = ("--variant", "cifar-80sec", "--batch", "4", "--epochs", "1", "--no-ten-crops")
    run_training(tmp_path, *words, "--profile", "2")
    (file,) = tmp_path.glob("runs/*/profile.json")
    names = {event.get("name") for event in json.loads(file.read_text())["traceEvents"]}
    assert "aten::convolution" in names

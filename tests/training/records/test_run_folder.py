"""What a run leaves on the disk, read back by what others read it with."""

import json
import platform
import shutil
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from rich.console import Console
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator  # type: ignore[import-untyped]
from torch import Tensor

from model.visualization.kernels import compute_low_frequency_share
from model.weights.checkpoint import Pca, load_weights, read_tensors, write_tensors
from storage.home import Home
from storage.runs import RunFolder
from training.dataset.prepare import PreparedDataset
from training.optimisation.loop import train_network
from training.optimisation.state import TrainingState, init_state
from training.recipe.config import CIFAR, Recipe, RecipeError
from training.records.callbacks import Callbacks, StoppedError
from training.records.checkpoints import load_checkpoint, save_checkpoint
from training.records.reporting import report_run, write_environment
from training.records.run_folder import (
    RunError,
    RunSpec,
    create_run,
    find_runs,
    finish_run,
    read_recipe,
)

CPU = torch.device("cpu")
RECIPE = replace(CIFAR, hold_out=0.0, variant="cifar", epochs=6, batch=5, seed=7, rate=0.003)
QUIET = Console(quiet=True)


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(root=tmp_path / "home")


def fresh(data: PreparedDataset, recipe: Recipe = RECIPE) -> TrainingState:
    return init_state(recipe.network(len(data.class_names)), recipe, CPU)


def copied(state: TrainingState) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in state.network.state_dict().items()}


def recorded(
    run: RunFolder, told: RunSpec, state: TrainingState, stop: Callable[[], int] = lambda: 0
) -> list[dict[str, Tensor]]:
    """Train with the records on; give the weights after each epoch."""
    kept: list[dict[str, Tensor]] = []
    with report_run(run, told, QUIET, stop, 1e9) as reports:

        def epochs(state: TrainingState) -> None:
            reports.on_epoch(state)
            kept.append(copied(state))

        train_network(state, told.data, told.recipe, "f32", replace(reports, on_epoch=epochs))
    return kept


def backdate_events(run: RunFolder) -> None:
    """Make the event files a minute older, as if the run were resumed later.

    TensorBoard reads them by name, which holds the second in which each was started.
    """
    for file in list(run.tensorboard.rglob("events.*")):
        second = file.name.split(".")[3]
        file.rename(file.with_name(file.name.replace(second, f"{int(second) - 60:010}", 1)))


@pytest.fixture(scope="module")
def done(
    tiny: PreparedDataset, tmp_path_factory: pytest.TempPathFactory
) -> tuple[RunFolder, TrainingState, list[dict[str, Tensor]]]:
    """Six epochs, cut off in the fourth and gone on with."""
    told = RunSpec(tiny, RECIPE)
    run = create_run(Home(root=tmp_path_factory.mktemp("home")), told, "cifar")
    asked = iter(range(1, 1000))
    kept: list[dict[str, Tensor]] = []
    with pytest.raises(StoppedError):
        kept += recorded(run, told, fresh(tiny), lambda: 15 * (next(asked) == 3 * 5 + 2))
    state = fresh(tiny)
    load_checkpoint(run, state, told)
    run.write_epochs(state.history)
    assert len(state.history) == 3
    backdate_events(run)
    return run, state, recorded(run, told, state)


Done = tuple[RunFolder, TrainingState, list[dict[str, Tensor]]]


def test_there_is_a_line_for_every_epoch(done: Done) -> None:
    run, state, _ = done
    lines = [json.loads(line) for line in run.epochs.read_text().splitlines()]
    assert lines == [asdict(epoch) for epoch in state.history]
    assert [line["epoch"] for line in lines] == [1, 2, 3, 4, 5, 6]
    keys = {"loss", "top1_error", "top5_error", "rate", "images_per_second", "data_wait", "seconds"}
    assert keys | {"memory"} <= lines[0].keys()
    # This process holds torch, some hundred megabytes at least.
    assert all(0.1 < line["memory"] < 64 for line in lines)
    assert all(line["data_wait"] <= line["seconds"] for line in lines)


def test_tensorboard_reads_every_epoch_once_also_after_a_resume(done: Done) -> None:
    run, state, _ = done
    events = EventAccumulator(str(run.path / "tensorboard"))
    events.Reload()
    expected = {
        "loss/training": [e.loss for e in state.history],
        "error/top-1": [e.top1_error for e in state.history],
        "error/top-5": [e.top5_error for e in state.history],
        "rate": [e.rate for e in state.history],
    }
    for tag, values in expected.items():
        found = events.Scalars(tag)
        assert [event.step for event in found] == [1, 2, 3, 4, 5, 6], tag
        assert [event.value for event in found] == pytest.approx(values)
    assert {"speed/images a second", "speed/seconds waited for data", "memory/GiB"} <= set(
        events.Tags()["scalars"]
    )
    assert events.Tags()["images"] == ["conv1"]


def test_a_process_writes_one_event_file_however_short_its_epochs_are(done: Done) -> None:
    """TensorBoard would read several that were started within a second in another order."""
    run, _, _ = done
    for folder in (run.tensorboard, run.tensorboard / "steps"):
        files = [path for path in folder.iterdir() if path.is_file()]
        assert len(files) == 2  # before and after the resume


def test_epochs_that_were_lost_with_a_killed_process_are_shown_once(
    tiny: PreparedDataset, home: Home
) -> None:
    """Killed in epoch 3 with a checkpoint of epoch 1: epoch 2 is made, and written, twice."""
    told = RunSpec(tiny, replace(RECIPE, epochs=3))
    run = create_run(home, told, "cifar")

    class KilledError(Exception):
        pass

    with report_run(run, told, QUIET, lambda: 0, 1e9) as reports:

        def epochs(state: TrainingState) -> None:
            reports.on_epoch(state)
            if len(state.history) == 1:
                save_checkpoint(run, state, told)
            if len(state.history) == 2:
                raise KilledError

        with pytest.raises(KilledError):
            train_network(fresh(tiny), tiny, told.recipe, "f32", replace(reports, on_epoch=epochs))
    state = fresh(tiny)
    load_checkpoint(run, state, told)
    run.write_epochs(state.history)
    backdate_events(run)
    recorded(run, told, state)
    lines = [json.loads(line)["epoch"] for line in run.epochs.read_text().splitlines()]
    assert lines == [1, 2, 3]
    events = EventAccumulator(str(run.path / "tensorboard"))
    events.Reload()
    assert [event.step for event in events.Scalars("loss/training")] == [1, 2, 3]


def test_conv1_is_pictured_after_every_epoch(done: Done) -> None:
    run, _, _ = done
    names = [f"epoch-{n:03d}.png" for n in range(1, 7)]
    assert sorted(path.name for path in (run.path / "conv1").iterdir()) == names
    first, last = (np.array(Image.open(run.path / "conv1" / names[i])) for i in (0, -1))
    # 64 kernels of 5×5 of a net of one GPU: eight rows of eight, each weight 4 pixels wide.
    side = 8 * (5 * 4 + 4) - 4
    assert first.shape == (side, side, 3)
    assert (first != last).any()


def test_the_best_weights_are_those_of_the_epoch_with_the_lowest_error(done: Done) -> None:
    run, state, kept = done
    errors = [epoch.top1_error for epoch in state.history]
    lowest = [i for i, error in enumerate(errors) if error == min(errors)]
    best = load_weights(run.best)
    assert best.provenance.top1_error == min(errors)
    number = best.provenance.epochs - 1
    assert number in lowest
    if number >= 3:  # those of the part after the resume were kept
        for name, tensor in kept[number - 3].items():
            assert torch.equal(best.state[name], tensor)


def test_the_best_are_kept_when_later_epochs_are_worse(tiny: PreparedDataset, home: Home) -> None:
    told = RunSpec(tiny, replace(RECIPE, epochs=7, rate=0.006))
    run, state = (
        create_run(home, told, "cifar"),
        fresh(tiny, replace(RECIPE, epochs=7, rate=0.006)),
    )
    kept = recorded(run, told, state)
    errors = [epoch.top1_error for epoch in state.history]
    best = load_weights(run.best)
    number = best.provenance.epochs - 1
    assert errors[number] == min(errors) == best.provenance.top1_error
    for name, tensor in kept[number].items():
        assert torch.equal(best.state[name], tensor), name


def test_finishing_writes_the_weights_and_makes_them_the_current_ones(
    tiny: PreparedDataset, home: Home
) -> None:
    recipe = replace(RECIPE, epochs=1)
    told, state = RunSpec(tiny, recipe), fresh(tiny, recipe)
    run = create_run(home, told, "cifar")
    train_network(state, tiny, recipe, "f32", Callbacks())
    save_checkpoint(run, state, told)
    made = finish_run(run, home, state, told, state.network.state_dict(), (0.25, 0.0))
    assert home.weights.is_symlink()
    assert home.weights.resolve() == run.weights.resolve()
    # The last checkpoint stays, so that the run can be extended.
    assert run.list_checkpoints() == [run.checkpoint]
    read = load_weights(home.weights)
    assert read.identity == made.identity == run.read_description()["weights"]
    assert (read.provenance.epochs, read.provenance.images) == (1, 24)
    assert read.provenance.preset == "cifar"
    assert read.provenance.top1_error == state.history[-1].top1_error
    assert read.provenance.ten_crop_top1_error == 0.25
    assert [c.label for c in read.classes] == [c.label for c in tiny.class_names]
    torch.testing.assert_close(read.mean, tiny.mean)
    assert isinstance(read.pca, Pca)
    x = torch.randn(2, 3, 32, 32)
    with torch.inference_mode():
        theirs = state.network.eval()(x).logits
        torch.testing.assert_close(read.build_network()(x).logits, theirs, rtol=1e-4, atol=1e-5)
    assert run.read_description()["finished"] is True
    assert [r.path for r in find_runs(home, told)] == [run.path]
    assert list(find_runs(home, RunSpec(tiny, replace(recipe, seed=8)))) == []
    # Where the machine computes in another precision, it is the same run all the same.
    assert list(find_runs(home, RunSpec(tiny, recipe, precision="bf16"))) == [run]


def test_the_configuration_comes_back_as_it_was_told(tiny: PreparedDataset, home: Home) -> None:
    recipe = replace(RECIPE, drop_after=(2, 4), bias_rate=0.002, colour_until=3)
    run = create_run(home, RunSpec(tiny, recipe), "cifar")
    assert read_recipe(RunFolder(run.path)) == recipe
    described = json.loads((run.path / "run.json").read_text())
    assert described["data"] == str(tiny.root)
    assert described["content"] == tiny.key
    assert described["finished"] is False


def test_the_environment_is_this_one(tiny: PreparedDataset, home: Home) -> None:
    run = create_run(home, RunSpec(tiny, RECIPE), "cifar")
    write_environment(run, CPU, "bf16", 4)
    found = json.loads((run.path / "environment.json").read_text())
    assert found["versions"]["torch"] == torch.__version__.partition("+")[0]
    assert found["python"] == platform.python_version()
    assert (found["device"], found["precision"], found["processes"]) == ("cpu", "bf16", 4)
    assert found["threads"] == torch.get_num_threads()


def test_each_epoch_records_how_far_conv1_is_from_noise(tiny: PreparedDataset, home: Home) -> None:
    recipe = replace(RECIPE, epochs=2)
    told = RunSpec(tiny, recipe)
    run, state = create_run(home, told, "cifar"), fresh(tiny, recipe)
    kept = recorded(run, told, state)
    lines = [json.loads(line) for line in run.epochs.read_text().splitlines()]
    for line, weights in zip(lines, kept, strict=True):
        share = compute_low_frequency_share(weights["conv1.weight"])
        assert line["conv1_low_frequency"] == pytest.approx(share)
    assert [epoch.conv1_low_frequency for epoch in state.history] == [
        line["conv1_low_frequency"] for line in lines
    ]


def test_two_runs_begun_in_the_same_second_have_folders_of_their_own(
    tiny: PreparedDataset, home: Home
) -> None:
    told = RunSpec(tiny, RECIPE)
    folders = {create_run(home, told, "cifar").path for _ in range(3)}
    assert len(folders) == 3


def test_a_checkpoint_of_another_recipe_is_refused_by_the_fields_name(
    tiny: PreparedDataset, home: Home
) -> None:
    told, state = RunSpec(tiny, RECIPE), fresh(tiny)
    run = create_run(home, told, "cifar")
    save_checkpoint(run, state, told)
    other = replace(RECIPE, rate=0.001, momentum=0.5)
    resumed = fresh(tiny, other)
    with pytest.raises(RunError, match="rate was") as refused:
        load_checkpoint(run, resumed, RunSpec(tiny, other))
    assert "rate was 0.003, is 0.001" in str(refused.value)
    assert "momentum was 0.9, is 0.5" in str(refused.value)
    assert "--accept rate momentum" in str(refused.value)
    with pytest.raises(RunError, match="momentum was") as refused:
        load_checkpoint(run, resumed, RunSpec(tiny, other), accept=["rate"])
    assert "rate was" not in str(refused.value)
    load_checkpoint(run, resumed, RunSpec(tiny, other), accept=["rate", "momentum"])
    assert resumed.sgd.rates == state.sgd.rates  # until the next epoch begins


NEW_FIELDS = ("schedule", "warmup", "smoothing", "crops", "smallest_area", "fixed_order")


def test_a_run_older_than_a_field_of_the_recipe_is_resumed_with_the_papers_value(
    tiny: PreparedDataset, home: Home
) -> None:
    spec, state = RunSpec(tiny, RECIPE), fresh(tiny)
    run = create_run(home, spec, "cifar")
    save_checkpoint(run, state, spec)
    # As the project wrote both files before these fields existed.
    recipe = {k: v for k, v in spec.to_json()["recipe"].items() if k not in NEW_FIELDS}
    run.update_description(recipe=recipe)
    header, tensors = read_tensors(run.checkpoint)
    del header["checksum"]
    header["told"] = json.dumps(spec.to_json() | {"recipe": recipe})
    write_tensors(tensors, run.checkpoint, header)
    assert read_recipe(run) == RECIPE
    load_checkpoint(run, fresh(tiny), spec)
    other = replace(RECIPE, schedule="cosine")
    with pytest.raises(RunError, match="schedule was plateau, is cosine"):
        load_checkpoint(run, fresh(tiny), RunSpec(tiny, other))


def test_other_data_weights_and_precision_are_named_too(tiny: PreparedDataset, home: Home) -> None:
    told, state = RunSpec(tiny, RECIPE), fresh(tiny)
    run = create_run(home, told, "cifar")
    save_checkpoint(run, state, told)
    moved = replace(tiny, key="other", root=Path("/there"))
    changed = RunSpec(moved, RECIPE, initial_weights="abc", precision="bf16")
    with pytest.raises(RunError) as refused:
        load_checkpoint(run, fresh(tiny), changed)
    for name in ("content was", "from was None, is abc", "precision was f32, is bf16"):
        assert name in str(refused.value)
    load_checkpoint(run, fresh(tiny), changed, ["content", "from", "precision"])


def test_photographs_that_moved_are_the_same(tiny: PreparedDataset, home: Home) -> None:
    spec = RunSpec(tiny, RECIPE)
    run = create_run(home, spec, "cifar")
    save_checkpoint(run, fresh(tiny), spec)
    moved = RunSpec(replace(tiny, root=Path("/there")), RECIPE)
    load_checkpoint(run, fresh(tiny), moved)
    assert [found.path for found in find_runs(home, moved)] == [run.path]


def test_what_is_accepted_must_be_known(tiny: PreparedDataset, home: Home) -> None:
    told, state = RunSpec(tiny, RECIPE), fresh(tiny)
    run = create_run(home, told, "cifar")
    save_checkpoint(run, state, told)
    with pytest.raises(RunError, match="--accept does not know raet"):
        load_checkpoint(run, state, told, ["raet"])


@pytest.mark.parametrize("damage", ["missing", "truncated", "not a checkpoint", "weights", "empty"])
def test_a_damaged_checkpoint_is_refused(tiny: PreparedDataset, home: Home, damage: str) -> None:
    told, state = RunSpec(tiny, RECIPE), fresh(tiny)
    run = create_run(home, told, "cifar")
    if damage != "missing":
        save_checkpoint(run, state, told)
    if damage == "truncated":
        with run.checkpoint.open("r+b") as file:
            file.truncate(1000)
    if damage == "not a checkpoint":
        run.checkpoint.write_bytes(b"{}" * 100)
    if damage == "weights":  # a file of safetensors, but another
        train_network(state, tiny, replace(RECIPE, epochs=1), "f32", Callbacks())
        finish_run(run, home, state, told, state.network.state_dict(), (0, 0))
        run.weights.rename(run.checkpoint)
    if damage == "empty":
        run.checkpoint.write_bytes(b"")
    with pytest.raises(RunError, match="cannot be resumed"):
        load_checkpoint(run, fresh(tiny), told)


@pytest.mark.parametrize("content", [None, "", "[]", "{}", '{"recipe": {"rate": -1}}', "\x00"])
def test_a_folder_that_is_no_runs_is_refused(tmp_path: Path, content: str | None) -> None:
    if content is not None:
        (tmp_path / "run.json").write_text(content)
    with pytest.raises(RunError, match="not the folder of a run") as refused:
        read_recipe(RunFolder(tmp_path))
    assert not isinstance(refused.value, RecipeError)


def test_a_full_disk_leaves_the_last_checkpoint(
    tiny: PreparedDataset, small_disk: Callable[[str], AbstractContextManager[Path]]
) -> None:
    state, told = fresh(tiny), RunSpec(tiny, RECIPE)
    with small_disk("60m") as place:
        run = create_run(Home(root=place), told, "cifar")
        save_checkpoint(run, state, told)
        before = run.checkpoint.read_bytes()
        free = shutil.disk_usage(place).free
        (place / "other people's").write_bytes(bytes(free - len(before) // 2))
        with pytest.raises(OSError, match=f"cannot write {run.checkpoint}: .*No space") as said:
            save_checkpoint(run, state, told)
        # What it needs, what there is, and how to go on.
        assert f"needs {len(before) / 1e9:.2f} GB" in str(said.value)
        assert f"--resume {run.path}" in str(said.value)
        assert run.checkpoint.read_bytes() == before
        assert not list(place.rglob("*.part"))
        load_checkpoint(run, fresh(tiny), told)

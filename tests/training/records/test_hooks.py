"""Weights & Biases and MLflow get a run's numbers, and cannot end it.

Neither is installed for the tests: modules with their interface stand in for them.
"""

import sys
from collections.abc import Callable
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from storage.runs import RunFolder
from training.recipe.config import RecipeError
from training.records.hooks import check_trackers, open_hooks

WORDS = ("--variant", "cifar-80sec", "--batch", "12", "--epochs", "2", "--no-ten-crops")
RunTraining = Callable[..., tuple[str, str]]
Calls = list[tuple[str, Any]]


def make_module(monkeypatch: pytest.MonkeyPatch, name: str, **members: Any) -> None:
    module = ModuleType(name)
    module.__spec__ = ModuleSpec(name, None)
    for member, value in members.items():
        setattr(module, member, value)
    monkeypatch.setitem(sys.modules, name, module)


@pytest.fixture
def wandb(monkeypatch: pytest.MonkeyPatch) -> Calls:
    """wandb's interface; the calls that it got."""
    calls: Calls = []
    run = SimpleNamespace(
        log=lambda values, step: calls.append(("log", (step, values))),
        finish=lambda: calls.append(("finish", None)),
    )

    def init(**settings: Any) -> SimpleNamespace:
        calls.append(("init", settings))
        return run

    make_module(monkeypatch, "wandb", init=init, Image=lambda picture: picture.size)
    return calls


@pytest.fixture
def mlflow(monkeypatch: pytest.MonkeyPatch) -> Calls:
    """mlflow's interface; the calls that it got."""
    calls: Calls = []

    def start_run(run_id: str | None, run_name: str) -> SimpleNamespace:
        calls.append(("start_run", (run_id, run_name)))
        return SimpleNamespace(info=SimpleNamespace(run_id=run_id or "abc"))

    make_module(
        monkeypatch,
        "mlflow",
        start_run=start_run,
        set_experiment=lambda name: calls.append(("set_experiment", name)),
        log_params=lambda values: calls.append(("log_params", values)),
        log_metrics=lambda values, step: calls.append(("log_metrics", (step, values))),
        log_image=lambda _picture, name: calls.append(("log_image", name)),
        end_run=lambda: calls.append(("end_run", None)),
    )
    return calls


def only_run(home: Path) -> RunFolder:
    (folder,) = (home / "runs").iterdir()
    return RunFolder(folder)


def test_wandb_gets_steps_epochs_and_pictures(
    wandb: Calls, run_training: RunTraining, tmp_path: Path
) -> None:
    run_training(tmp_path, *WORDS, "--log", "wandb", "--report-seconds", "0")
    run = only_run(tmp_path)
    (_, settings), *logged, (last, _) = wandb
    assert settings["name"] == settings["id"] == run.path.name
    assert settings["config"]["recipe"]["batch"] == 12
    assert last == "finish"
    # Two steps an epoch, each before its epoch's numbers, at numbers that never fall.
    assert [step for _, (step, _) in logged] == [1, 2, 2, 3, 4, 4]
    epoch = logged[2][1][1]
    assert {"loss/training", "error/top-1", "loss/validation", "conv1"} <= epoch.keys()
    assert epoch["epoch"] == 1
    assert "gradient norm/conv1" in logged[0][1][1]


def test_mlflow_gets_them_and_a_resumed_run_goes_on(
    mlflow: Calls, run_training: RunTraining, tmp_path: Path
) -> None:
    run_training(tmp_path, *WORDS, "--log", "mlflow", "--report-seconds", "0")
    run = only_run(tmp_path)
    assert [name for name, _ in mlflow[:3]] == ["set_experiment", "start_run", "log_params"]
    assert mlflow[1][1] == (None, run.path.name)
    metrics = [value for name, value in mlflow if name == "log_metrics"]
    epochs = [step for step, values in metrics if "error/top-1" in values]
    assert epochs == [1, 2]
    assert ("log_image", "conv1/epoch-002.png") in mlflow
    mlflow.clear()
    # The flag is remembered with the run.
    run_training(tmp_path, "--resume", run.path, "--epochs", "3")
    assert mlflow[1] == ("start_run", ("abc", run.path.name))
    assert "log_params" not in dict(mlflow)


def test_a_tracker_that_fails_is_left_out_and_the_run_goes_on(
    wandb: Calls, run_training: RunTraining, tmp_path: Path
) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise ConnectionError("no route to host")

    run = sys.modules["wandb"].init()
    run.log = fail
    printed, _ = run_training(tmp_path, *WORDS, "--log", "wandb", "--report-seconds", "0")
    assert printed.count("wandb failed (no route to host)") == 1
    assert only_run(tmp_path).read_description()["finished"] is True


def test_one_that_cannot_be_opened_is_said_before_the_training(
    wandb: Calls, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def fail(**_: Any) -> None:
        raise PermissionError("no API key")

    monkeypatch.setattr(sys.modules["wandb"], "init", fail)
    with pytest.raises(RecipeError, match="--log wandb: no API key"):
        open_hooks(RunFolder(tmp_path), {}, ["wandb"], print)
    assert wandb == []


def test_one_that_is_not_installed_is_named_with_its_extra(
    run_training: RunTraining, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("training.records.hooks.find_spec", lambda _name: None)
    with pytest.raises(RecipeError, match=r"pip install '\.\[mlflow\]'"):
        check_trackers(["mlflow"])
    _, errors = run_training(tmp_path / "home", "--log", "wandb", code=2)
    assert "--log wandb needs the package wandb" in errors
    assert not (tmp_path / "home").exists()

"""Where a run's numbers go beside its own files: TensorBoard, Weights & Biases, MLflow.

Each is a hook that is given the records of steps and epochs. TensorBoard's is always there; the
others are named by --log, and are installed as extras.
"""

from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

import numpy as np
import torch
from PIL import Image

from storage.runs import Epoch, RunFolder
from storage.steps import StepRecord
from training.recipe.config import RecipeError

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

Tracker = Literal["wandb", "mlflow"]
PROJECT = "alexnet-two-towers"
"""What the trackers call the collection of all runs."""


class Hook(Protocol):
    """What a run's numbers are given to, in rank 0 only."""

    def on_step(self, record: StepRecord) -> None:
        """Take the record of the last few seconds."""

    def on_epoch(self, epoch: Epoch[float], picture: Image.Image) -> None:
        """Take an epoch, and the picture of conv1 after it."""

    def close(self) -> None:
        """End, as the run does."""


def name_step_values(record: StepRecord) -> dict[str, float]:
    """Return a step's numbers by the names that charts have."""
    values = {
        "step/loss": record.loss,
        "step/images a second": record.images_per_second,
        "step/seconds waited for data": record.data_wait,
        "step/memory GiB": record.memory,
        "step/loss scale": record.loss_scale,
        **{f"rate/{group}": rate for group, rate in record.rates.items()},
        **{f"gradient norm/{layer}": norm for layer, norm in record.gradient_norms.items()},
        **{f"update norm/{layer}": norm for layer, norm in record.update_norms.items()},
    }
    return {name: value for name, value in values.items() if value is not None}


def name_epoch_values(epoch: Epoch[float]) -> dict[str, float]:
    """Return an epoch's numbers by the names that charts have."""
    values = {
        "loss/training": epoch.loss,
        "loss/validation": epoch.validation_loss,
        "error/training top-1": epoch.training_top1_error,
        "error/top-1": epoch.top1_error,
        "error/top-5": epoch.top5_error,
        "rate": epoch.rate,
        "speed/images a second": epoch.images_per_second,
        "speed/seconds waited for data": epoch.data_wait,
        "memory/GiB": epoch.memory,
        "steps skipped": epoch.skipped_steps,
        "conv1/share at low frequencies": epoch.conv1_low_frequency,
    }
    return {name: value for name, value in values.items() if value is not None}


class TensorBoardHook:
    """Writes event files: epochs in the folder, steps in a folder below it.

    One file holds all that this process trains: TensorBoard reads files in the order of their
    names, in which files started within the same second are not in the order of time. Steps have a
    folder of their own, since a resumed run hides what comes after its first number, which counts
    steps there and epochs here.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.epochs: SummaryWriter | None = None
        self.steps: SummaryWriter | None = None

    def on_step(self, record: StepRecord) -> None:
        """Add the record's numbers at the number of its step in the run."""
        self.steps = self.steps or self.open_writer(self.folder / "steps", record.total_step)
        self.add_values(self.steps, name_step_values(record), record.total_step)

    def on_epoch(self, epoch: Epoch[float], picture: Image.Image) -> None:
        """Add the epoch's numbers and conv1's picture at the number of the epoch."""
        self.epochs = self.epochs or self.open_writer(self.folder, epoch.epoch)
        pixels = torch.from_numpy(np.array(picture))
        self.epochs.add_image("conv1", pixels, epoch.epoch, dataformats="HWC")
        self.add_values(self.epochs, name_epoch_values(epoch), epoch.epoch)

    def close(self) -> None:
        """Close the files."""
        for writer in (self.epochs, self.steps):
            if writer is not None:
                writer.close()

    def open_writer(self, folder: Path, first: int) -> "SummaryWriter":
        """Start an event file, which hides what an interrupted run wrote from `first` on."""
        from torch.utils.tensorboard import SummaryWriter  # takes seconds

        return SummaryWriter(str(folder), purge_step=first)

    def add_values(self, writer: "SummaryWriter", values: Mapping[str, float], at: int) -> None:
        """Add numbers, and flush, so that a killed process loses none."""
        for name, value in values.items():
            writer.add_scalar(name, value, at)
        writer.flush()


class WandbHook:
    """Sends the numbers to Weights & Biases, as a run of the same name, which resumes with it."""

    def __init__(self, run: RunFolder, settings: Mapping[str, Any]) -> None:
        self.wandb = import_module("wandb")
        name = run.path.name
        self.run = self.wandb.init(
            project=PROJECT,
            name=name,
            id=name[-128:],
            resume="allow",
            dir=str(run.path),
            config=dict(settings),
        )
        self.last_step = 0

    def on_step(self, record: StepRecord) -> None:
        """Log the numbers at the number of the step in the run."""
        self.last_step = record.total_step
        self.run.log(name_step_values(record), step=record.total_step)

    def on_epoch(self, epoch: Epoch[float], picture: Image.Image) -> None:
        """Log the numbers and conv1's picture at the last step, beside the epoch's number."""
        values = {"epoch": epoch.epoch, **name_epoch_values(epoch)}
        self.run.log({**values, "conv1": self.wandb.Image(picture)}, step=self.last_step)

    def close(self) -> None:
        """Finish the run, which sends what is left."""
        self.run.finish()


class MlflowHook:
    """Sends the numbers to MLflow, where MLFLOW_TRACKING_URI says; a resumed run goes on."""

    def __init__(self, run: RunFolder, settings: Mapping[str, Any]) -> None:
        self.mlflow = import_module("mlflow")
        self.mlflow.set_experiment(PROJECT)
        known = run.read_description().get("mlflow_run")
        started = self.mlflow.start_run(run_id=known, run_name=run.path.name)
        if not known:
            run.update_description(mlflow_run=started.info.run_id)
            # MLflow cuts off longer values, or refuses them.
            self.mlflow.log_params({name: str(value)[:500] for name, value in settings.items()})

    def on_step(self, record: StepRecord) -> None:
        """Log the numbers at the number of the step in the run."""
        self.mlflow.log_metrics(name_step_values(record), step=record.total_step)

    def on_epoch(self, epoch: Epoch[float], picture: Image.Image) -> None:
        """Log the numbers at the number of the epoch, and conv1's picture."""
        self.mlflow.log_metrics(name_epoch_values(epoch), step=epoch.epoch)
        self.mlflow.log_image(picture, f"conv1/epoch-{epoch.epoch:03d}.png")

    def close(self) -> None:
        """End the run."""
        self.mlflow.end_run()


TRACKERS: dict[Tracker, Callable[[RunFolder, Mapping[str, Any]], Hook]] = {
    "wandb": WandbHook,
    "mlflow": MlflowHook,
}


class GuardedHook:
    """A tracker whose failure does not end the run: it is reported once, and left out from then on.

    A run of days must outlive a server that is away.
    """

    def __init__(self, name: str, hook: Hook, warn: Callable[[str], None]) -> None:
        self.name, self.hook, self.warn = name, hook, warn
        self.failed = False

    def on_step(self, record: StepRecord) -> None:
        """Pass the record on."""
        self.attempt(lambda: self.hook.on_step(record))

    def on_epoch(self, epoch: Epoch[float], picture: Image.Image) -> None:
        """Pass the epoch on."""
        self.attempt(lambda: self.hook.on_epoch(epoch, picture))

    def close(self) -> None:
        """Close the tracker."""
        self.attempt(self.hook.close)

    def attempt(self, call: Callable[[], None]) -> None:
        """Call, unless an earlier call failed."""
        if self.failed:
            return
        try:
            call()
        except Exception as error:  # noqa: BLE001 - whatever a tracker raises
            self.failed = True
            reason = str(error).partition("\n")[0] or type(error).__name__
            self.warn(f"{self.name} failed ({reason}); the run goes on without it.")


def check_trackers(names: Sequence[Tracker]) -> None:
    """Raise RecipeError if a tracker is not installed."""
    for name in names:
        if find_spec(name) is None:
            raise RecipeError(f"--log {name} needs the package {name}: pip install '.[{name}]'")


def open_hooks(
    run: RunFolder | None,
    settings: Mapping[str, Any],
    trackers: Sequence[Tracker],
    warn: Callable[[str], None],
) -> list[Hook]:
    """Open TensorBoard's hook and those of the trackers; none where `run` is None.

    settings: what they show as the run's configuration. warn: called with what went wrong.

    Raises RecipeError if a tracker cannot be opened.
    """
    if run is None:
        return []
    hooks: list[Hook] = [TensorBoardHook(run.tensorboard)]
    for name in trackers:
        try:
            hook = TRACKERS[name](run, settings)
        except Exception as error:
            reason = str(error).partition("\n")[0] or type(error).__name__
            raise RecipeError(f"--log {name}: {reason}") from error
        hooks.append(GuardedHook(name, hook, warn))
    return hooks

"""Train one arm of an experiment with one seed, resumably, and measure it."""

import json
import math
import os
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from importlib.metadata import version
from itertools import starmap
from pathlib import Path
from statistics import fmean

import numpy as np
import numpy.typing as npt
import torch
from rich.console import Console
from torch import Tensor

from experiments.arms import Arm, find_wrong_rows, start_arm
from experiments.claims.experiment import Setting, find_data_kind
from experiments.claims.recipes import ONE_TOWER
from experiments.claims.result import Count, Point, RunData, RunResult, pack
from experiments.held_out import digest_split, hold_out, take_images
from model.image.preprocess import CENTRE_CROP
from model.image.ten_crop import ten_crop_forward
from model.network.config import SQUARE_SIDE
from model.visualization.kernels import compare_halves, compute_low_frequency_share
from storage.files import write_atomically
from storage.machine import read_processor_name
from storage.runs import Epoch, RunFolder
from storage.tolerant_json import read_json_object
from training.batches.batches import load_validation_squares
from training.dataset.prepare import PreparedDataset
from training.evaluation.predictions import ResultKey, rank_predictions
from training.optimisation.device import stop_expanding
from training.optimisation.divergence import DivergedError
from training.optimisation.loop import train_network
from training.optimisation.precision import Precision, autocast
from training.optimisation.state import RECENT_LOSSES, TrainingState
from training.optimisation.validate import TEN_CROP_BATCH_SIZE
from training.recipe.config import Recipe
from training.recipe.options import Options
from training.records.callbacks import Callbacks
from training.records.checkpoints import load_checkpoint, save_checkpoint
from training.records.reporting import format_epoch
from training.records.run_folder import RunSpec, read_commit

HELD_OUT_IMAGES = 1000
"""Of the images held out, those whose error is measured after each epoch."""
CHECKPOINT_SECONDS = 240.0
PLATEAU_SHARE = 0.9
"""The first plateau ends where the mean loss of 20 steps is below this share of ln(classes)."""
TEST_BATCH_IMAGES = 128
"""Images per batch of a test of networks that take images of 32×32."""
PROGRESS = "progress.json"
LIBRARIES = ("torch", "numpy", "pillow")
MAX_PROGRESS_BYTES = 16 * 1024 * 1024


@dataclass(frozen=True, kw_only=True)
class Parts:
    """The images of an experiment.

    train: those to train on; its `val` is the part held out. test: the actual validation images.
    sample: the training images whose error is measured. data: what is recorded of all of them.
    """

    train: PreparedDataset
    test: PreparedDataset
    sample: PreparedDataset
    data: RunData


@dataclass(frozen=True, kw_only=True)
class Trained:
    """A finished run.

    probabilities: float16 [N, classes] of the test images, crops averaged; empty if it was not
    tested. conv1: float32 [N, 3, k, k], the kernels.
    """

    result: RunResult
    state: TrainingState
    probabilities: npt.NDArray[np.float16]
    conv1: npt.NDArray[np.float32]


def divide(data: PreparedDataset, setting: Setting, *, search: bool = False) -> Parts:
    """Divide a dataset into the parts of an experiment; a search trains on what is held out."""
    view = hold_out(data, setting.held_out)
    train, held_out = (view.val, view.train) if search else (view.train, view.val)
    if setting.images:
        train = take_images(train, setting.images)
    held_out = take_images(held_out, HELD_OUT_IMAGES)
    test = take_images(data.val, setting.test_images or len(data.val))
    digests = [digest_split(split) for split in (train, held_out, test)]
    recorded = RunData(
        kind=find_data_kind(data.class_names),
        fingerprint=" ".join(digests),
        classes=len(data.class_names),
        train=len(train),
        held_out=len(held_out),
        test=len(test),
    )
    return Parts(
        train=replace(data, key=f"{data.key} {recorded.fingerprint}", train=train, val=held_out),
        test=replace(data, val=test),
        sample=replace(data, val=take_images(train, setting.sample)),
        data=recorded,
    )


def describe_run(
    experiment: str, arm: Arm, parts: Parts, precision: str, *, search: bool
) -> RunResult:
    """Describe a run before it has begun: a result with nothing measured."""
    return RunResult(
        experiment=experiment,
        arm=arm.name,
        seed=arm.recipe.seed,
        purpose="search" if search else "measurement",
        data=parts.data,
        recipe=arm.describe_recipe(),
        weights=arm.weights.identity if arm.weights else None,
        precision=precision,
        curve=(),
        errors={},
        per_image={},
        measured={},
        cpu_seconds=0.0,
        seconds=0.0,
        machine=read_processor_name(),
        cores=os.cpu_count() or 1,
        versions={name: version(name) for name in LIBRARIES},
        commit=read_commit(),
    )


def train_run(
    described: RunResult,
    arm: Arm,
    parts: Parts,
    setting: Setting,
    folder: Path,
    options: Options,
    console: Console,
    stop_signal: Callable[[], int] = lambda: 0,
) -> Trained:
    """Train an arm, from where its folder says that it was stopped, and test it.

    Raises StoppedError, after saving a checkpoint, if it is asked to stop. A run that diverges has
    a result that says so.
    """
    state, precision = start_arm(arm, parts.train, options)
    run = Run(arm, parts, setting, state, RunFolder(folder), precision)
    run.resume()
    name = f"{described.experiment}: {arm.name}, seed {described.seed}"
    described = replace(described, precision=precision)

    def on_epoch(state: TrainingState) -> None:
        run.add_epoch()
        console.print(f"{name}: {format_epoch(state.history[-1], arm.epochs)}", markup=False)

    callbacks = Callbacks(
        on_step=run.add_step,
        on_epoch=on_epoch,
        is_finished=lambda _: run.is_finished(),
        checkpoint_due=run.is_checkpoint_due,
        stop_signal=stop_signal,
        save_checkpoint=lambda _: run.save(),
    )
    try:
        train_network(state, parts.train, arm.recipe, run.spec.precision, callbacks)
    except DivergedError as error:
        return finish(run, replace(described, diverged=str(error)))
    described = replace(
        described,
        curve=tuple(
            starmap(make_point, zip(state.history, run.list_training_errors(), strict=True))
        ),
    )
    # A search chooses by the training error: the test images are not for that.
    return finish(run, described if described.purpose == "search" else measure_run(run, described))


def finish(run: "Run", result: RunResult) -> Trained:
    """Return a run with the time that it took, and what it predicted, if it was tested."""
    return Trained(
        result=run.add_times(result),
        state=run.state,
        probabilities=run.probabilities,
        conv1=copy_conv1(run.state),
    )


def copy_conv1(state: TrainingState) -> npt.NDArray[np.float32]:
    """Copy a network's first kernels: float32 [N, 3, k, k]."""
    weight = state.network.first_conv.weight
    kernels: npt.NDArray[np.float32] = weight.detach().float().cpu().numpy()
    return kernels


def measure_run(run: "Run", described: RunResult) -> RunResult:
    """Measure a trained network on the test images, and look at its conv1."""
    state = run.state
    centre, crops = predict_test(state, run.parts.test, run.arm.recipe, run.spec.precision)
    run.probabilities = crops.numpy().astype(np.float16)
    conv1 = copy_conv1(state)
    measured = {"conv1 at low frequencies": compute_low_frequency_share(conv1)}
    if state.network.config.towers == 2 or run.arm.recipe.variant in ONE_TOWER:
        contrast = compare_halves(conv1)
        first, second = contrast.means
        measured |= {"first half": first, "second half": second, "p": contrast.p}
    if run.setting.plateau:
        measured["steps"] = run.plateau_steps or run.steps
        measured["left the plateau"] = float(run.plateau_steps is not None)
    true = torch.from_numpy(run.parts.test.val.classes)
    wrong = {
        "centre": rank_predictions(centre, true, ResultKey(described.arm, "centre")).rank,
        "crops": rank_predictions(crops, true, ResultKey(described.arm, "ten")).rank,
    }
    return replace(
        described,
        errors={
            f"{kind} top-{guesses}": Count(wrong=int((ranks >= guesses).sum()), images=len(ranks))
            for kind, ranks in wrong.items()
            for guesses in (1, 5)
        },
        per_image={kind: pack(ranks >= 1) for kind, ranks in wrong.items()},
        measured={what: float(f"{value:.6g}") for what, value in measured.items()},
    )


class Run:
    """A run's progress, which its folder keeps from checkpoint to checkpoint."""

    def __init__(
        self,
        arm: Arm,
        parts: Parts,
        setting: Setting,
        state: TrainingState,
        folder: RunFolder,
        precision: Precision,
    ) -> None:
        self.arm, self.parts, self.setting, self.state = arm, parts, setting, state
        self.folder = folder
        weights = arm.weights.identity if arm.weights else None
        self.spec = RunSpec(parts.train, arm.recipe, weights, precision)
        self.training_errors: dict[str, float] = {}
        self.probabilities = np.empty((0, 0), np.float16)
        self.steps = 0
        self.plateau_steps: int | None = None
        self.cpu_before = self.seconds_before = 0.0
        self.cpu_start, self.start = time.process_time(), time.perf_counter()
        self.saved = time.monotonic()

    def resume(self) -> None:
        """Continue from the folder's checkpoint, if it has one."""
        if not self.folder.checkpoint.exists():
            return
        load_checkpoint(self.folder, self.state, self.spec)
        kept = read_json_object(self.folder.path / PROGRESS, MAX_PROGRESS_BYTES)
        self.training_errors = dict(kept["training_errors"])
        self.steps, self.plateau_steps = kept["steps"], kept["plateau_steps"]
        self.cpu_before, self.seconds_before = kept["times"]

    def save(self) -> None:
        """Save a checkpoint; what belongs to it first, so that it is there whenever that is."""
        self.folder.path.mkdir(parents=True, exist_ok=True)
        kept = {
            "training_errors": self.training_errors,
            "steps": self.steps,
            "plateau_steps": self.plateau_steps,
            "times": self.get_times(),
        }
        write_atomically(self.folder.path / PROGRESS, json.dumps(kept))
        save_checkpoint(self.folder, self.state, self.spec)
        self.saved = time.monotonic()

    def is_checkpoint_due(self) -> bool:
        """Return whether the last checkpoint is old enough for a new one."""
        return time.monotonic() - self.saved >= CHECKPOINT_SECONDS

    def get_times(self) -> tuple[float, float]:
        """Return the seconds of processor time and of the clock so far."""
        cpu = self.cpu_before + time.process_time() - self.cpu_start
        seconds = self.seconds_before + time.perf_counter() - self.start
        return round(cpu, 1), round(seconds, 1)

    def add_times(self, result: RunResult) -> RunResult:
        """Return a result with what it took so far."""
        cpu, seconds = self.get_times()
        return replace(result, cpu_seconds=cpu, seconds=seconds)

    def add_step(self, *_: object) -> None:
        """Count a step, and see whether the loss has left its first plateau."""
        self.steps += 1
        recent = self.state.recent_losses
        level = PLATEAU_SHARE * math.log(self.parts.data.classes)
        if self.plateau_steps is None and len(recent) == RECENT_LOSSES and fmean(recent) < level:
            self.plateau_steps = self.steps

    def add_epoch(self) -> None:
        """Measure the training error after an epoch."""
        wrong = find_wrong_rows(
            self.state,
            data=self.parts.sample,
            recipe=self.arm.recipe,
            precision=self.spec.precision,
        )
        self.training_errors[str(len(self.state.history))] = len(wrong) / len(self.parts.sample.val)

    def is_finished(self) -> bool:
        """Return whether the run has reached what it was for."""
        target, last = self.setting.target, next(reversed(self.list_training_errors()), None)
        if target is not None and last is not None and last <= target:
            return True
        return self.setting.plateau and self.plateau_steps is not None

    def list_training_errors(self) -> list[float | None]:
        """Return the training error after each epoch; None where it was lost with its process."""
        return [self.training_errors.get(str(epoch.epoch)) for epoch in self.state.history]


def make_point(epoch: Epoch[float], training_error: float | None) -> Point:
    """Reduce an epoch to what is kept of it."""
    return Point(
        epoch=epoch.epoch,
        rate=float(f"{epoch.rate:.4g}"),
        loss=round(epoch.loss, 4),
        held_out_error=round(epoch.top1_error, 5),
        training_error=None if training_error is None else round(training_error, 5),
    )


@torch.inference_mode()
def predict_test(
    state: TrainingState, data: PreparedDataset, recipe: Recipe, precision: Precision
) -> tuple[Tensor, Tensor]:
    """Predict the validation images by the centre crop and by all: float32 [N, classes] each."""
    network = state.network.eval()
    stop_expanding(network)
    config = network.config
    size = TEST_BATCH_IMAGES if config.side < SQUARE_SIDE else TEN_CROP_BATCH_SIZE
    centre, crops = list[Tensor](), list[Tensor]()
    for batch in load_validation_squares(data, recipe.augmentation(config), size):
        with autocast(state.device, precision):
            squares = batch.x.to(state.device)
            if config.crop == config.side:
                # There is but one crop, whose mirror image is not tested (Figure 1).
                found = network(squares).logits.float().softmax(1)[:, None]
            else:
                found = ten_crop_forward(network, squares)[0].float()
        centre.append(found[:, min(CENTRE_CROP, found.shape[1] - 1)].cpu())
        crops.append(found.mean(1).cpu())
    return torch.cat(centre), torch.cat(crops)

"""Whole runs on photographs: the recipe `small` to its end, the paper's for as long as time allows.

Both go the way of `python training/run.py`: the photographs are decoded once, the GPU keeps them,
the network is compiled. Afterwards the errors with ten crops, conv1 as a picture, and the weights.
"""

import subprocess
import sys
import time
from dataclasses import asdict, replace
from datetime import UTC, datetime
from pathlib import Path

import torch
from rich.console import Console

from benchmarks.gpu_harness.job import ROOT, Job
from model.visualization.kernels import compute_low_frequency_share
from model.weights.checkpoint import Weights, save_weights
from model.weights.header import Provenance
from storage.home import Home
from training.batches.streaming import place_images
from training.dataset.find_source import find_source
from training.dataset.prepare import PreparedDataset, prepare
from training.optimisation.device import choose_precision, compile_network
from training.optimisation.loop import train_network
from training.optimisation.precision import Precision
from training.optimisation.state import TrainingState, init_state
from training.optimisation.validate import measure_ten_crops
from training.recipe.config import PAPER, SMALL, Recipe
from training.recipe.options import Options
from training.records.callbacks import Callbacks
from training.records.reporting import draw_conv1
from training.records.run_folder import RunSpec, read_commit

SECONDS_AFTERWARDS = 15.0
"""Kept for the ten crops and for writing the weights."""
SECONDS_TO_COMPRESS = 25.0
"""Kept to compress without fine-tuning, if that fails."""
COMPRESSED = "weights-small.safetensors"


class OutOfTimeError(Exception):
    """A run that has to end before its last epoch."""


def measure_small(job: Job) -> None:
    """Train by the recipe `small`: all its epochs, or fewer if they would not fit."""
    train_whole(job, SMALL, "small", shorten=True)


def measure_paper(job: Job) -> None:
    """Train by the paper's recipe for as many of its epochs as fit."""
    train_whole(job, PAPER, "paper", shorten=False)


def train_whole(job: Job, recipe: Recipe, preset: str, *, shorten: bool) -> None:
    """Train, measure and write the weights.

    shorten: whether a recipe that would not fit gets fewer epochs, so that its schedule ends.
    """
    console = Console(force_terminal=False)
    data = prepare_photographs(job)
    device = job.torch_device
    precision = choose_precision(Options(), device)
    started = time.monotonic()
    data = place_images(data, device)
    job.record(copy_seconds=time.monotonic() - started)
    if shorten:
        recipe = fit_epochs(job, data, recipe, precision)
    spec = RunSpec(data, recipe, precision=precision)
    state, compiled = start_run(job, data, recipe, precision)
    job.record(preset=preset, epochs=recipe.epochs, precision=spec.precision, compiled=compiled)
    try:
        callbacks = Callbacks(on_epoch=lambda s: on_epoch(job, s))
        train_network(state, data, recipe, precision, callbacks)
    except OutOfTimeError:
        console.print("The rest of the epochs does not fit.")
    ten_crops = measure_ten_crops(state, spec, precision, console, Callbacks())
    job.record(ten_crops=ten_crops)
    draw_conv1(state.network.first_conv.weight).save(job.report / f"conv1-{preset}.png")
    weights = make_weights(state, spec, preset, ten_crops)
    save_weights(weights, weights_file(job, preset))
    job.record(weights=weights.identity)


def prepare_photographs(job: Job) -> PreparedDataset:
    """Decode the photographs into the store, unless another part has."""
    assert job.data is not None
    started = time.monotonic()
    home = Home(root=job.work)
    data = prepare(find_source(str(job.data)), home.prepared, lambda _count: None)
    job.record(
        images=len(data.train),
        validation_images=len(data.val),
        unreadable=len(data.unreadable),
        prepare_seconds=time.monotonic() - started,
    )
    return data


def start_run(
    job: Job, data: PreparedDataset, recipe: Recipe, precision: Precision
) -> tuple[TrainingState, str]:
    """Make a run's state, compiled as in a run; also return how."""
    device, config = job.torch_device, recipe.network(len(data.class_names))
    state = init_state(config, recipe, device)
    mode = "off" if job.quick else "auto"
    images = len(data.train) * recipe.epochs
    return state, compile_network(state, mode, images, precision)  # type: ignore[arg-type]


def fit_epochs(job: Job, data: PreparedDataset, recipe: Recipe, precision: Precision) -> Recipe:
    """Return the recipe with as many epochs as fit, by the second of two that are tried."""
    if job.quick:
        return replace(recipe, epochs=2)
    trial = replace(recipe, epochs=2)
    state, _ = start_run(job, data, trial, precision)
    train_network(state, data, trial, precision, Callbacks())
    seconds = state.history[-1].seconds
    fitting = int((job.seconds_left - SECONDS_AFTERWARDS) / (1.1 * seconds))
    job.record(seconds_of_an_epoch=seconds, epochs_of_the_recipe=recipe.epochs)
    return replace(recipe, epochs=max(2, min(recipe.epochs, fitting)))


def on_epoch(job: Job, state: TrainingState) -> None:
    """Record an epoch. Raises OutOfTimeError if there is no time for another."""
    low = compute_low_frequency_share(state.network.first_conv.weight)
    epoch = asdict(replace(state.history[-1], conv1_low_frequency=low))
    curve = [*job.figures.get("curve", []), epoch]
    job.record(curve=curve)
    enough = 2 if job.quick else float("inf")
    if len(curve) >= enough or job.seconds_left < SECONDS_AFTERWARDS + 1.5 * epoch["seconds"]:
        raise OutOfTimeError


def make_weights(
    state: TrainingState, spec: RunSpec, preset: str, ten_crops: tuple[float, float]
) -> Weights:
    """Make a weights file's content."""
    last, data = state.history[-1], spec.data
    tensors = state.mesh.gather(state.network.state_dict(), state.network.config)
    return Weights(
        config=state.network.config,
        classes=data.class_names,
        mean=data.mean,
        pca=data.pca,
        provenance=Provenance(
            data=str(data.root),
            images=len(data.train),
            epochs=len(state.history),
            preset=preset,
            top1_error=last.top1_error,
            top5_error=last.top5_error,
            ten_crop_top1_error=ten_crops[0],
            ten_crop_top5_error=ten_crops[1],
            commit=read_commit(),
            created=f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}",
        ),
        state={k: v.contiguous(memory_format=torch.contiguous_format) for k, v in tensors.items()},
    )


def weights_file(job: Job, preset: str) -> Path:
    """Return the file with a run's weights, which are too large to take home."""
    return job.work / f"weights-{preset}.safetensors"


def compress_weights(job: Job) -> None:
    """Compress the weights of the whole run to a few megabytes, fine-tuned if time allows."""
    source, target = weights_file(job, "small"), job.report / COMPRESSED
    if not source.exists():
        raise FileNotFoundError(f"{source}: the part `whole` has to run first")
    command = [sys.executable, "-m", "benchmarks.gpu_harness.compat", "training/compress.py"]
    command += [str(source), "--output", str(target), "--device", job.device]
    tuned = [*command, "--data", str(job.data), "--epochs", "1" if job.quick else "3"]
    enough = job.seconds_left - SECONDS_TO_COMPRESS * (3 if job.quick else 1)
    job.record(how="fine-tuned", said=run_script(tuned, job, enough))
    if not target.exists():
        # Much of what was learned is lost, but the report has weights.
        job.record(how="pruned only", also_said=run_script(command, job, job.seconds_left))
    job.record(bytes=target.stat().st_size)


def run_script(command: list[str], job: Job, seconds: float) -> list[str]:
    """Run a script of this project; return the lines that it printed last, and its error."""
    try:
        done = subprocess.run(
            command,
            cwd=ROOT,
            env=job.environment(),
            capture_output=True,
            text=True,
            check=False,
            timeout=max(1.0, seconds),
        )
    except subprocess.TimeoutExpired:
        return [f"stopped after {seconds:.0f} s"]
    return [*done.stdout.splitlines()[-40:], *done.stderr.splitlines()[-3:]]

"""A run's progress on the terminal, in its files, and as conv1's pictures."""

import json
import os
import platform
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from importlib.metadata import version

import torch
from PIL import Image
from rich.console import Console
from torch import Tensor

from model.visualization.kernels import compute_low_frequency_share, draw_kernels, split_towers
from storage.files import write_atomically
from storage.machine import read_processor_name
from storage.progress import create_progress_bars
from storage.runs import Epoch, RunFolder
from training.optimisation.device import uses_tf32
from training.optimisation.precision import Precision
from training.optimisation.state import TrainingState
from training.optimisation.validate import TOP_GUESSES
from training.records.callbacks import Callbacks
from training.records.checkpoints import has_dropped, keep_drop_checkpoint, save_checkpoint
from training.records.hooks import Tracker, open_hooks
from training.records.run_folder import RunSpec, hide_query, save_best_weights
from training.records.step_reports import (
    REPORT_SECONDS,
    StepReporter,
    estimate_remaining,
    format_time_left,
)

LIBRARIES = ("torch", "torchvision", "numpy", "pillow")


@contextmanager
def report_run(
    run: RunFolder | None,
    spec: RunSpec,
    console: Console,
    stop_signal: Callable[[], int],
    checkpoint_seconds: float,
    report_seconds: float = REPORT_SECONDS,
    trackers: Sequence[Tracker] = (),
) -> Iterator[Callbacks]:
    """Yield callbacks that show and record steps and epochs, and save checkpoints.

    run: None in all processes but rank 0; they write nothing. trackers: what the numbers are sent
    to, beside TensorBoard.
    """
    last_saved = time.monotonic()
    progress = create_progress_bars(console)
    task = progress.add_task("", total=None, visible=False)
    hooks = open_hooks(run, spec.to_json(), trackers, console.print)
    steps = StepReporter(run, spec, console, hooks, report_seconds)

    def on_step(step: int, count: int, loss: float) -> None:
        steps.add(loss)
        progress.start()
        text = steps.describe(step, count, loss)
        progress.update(task, visible=True, completed=step, total=count, description=text)

    def on_epoch(state: TrainingState) -> None:
        progress.stop()
        save_best_weights(run, state, spec)
        kernels = state.mesh.gather(
            {"conv1.weight": state.network.first_conv.weight}, state.network.config
        )
        if run is not None:
            low = compute_low_frequency_share(kernels["conv1.weight"])
            epoch = state.history[-1] = replace(state.history[-1], conv1_low_frequency=low)
            picture = draw_conv1(kernels["conv1.weight"], state.network.config.towers)
            write_epoch(run, epoch, picture)
            for hook in hooks:
                hook.on_epoch(epoch, picture)
            left = estimate_remaining(state, spec.recipe.epochs, 0)
            classes = len(spec.data.class_names)
            console.print(format_epoch(epoch, spec.recipe.epochs, left, classes))
        if has_dropped(state, spec.recipe):
            save(state)
            if run is not None:
                keep_drop_checkpoint(run, state)

    def checkpoint_due() -> bool:
        return time.monotonic() - last_saved >= checkpoint_seconds

    def save(state: TrainingState) -> None:
        nonlocal last_saved
        save_checkpoint(run, state, spec)
        last_saved = time.monotonic()

    try:
        yield Callbacks(
            on_step=on_step,
            on_epoch=on_epoch,
            checkpoint_due=checkpoint_due,
            stop_signal=stop_signal,
            save_checkpoint=save,
            report_due=steps.is_due,
            on_report=steps.report,
        )
    finally:
        progress.stop()
        for hook in hooks:
            hook.close()


def write_epoch(run: RunFolder, epoch: Epoch[float], picture: Image.Image) -> None:
    """Write an epoch to epochs.jsonl, and conv1's picture to its file."""
    run.append_epoch(epoch)
    run.conv1.mkdir(exist_ok=True)
    picture.save(run.conv1_picture(epoch.epoch))


def draw_conv1(kernels: Tensor, towers: int = 2, scale: int = 4) -> Image.Image:
    """Draw conv1's kernels, GPU 1's on the left and GPU 2's on the right.

    kernels: float32 [N, 3, k, k]. towers: 1 for one-GPU networks, which are drawn as one block.
    scale: pixels along the side of a weight's square.
    """
    parts = [draw_kernels(half, scale) for half in split_towers(kernels, towers)]
    width = sum(part.width for part in parts) + 16 * (towers - 1)
    whole = Image.new("RGB", (width, parts[0].height), "white")
    for number, part in enumerate(parts):
        whole.paste(part, (number * (parts[0].width + 16), 0), part)
    return whole


def format_epoch(
    e: Epoch[float], epochs: int, left: float | None = None, classes: int = 1000
) -> str:
    """Format an epoch as a line of the log.

    left: seconds until the last planned epoch. classes: with fewer than six, five guesses are
    always right, and there is no top-5 error to show.
    """
    top5 = f" top-5 {e.top5_error:6.2%}" if classes > TOP_GUESSES else ""
    line = (
        f"epoch {e.epoch:3d}/{epochs}  rate {e.rate:<7.2g} loss {e.loss:6.3f}  "
        f"validation error top-1 {e.top1_error:6.2%}{top5}  "
        f"{e.images_per_second:5.1f} images/s  waited {e.data_wait:.1f} s  "
        f"{e.memory:.1f} GiB  {e.seconds:.0f} s"
    )
    if e.skipped_steps:
        line += f"  {e.skipped_steps} step{'s' * (e.skipped_steps > 1)} skipped"
    return f"{line}  {format_time_left(left)}" if left else line


def write_environment(
    run: RunFolder, device: torch.device, precision: Precision, processes: int
) -> None:
    """Write environment.json: the machine, the versions, the device and the precision."""
    values = {
        "arguments": [hide_query(word) for word in sys.argv[1:]],
        "python": platform.python_version(),
        "system": platform.platform(),
        "processor": read_processor_name(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "processes": processes,
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
        "precision": precision,
        "tf32": uses_tf32(),
        "versions": {name: version(name) for name in LIBRARIES},
    }
    write_atomically(run.environment, json.dumps(values, indent=2) + "\n")

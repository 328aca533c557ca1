"""A run's progress on the terminal, in epochs.jsonl and TensorBoard, and as conv1's pictures."""

import json
import os
import platform
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from PIL import Image
from rich.console import Console
from torch import Tensor

from model.visualize import compute_low_frequency_share, draw_kernels, split_towers
from storage.files import write_atomically
from storage.machine import read_processor_name
from storage.progress import create_progress_bars
from storage.runs import Epoch, RunFolder
from training.callbacks import Callbacks
from training.checkpoints import has_dropped, keep_drop_checkpoint, save_checkpoint
from training.run_folder import RunSpec, save_best_weights
from training.state import TrainingState

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

LIBRARIES = ("torch", "torchvision", "numpy", "pillow")


@contextmanager
def report_run(
    run: RunFolder | None,
    spec: RunSpec,
    console: Console,
    stop_signal: Callable[[], int],
    checkpoint_seconds: float,
) -> Iterator[Callbacks]:
    """Yield callbacks that show and record each epoch, and save checkpoints.

    run: None in all processes but rank 0; they write nothing.
    """
    last_saved = time.monotonic()
    tensorboard: SummaryWriter | None = None
    progress = create_progress_bars(console)
    task = progress.add_task("", total=None, visible=False)

    def on_step(step: int, steps: int, loss: float) -> None:
        progress.start()
        text = "validation" if step == steps else f"loss {loss:.3f}"
        progress.update(task, visible=True, completed=step, total=steps, description=text)

    def on_epoch(state: TrainingState) -> None:
        nonlocal tensorboard
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
            tensorboard = tensorboard or open_tensorboard(run.tensorboard, epoch.epoch)
            write_tensorboard(tensorboard, epoch, picture)
            console.print(format_epoch(epoch, spec.recipe.epochs))
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
        )
    finally:
        progress.stop()
        if tensorboard is not None:
            tensorboard.close()


def write_epoch(run: RunFolder, epoch: Epoch[float], picture: Image.Image) -> None:
    """Write an epoch to epochs.jsonl, and conv1's picture to its file."""
    run.append_epoch(epoch)
    run.conv1.mkdir(exist_ok=True)
    picture.save(run.conv1_picture(epoch.epoch))


def open_tensorboard(folder: Path, first_epoch: int) -> "SummaryWriter":
    """Start an event file for the epochs that this process trains, from `first_epoch` on.

    One file holds all of them: TensorBoard reads files in the order of their names, in which files
    started within the same second are not in the order of time.
    """
    from torch.utils.tensorboard import SummaryWriter  # takes seconds

    # Hides what an interrupted run has written for this epoch and later ones.
    return SummaryWriter(str(folder), purge_step=first_epoch)


def write_tensorboard(writer: "SummaryWriter", epoch: Epoch[float], picture: Image.Image) -> None:
    """Add an epoch and its picture of conv1 to the event file."""
    values = {
        "loss/training": epoch.loss,
        "error/top-1": epoch.top1_error,
        "error/top-5": epoch.top5_error,
        "rate": epoch.rate,
        "speed/images a second": epoch.images_per_second,
        "speed/seconds waited for data": epoch.data_wait,
        "memory/GiB": epoch.memory,
        "conv1/share at low frequencies": epoch.conv1_low_frequency,
    }
    for name, value in values.items():
        writer.add_scalar(name, value, epoch.epoch)
    pixels = torch.from_numpy(np.array(picture))
    writer.add_image("conv1", pixels, epoch.epoch, dataformats="HWC")
    writer.flush()  # so that a killed process loses no finished epoch


def draw_conv1(kernels: Tensor, towers: int = 2) -> Image.Image:
    """Draw conv1's kernels, GPU 1's on the left and GPU 2's on the right.

    kernels: float32 [N, 3, k, k]. towers: 1 for one-GPU networks, which are drawn as one block.
    """
    parts = [draw_kernels(half) for half in split_towers(kernels, towers)]
    width = sum(part.width for part in parts) + 16 * (towers - 1)
    whole = Image.new("RGB", (width, parts[0].height), "white")
    for number, part in enumerate(parts):
        whole.paste(part, (number * (parts[0].width + 16), 0), part)
    return whole


def format_epoch(e: Epoch[float], epochs: int) -> str:
    """Format an epoch as a line of the log."""
    return (
        f"epoch {e.epoch:3d}/{epochs}  rate {e.rate:<7.2g} loss {e.loss:6.3f}  "
        f"validation error top-1 {e.top1_error:6.2%} top-5 {e.top5_error:6.2%}  "
        f"{e.images_per_second:5.1f} images/s  waited {e.data_wait:.1f} s  "
        f"{e.memory:.1f} GiB  {e.seconds:.0f} s"
    )


def write_environment(run: RunFolder, device: torch.device, bf16: bool, processes: int) -> None:
    """Write environment.json: the machine, the versions, the device and the precision."""
    values = {
        "arguments": sys.argv[1:],
        "python": platform.python_version(),
        "system": platform.platform(),
        "processor": read_processor_name(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "processes": processes,
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
        "precision": "bf16" if bf16 else "f32",
        "versions": {name: version(name) for name in LIBRARIES},
    }
    write_atomically(run.environment, json.dumps(values, indent=2) + "\n")

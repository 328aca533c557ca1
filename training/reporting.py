"""What a run leaves for people: lines and bars on the terminal, TensorBoard, conv1's pictures."""

import json
import os
import platform
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from rich.console import Console
from torch import Tensor

from model.visualize import draw_kernels, split_towers
from storage.files import write_atomically
from storage.runs import Epoch, RunFolder
from training.bars import steps_bar
from training.callbacks import Callbacks
from training.checkpoints import save_checkpoint
from training.run_folder import RunSpec, keep_best
from training.state import TrainingState

LIBRARIES = ("torch", "torchvision", "numpy", "pillow")


@contextmanager
def report_run(
    run: RunFolder | None,
    spec: RunSpec,
    console: Console,
    stop: Callable[[], int],
    checkpoint_seconds: float,
) -> Iterator[Callbacks]:
    """Print a line an epoch, write everything down, save a checkpoint now and then.

    run: None in the processes that write nothing.
    """
    saved = time.monotonic()
    progress = steps_bar(console)
    task = progress.add_task("", total=None, visible=False)

    def steps(number: int, of: int, loss: float) -> None:
        progress.start()
        what = "validation" if number == of else f"loss {loss:.3f}"
        progress.update(task, visible=True, completed=number, total=of, description=what)

    def epochs(state: TrainingState) -> None:
        progress.stop()
        keep_best(run, state, spec)
        kernels = state.mesh.gather(
            {"conv1.weight": state.network.conv1.weight}, state.network.config
        )
        if run is not None:
            write_epoch(
                run, state.history[-1], kernels["conv1.weight"], state.network.config.towers
            )
            console.print(format_epoch(state.history[-1], spec.recipe.epochs))

    def due() -> bool:
        return time.monotonic() - saved >= checkpoint_seconds

    def save(state: TrainingState) -> None:
        nonlocal saved
        save_checkpoint(run, state, spec)
        saved = time.monotonic()

    try:
        yield Callbacks(
            on_step=steps,
            on_epoch=epochs,
            checkpoint_due=due,
            stop_signal=stop,
            save_checkpoint=save,
        )
    finally:
        progress.stop()


def write_epoch(run: RunFolder, epoch: Epoch[float], kernels: Tensor, count: int) -> None:
    """An epoch's line, its numbers for TensorBoard, conv1's picture."""
    run.append_epoch(epoch)
    picture = draw_conv1(kernels, count)
    run.conv1.mkdir(exist_ok=True)
    picture.save(run.conv1_picture(epoch.epoch))
    write_tensorboard(run.tensorboard, epoch, picture)


def write_tensorboard(folder: Path, epoch: Epoch[float], picture: Image.Image) -> None:
    """Write an epoch as TensorBoard's event file has it."""
    from torch.utils.tensorboard import SummaryWriter  # takes seconds

    values = {
        "loss/training": epoch.loss,
        "error/top-1": epoch.top1_error,
        "error/top-5": epoch.top5_error,
        "rate": epoch.rate,
        "speed/images a second": epoch.images_per_second,
        "speed/seconds waited for data": epoch.data_wait,
        "memory/GiB": epoch.memory,
    }
    # Epochs from this one on that a run cut off had written before are hidden.
    with SummaryWriter(str(folder), purge_step=epoch.epoch) as writer:
        for name, value in values.items():
            writer.add_scalar(name, value, epoch.epoch)
        pixels = torch.from_numpy(np.array(picture))
        writer.add_image("conv1", pixels, epoch.epoch, dataformats="HWC")


def draw_conv1(kernels: Tensor, count: int = 2) -> Image.Image:
    """conv1's kernels, GPU 1's left and GPU 2's right; nets of one GPU have one block."""
    parts = [draw_kernels(half) for half in split_towers(kernels, count)]
    width = sum(part.width for part in parts) + 16 * (count - 1)
    whole = Image.new("RGB", (width, parts[0].height), "white")
    for number, part in enumerate(parts):
        whole.paste(part, (number * (parts[0].width + 16), 0), part)
    return whole


def format_epoch(e: Epoch[float], epochs: int) -> str:
    """An epoch in a line."""
    return (
        f"epoch {e.epoch:3d}/{epochs}  rate {e.rate:<7.2g} loss {e.loss:6.3f}  "
        f"validation error top-1 {e.top1_error:6.2%} top-5 {e.top5_error:6.2%}  "
        f"{e.images_per_second:5.1f} images/s  waited {e.data_wait:.1f} s  "
        f"{e.memory:.1f} GiB  {e.seconds:.0f} s"
    )


def write_environment(run: RunFolder, device: torch.device, bf16: bool, processes: int) -> None:
    """environment.json: the machine, the versions and what was computed with."""
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


def read_processor_name() -> str:
    """The processor's name."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    named = (text.split(":", 1)[1].strip() for text in lines if text.startswith("model name"))
    return next(named, platform.processor())

"""From a job to weights: find the photographs, prepare them, train, measure, record."""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
)

from model.alexnet import AlexNet
from model.home import Home, point
from model.photographs import Folder, scan
from model.predict import ask_ten_crops, find_device
from training.config import PRESETS, Job, Recipe, choose_data, choose_preset, parse
from training.data import validation_squares
from training.demo import make_demo
from training.fetch import imagenette
from training.loop import Reports, State, count_errors, start, train
from training.machine import has_bf16, keep_memory
from training.prepare import Prepared, prepare
from training.record import (
    Run,
    add_epoch,
    finish,
    load_checkpoint,
    new_run,
    recipe_of,
    runs_of,
    save_checkpoint,
)

CHECKPOINT_SECONDS = 60.0
"""Least time between two checkpoints: one writes half a gigabyte."""


def run(arguments: Sequence[str], home: Home, console: Console) -> Path:
    """Do what the command line says; give the weights file.

    Raises FolderError, DataError, RecipeError, RunError, FetchError, DivergedError, OSError.
    """
    keep_memory()
    job, preset, folder = understand(arguments, home, console)
    data = prepare_visibly(folder, home, console)
    done = finished_before(job, home, data)
    if done:
        point(home.weights, done.weights)
        console.print(f"Nothing to train: {done.folder.name} did it; its weights are in use.")
        return done.weights
    device = find_device(job.device)
    record, state = begin(job, preset, home, data, device, console)
    # DEVIATION: layers compute in bf16 where the processor has it because such processors multiply
    # it several times as fast; weights, update and softmax stay float32, --precision f32 forces it.
    bf16 = job.precision == "bf16" or (job.precision == "auto" and has_bf16(device))
    console.print(f"{len(data.train.classes):,} images, {'bf16' if bf16 else 'f32'}, {device}.")
    try:
        train(state, data, job.recipe, bf16, reports(record, data, job.recipe, console))
    except KeyboardInterrupt:
        if record.checkpoint.exists():
            console.print(f"To go on: python training/run.py --resume {record.folder}")
        raise
    ten = measure_ten_crops(state.network, data, job.recipe, console)
    weights = finish(record, home, state, data, ten)
    console.print(f"Weights {weights.identity} are in {record.weights}.")
    return record.weights


def understand(arguments: Sequence[str], home: Home, console: Console) -> tuple[Job, str, Folder]:
    """Read the command line twice: for the data, then with its preset's numbers."""
    job = parse(arguments)
    if job.resume:
        job = resumed_job(arguments, job.resume)
    where, why = choose_data(job)
    root = find_folder(where, home, console)
    folder = scan(root)
    console.print(
        f"Training on {root} ({why}): {len(folder.train):,} photographs of "
        f"{len(folder.classes)} classes, {len(folder.val):,} for validation."
    )
    preset, reason = choose_preset(job, len(folder.train), demo=root == home.demo)
    if not job.resume:
        job = parse(arguments, Job(recipe=PRESETS[preset]))
    console.print(f"Preset {preset}: {reason}.")
    return job, preset, folder


def resumed_job(arguments: Sequence[str], folder: str) -> Job:
    """What the command line says, over what the run to resume was told."""
    then = Run(Path(folder)).described()
    recipe = recipe_of(Run(Path(folder)))
    return parse(arguments, Job(data=then["data"], preset=then["preset"], recipe=recipe))


def find_folder(where: str | None, home: Home, console: Console) -> Path:
    """Give the folder of photographs, made or fetched when it is known by name."""
    if where is None:
        return make_demo(home.demo)
    if where == "imagenette":
        console.print("Imagenette: fetched once, 1.6 GB.")
        return imagenette(home.root / "imagenette")
    return Path(where).absolute()


def finished_before(job: Job, home: Home, data: Prepared) -> Run | None:
    """With --if-needed, the newest run that did the same to the end and whose weights remain."""
    if not job.if_needed:
        return None
    same = runs_of(home, data, job.recipe)
    return next((r for r in same if r.described()["finished"] and r.weights.exists()), None)


def begin(
    job: Job, preset: str, home: Home, data: Prepared, device: torch.device, console: Console
) -> tuple[Run, State]:
    """Begin a run, or take up one that was cut off."""
    state = start(data, job.recipe, device)
    record = Run(Path(job.resume)) if job.resume else None
    if job.if_needed and record is None:
        same = runs_of(home, data, job.recipe)
        record = next((run for run in same if run.checkpoint.exists()), None)
    if record is None:
        return new_run(home, data, job.recipe, preset), state
    load_checkpoint(record, state, data, job.recipe, job.accept)
    console.print(f"Going on with {record.folder.name} after epoch {len(state.history)}.")
    return record, state


def prepare_visibly(folder: Folder, home: Home, console: Console) -> Prepared:
    """Decode the photographs, with a bar; name those that cannot be read."""
    with bar(console, "decoding", len(folder.train) + len(folder.val)) as advance:
        data = prepare(folder, home.prepared, advance)
    if data.unreadable:
        console.print(f"{len(data.unreadable)} photographs cannot be read and are left out:")
        for line in data.unreadable:
            console.print(f"  {line}", markup=False)
    return data


def reports(record: Run, data: Prepared, recipe: Recipe, console: Console) -> Reports:
    """Print a line an epoch, write it down, and save a checkpoint now and then."""
    saved = time.monotonic()
    progress = steps_bar(console)
    task = progress.add_task("", total=None, visible=False)

    def step(number: int, steps: int, loss: float) -> None:
        progress.start()
        progress.update(
            task, visible=True, completed=number, total=steps, description=f"loss {loss:.3f}"
        )
        if number == steps:
            progress.update(task, description="validation")

    def epoch(state: State) -> None:
        nonlocal saved
        progress.stop()
        add_epoch(record, state.history[-1])
        console.print(line(state, recipe))
        if time.monotonic() - saved >= CHECKPOINT_SECONDS:
            save_checkpoint(record, state, data, recipe)
            saved = time.monotonic()

    return Reports(steps=step, epochs=epoch)


def line(state: State, recipe: Recipe) -> str:
    """An epoch in a line."""
    e = state.history[-1]
    return (
        f"epoch {e.epoch:3d}/{recipe.epochs}  rate {e.rate:<7.2g} loss {e.loss:6.3f}  "
        f"validation error top-1 {e.top1_error:6.2%} top-5 {e.top5_error:6.2%}  "
        f"{e.images_per_second:5.1f} images/s  waited {e.data_wait:.1f} s  {e.seconds:.0f} s"
    )


@torch.inference_mode()
def measure_ten_crops(
    network: AlexNet, data: Prepared, recipe: Recipe, console: Console
) -> tuple[float, float]:
    """Top-1 and top-5 error, 0–1, of the validation images with ten crops averaged (§4.1)."""
    network.eval()
    device = next(network.parameters()).device
    wrong = torch.zeros(2, dtype=torch.int64)
    images = len(data.val.classes)
    with bar(console, "ten crops", images) as advance:
        for x, classes in validation_squares(data, recipe, size=16):
            each, _ = ask_ten_crops(network, x.to(device))
            wrong += count_errors(each.mean(1).cpu(), classes)
            advance(len(classes))
    top1, top5 = (int(count) / images for count in wrong)
    console.print(f"Ten crops: validation error top-1 {top1:.2%}, top-5 {top5:.2%}.")
    return top1, top5


@contextmanager
def bar(console: Console, what: str, total: int) -> Iterator[Callable[[int], None]]:
    """A progress bar; give what advances it."""
    with steps_bar(console) as progress:
        task = progress.add_task(what, total=total)
        yield lambda count: progress.advance(task, count)


def steps_bar(console: Console) -> Progress:
    """A bar with its count and the time that remains."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    return Progress(*columns, TimeRemainingColumn(), console=console, transient=True)

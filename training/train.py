"""From a job to weights: find the photographs, prepare them, train, measure, record."""

import os
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from rich.console import Console

from model.alexnet import AlexNet, AlexNetConfig, ConfigError
from model.checkpoint import Weights, WeightsError, load
from model.dataset import Folder, FolderError
from model.predict import find_device
from storage.files import switch_link
from storage.home import Home
from storage.runs import RunFolder
from training.bars import bar
from training.compiling import compile_network
from training.config import PRESETS, RecipeError
from training.dataset.demo import make_demo
from training.dataset.fetch import FetchError, imagenette
from training.dataset.prepare import Prepared, prepare
from training.dataset.shards import Shards
from training.dataset.source import DataError, describe, expected, find_source
from training.distributed.mesh import Mesh, detect_lost_peers, join_mesh, leave_mesh, local_rank
from training.distributed.signals import catch_stop_signals
from training.divergence import DivergedError
from training.finetune import finetune_config, init_from
from training.loop import train_network
from training.machine import (
    has_bf16,
    keep_freed_memory,
    set_thread_count,
    use_deterministic_algorithms,
)
from training.options import GIGABYTE, Options, choose_data_source, choose_preset, parse_flags
from training.reporting import report_run, write_environment
from training.resume import (
    find_finished_run,
    find_unfinished_run,
    options_to_json,
    parse_options,
    resume,
)
from training.run_folder import RunError, RunSpec, finish, new_run
from training.state import StoppedError, TrainingState, init_state
from training.validate import measure_ten_crops

EXPECTED_ERRORS = (
    FolderError,
    DataError,
    ConfigError,
    RecipeError,
    WeightsError,
    RunError,
    FetchError,
    DivergedError,
    OSError,
)
"""What a wrong command line, folder or disk leads to: one line, exit code 2."""
COPIES_ON_DISK = 6
"""Sets of the network's size on the disk at once: a checkpoint, with velocities, beside the one
that it replaces, and the best weights beside those that they replace."""


@dataclass(frozen=True)
class Plan:
    """All that is decided before the work begins."""

    job: Options
    preset: str
    told: RunSpec
    config: AlexNetConfig
    start: Weights | None
    device: torch.device


def train_from_options(
    arguments: Sequence[str], home: Home, console: Console, note: Callable[[str], None]
) -> Path | None:
    """Do what the command line says; give the weights file, in the process that wrote it.

    note: called with how to go on, as soon as there is something to go on with.
    Raises FolderError, DataError, RecipeError, ConfigError, WeightsError, RunError, FetchError,
    DivergedError, StoppedError, LostError, OSError.
    """
    keep_freed_memory()
    set_thread_count()
    plan = make_plan(arguments, home, console)
    job, told = plan.job, plan.told
    done = find_finished_run(job, home, told)
    if done:
        switch_link(home.weights, done.weights)
        console.print(f"Nothing to train: {done.path.name} did it; its weights are in use.")
        return done.weights
    if not job.resume:
        check_disk_space(plan.config, home)
    use_deterministic_algorithms(job.deterministic)
    with detect_lost_peers():
        mesh = join_mesh(plan.config, job.towers, plan.device)
        try:
            made = work(plan, home, mesh, console, note)
        except StoppedError:
            leave_mesh()
            raise
    leave_mesh()
    return made


def work(
    plan: Plan, home: Home, mesh: Mesh, console: Console, note: Callable[[str], None]
) -> Path | None:
    """Train, measure and record, as one of the processes."""
    job, told, device = plan.job, plan.told, plan.device
    check_batch_size(told, mesh)
    bf16 = told.precision == "bf16"
    record, state = start_or_resume(plan, home, mesh, console)
    # Of the whole run, also when it is resumed: it shall compute alike.
    how = compile_network(state, job.compile, len(told.data.train) * told.recipe.epochs)
    console.print(
        f"{len(told.data.train):,} images, {told.precision}, {device.type}, "
        f"{mesh.replicas} × {mesh.towers} processes, {how}."
    )
    if record is not None:
        write_environment(record, device, bf16, mesh.replicas * mesh.towers)
        note(f"To go on: python training/run.py --resume {record.path}")
    with (
        catch_stop_signals() as stop,
        report_run(record, told, console, stop, job.checkpoint_seconds) as reports,
    ):
        try:
            train_network(state, told.data, told.recipe, bf16, reports)
            # Whatever happens to the last measurement, the training is done.
            reports.save_checkpoint(state)
            ten = measure_ten_crops(state, told, bf16, console, reports)
        except StoppedError:
            if record:
                console.print(f"Saved. To go on: python training/run.py --resume {record.path}")
            raise
    tensors = mesh.gather(state.network.state_dict(), plan.config)
    if record is None:
        return None
    weights = finish(record, home, state, told, tensors, ten)
    console.print(f"Weights {weights.identity} are in {record.weights}.")
    return record.weights


def make_plan(arguments: Sequence[str], home: Home, console: Console) -> Plan:
    """Read the command line twice: for the data, then with its preset's numbers."""
    job = parse_options(arguments)
    device = select_device(job)
    where, why = choose_data_source(job)
    source = find_or_fetch_data(where, home, console)
    console.print(f"Training on {source.root} ({why}): {describe(source)}.")
    begun = load(Path(job.initial_weights)) if job.initial_weights else None
    config = finetune_config(begun, job.recipe, 2) if begun else job.recipe.network(2)
    data = prepare_data(source, home, console, config.side, job.prepared_gigabytes)
    preset, reason = choose_preset(job, len(data.train), demo=data.root == home.demo)
    if job.preset == "auto":
        job = parse_flags(arguments, Options(recipe=PRESETS[preset]))
    console.print(f"Preset {preset}: {reason}.")
    config = job.recipe.network(len(data.names))
    if begun:
        config = finetune_config(begun, job.recipe, len(data.names))
    told = RunSpec(
        data, job.recipe, begun.identity if begun else None, choose_precision(job, device)
    )
    return Plan(job, preset, told, config, begun, device)


def choose_precision(job: Options, device: torch.device) -> Literal["f32", "bf16"]:
    """The precision asked for, else what the device is good at."""
    # DEVIATION: layers compute in bf16 where the processor has it because such processors multiply
    # it several times as fast; weights, update and softmax stay float32, --precision f32 forces it.
    if job.precision == "auto":
        return "bf16" if has_bf16(device) else "f32"
    return job.precision


def find_or_fetch_data(where: str | None, home: Home, console: Console) -> Folder | Shards:
    """Give the photographs, made or fetched when they are known by name."""
    if where is None:
        return find_source(str(make_demo(home.demo)))
    if where == "imagenette":
        console.print("Imagenette: fetched once, 1.6 GB.")
        return find_source(str(imagenette(home.root / "imagenette")))
    return find_source(where)


def select_device(job: Options) -> torch.device:
    """The device of this process: with several GPUs, that of its number on this machine.

    Raises RecipeError when there are too few.
    """
    device = find_device(job.device)
    if device.type == "mps" and not torch.backends.mps.is_available():
        raise RecipeError("--device mps: torch finds no such GPU here; --device cpu does without")
    if device.type != "cuda":
        return device
    gpus, here = torch.cuda.device_count(), int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    if here > gpus:
        raise RecipeError(
            f"--device {job.device} takes a GPU a process: {here} here, where torch finds {gpus}; "
            "--device cpu does without"
        )
    own = torch.device("cuda", local_rank())
    torch.cuda.set_device(own)
    return own


def check_batch_size(told: RunSpec, mesh: Mesh) -> None:
    """Raise RecipeError when a batch is not an image for every replica."""
    images = min(told.recipe.batch, len(told.data.train), len(told.data.val))
    if images < mesh.replicas:
        raise RecipeError(f"{mesh.replicas} replicas cannot share batches of {images} images")


def check_disk_space(config: AlexNetConfig, home: Home) -> None:
    """Raise RunError unless the disk has room for the run's files."""
    with torch.device("meta"):
        parameters = sum(p.numel() for p in AlexNet(config).parameters())
    need, free = COPIES_ON_DISK * 4 * parameters, shutil.disk_usage(home.root).free
    if need > free:
        raise RunError(
            f"a run needs {need / 1e9:.1f} GB for checkpoints and weights under {home.runs}, where "
            f"{free / 1e9:.1f} GB are free; make room or set ALEXNET_HOME to another disk"
        )


def start_or_resume(
    plan: Plan, home: Home, mesh: Mesh, console: Console
) -> tuple[RunFolder | None, TrainingState]:
    """Begin a run, or take up one that was cut off; the run is None where nothing is written."""
    told, job = plan.told, plan.job
    state = init_state(plan.config, told.recipe, plan.device, mesh)
    if plan.start:
        init_from(plan.start, state)
    record = find_unfinished_run(job, home, told)
    if record is None:
        made = new_run(home, told, plan.preset) if mesh.is_main else None
        if made:
            start_file = str(Path(job.initial_weights).absolute()) if job.initial_weights else None
            made.update_description(start_file=start_file, options=options_to_json(job))
        return made, state
    resume(record, job, told, state)
    if not mesh.is_main:
        return None, state
    record.update_description(**told.to_json(), options=options_to_json(job))
    record.write_epochs(state.history)
    where = f"epoch {len(state.history)}, step {state.progress.step}"
    console.print(f"Going on with {record.path.name} after {where}.")
    return record, state


def prepare_data(
    source: Folder | Shards, home: Home, console: Console, side: int, gigabytes: float
) -> Prepared:
    """Decode the photographs, with a bar; name those that cannot be read."""
    budget = round(gigabytes * GIGABYTE)
    with bar(console, "decoding", expected(source)) as advance:
        data = prepare(source, home.prepared, advance, side=side, budget=budget)
    if data.unreadable:
        console.print(f"{len(data.unreadable)} photographs cannot be read and are left out:")
        for line in data.unreadable:
            console.print(f"  {line}", markup=False)
    return data

"""Train a network, from the command line to the weights: prepare, train, measure, write."""

import shutil
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import torch
from rich.console import Console

from model.dataset.folder import FolderError, ImageFolder
from model.formats.cfg_file import DefinitionError
from model.network.alexnet import AlexNet
from model.network.config import AlexNetConfig, ConfigError
from model.weights.checkpoint import Weights, load_weights
from model.weights.header import WeightsError
from storage.activity import record_activity
from storage.files import switch_link, write_atomically
from storage.home import Home
from storage.progress import count_up, ignore_progress, show_progress_bar, show_step_bars
from storage.runs import RunFolder
from training.dataset.fetch import FetchError, fetch_imagenette
from training.dataset.find_source import (
    DataError,
    Found,
    count_expected_photographs,
    describe_source,
    find_source,
)
from training.dataset.prepare import PreparedDataset, prepare
from training.dataset.split import make_split
from training.distributed.heartbeat import watch_peers
from training.distributed.mesh import Mesh, detect_lost_peers, join_mesh, leave_mesh
from training.distributed.signals import catch_stop_signals
from training.optimisation.device import (
    choose_precision,
    compile_network,
    keep_freed_memory,
    select_device,
    set_tf32,
    share_cores,
    use_deterministic_algorithms,
)
from training.optimisation.divergence import DivergedError
from training.optimisation.loop import train_network
from training.optimisation.start import init_from_weights
from training.optimisation.state import TrainingState, init_state
from training.optimisation.validate import measure_ten_crops
from training.pretrained import start_from_pretrained, use_pretrained
from training.recipe.config import Recipe, RecipeError, finetune_config
from training.recipe.config_file import format_config
from training.recipe.options import (
    Options,
    choose_data_source,
    choose_preset,
    parse_options,
    parse_with_preset,
)
from training.records.callbacks import StoppedError
from training.records.reporting import report_run, write_environment
from training.records.resume import (
    check_photographs,
    find_finished_run,
    record_end,
    start_or_resume,
)
from training.records.run_folder import RunError, RunSpec, finish_run, hide_query
from training.records.step_profile import profile_steps

EXPECTED_ERRORS = (
    FolderError,
    DataError,
    ConfigError,
    RecipeError,
    WeightsError,
    RunError,
    FetchError,
    DivergedError,
    DefinitionError,
    OSError,
)
"""Errors of the command line, the photographs, the disk or the recipe: one line, exit code 2."""
CHECKPOINT_COPIES = 2
"""Copies of the parameters in a checkpoint: weights and velocities."""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """Everything that is decided before training starts."""

    options: Options
    preset: str
    spec: RunSpec
    config: AlexNetConfig
    initial_weights: Weights | None
    device: torch.device


def train_from_options(
    arguments: Sequence[str], home: Home, console: Console, on_resumable: Callable[[str], None]
) -> Path | None:
    """Train as the command line says; return the weights file in rank 0, None in other processes.

    on_resumable: called with how to resume the run, as soon as it can be resumed.

    Raises one of EXPECTED_ERRORS, StoppedError or PeerLostError.
    """
    keep_freed_memory()
    share_cores()
    options = parse_options(arguments)
    if weights := use_pretrained(options, choose_data_source(options)[0], home, console):
        return weights
    plan = make_plan(options, arguments, home, console)
    if plan.options.if_needed and (run := find_finished_run(home, plan.spec)):
        switch_link(home.weights, run.weights)
        console.print(f"Nothing to train: {run.path.name} is finished; using its weights.")
        return run.weights
    if not plan.options.resume:
        check_disk_space(plan.config, plan.spec.recipe, home)
    set_tf32(plan.options.tf32)
    if plan.options.deterministic:
        use_deterministic_algorithms()
    with detect_lost_peers():
        mesh = join_mesh(plan.config, plan.options.towers, plan.device)
        try:
            with watch_peers():
                weights = train_run(plan, home, mesh, console, on_resumable)
        except StoppedError:
            leave_mesh()
            raise
    leave_mesh()
    return weights


def make_plan(options: Options, arguments: Sequence[str], home: Home, console: Console) -> Plan:
    """Prepare the photographs and decide on the recipe.

    If no preset is named, the number of photographs decides it; then the command line is parsed
    again with that preset's defaults.
    """
    device = select_device(options)
    data_name, reason = choose_data_source(options)
    if data_name is not None and options.split is not None:
        data_name = str(make_split(Path(data_name), options.split, options.split_seed, home.splits))
    source = find_or_fetch_data(data_name, home, console)
    console.print(f"Training on {hide_query(source.root)} ({reason}): {describe_source(source)}.")
    if options.resume:
        check_photographs(RunFolder(Path(options.resume)), source, home.prepared, options.accept)
    images = len(source.train) if isinstance(source, ImageFolder) else None
    started = start_from_pretrained(options, images, home)
    if started != options:
        console.print(
            "Starting from the weights that ship with the project; `--from scratch` starts from "
            "random ones, as in the paper."
        )
    options = started
    initial = read_initial_weights(options)
    config = choose_network_config(options, initial, classes=2)
    data = prepare_data(source, home, console, config, options.prepared_gigabytes)
    preset, reason = choose_preset(options, len(data.train), demo=data.root == home.demo)
    if options.preset == "auto":
        options = parse_with_preset(arguments, preset, options.initial_weights)
    if not initial:
        check_start(options)
    console.print(f"Preset {preset}: {reason}.")
    spec = RunSpec(
        data,
        options.recipe,
        initial.identity if initial else None,
        choose_precision(options, device),
    )
    return Plan(
        options=options,
        preset=preset,
        spec=spec,
        config=choose_network_config(options, initial, len(data.class_names)),
        initial_weights=initial,
        device=device,
    )


def read_initial_weights(options: Options) -> Weights | None:
    """Return the weights to start from, None for random ones. Raises WeightsError."""
    if options.initial_weights is None or not options.starts_from_weights:
        return None
    return load_weights(Path(options.initial_weights))


def check_start(options: Options) -> None:
    """Raise RecipeError for a recipe that random weights cannot be trained with."""
    needing = {
        "--freeze-conv, which is part of the preset demo,": options.recipe.freeze_conv,
        "--from-layers": bool(options.recipe.from_layers),
        f"the preset {options.preset}": options.preset in ("finetune", "finetune-small"),
    }
    for what, is_set in needing.items():
        if is_set:
            raise RecipeError(
                f"{what} needs weights to start from: name them with --from, or take the preset "
                "small or demo-from-scratch"
            )


def choose_network_config(options: Options, initial: Weights | None, classes: int) -> AlexNetConfig:
    """Return the configuration of the network to train."""
    if initial:
        return finetune_config(initial, options.recipe, classes)
    return options.recipe.network(classes)


def find_or_fetch_data(name: str | None, home: Home, console: Console) -> Found:
    """Find the photographs; create the demo set (None) or download Imagenette if missing."""
    if name is None:
        from training.dataset.demo import make_demo  # scikit-image is slow to import

        return find_source(str(make_demo(home.demo)))
    if name == "imagenette":
        with show_step_bars(console) as report:
            return find_source(str(fetch_imagenette(home.imagenette, report)))
    return find_source(name)


def prepare_data(
    source: Found,
    home: Home,
    console: Console,
    config: AlexNetConfig,
    gigabytes: float,
) -> PreparedDataset:
    """Decode the photographs for a network, with a progress bar; list those that are unreadable."""
    total = count_expected_photographs(source)
    with (
        show_progress_bar(console, "decoding", total) as advance,
        record_activity(home.training_activity, ignore_progress) as report,
    ):
        data = prepare(
            source,
            home.prepared,
            count_up(advance, report("Decoding the photographs", total or 0)),
            side=config.side,
            resize=config.resize,
            budget=round(gigabytes * 1e9),
        )
    if data.unreadable:
        console.print(f"Left out {len(data.unreadable)} photographs that cannot be read:")
        for line in data.unreadable:
            console.print(f"  {line}")
    return data


def check_disk_space(config: AlexNetConfig, recipe: Recipe, home: Home) -> None:
    """Raise RunError if the disk has too little space for a run's files.

    The last two checkpoints stay while another is written, and those at drops of the rate; the best
    weights stay while others are.
    """
    with torch.device("meta"):
        parameters = sum(p.numel() for p in AlexNet(config).parameters())
    drops = 0 if recipe.schedule != "plateau" else len(recipe.drop_after) or recipe.drops
    copies = CHECKPOINT_COPIES * (3 + drops) + 2
    need, free = copies * 4 * parameters, shutil.disk_usage(home.root).free
    if need > free:
        raise RunError(
            f"a run needs {need / 1e9:.1f} GB for checkpoints and weights under {home.runs}, but "
            f"only {free / 1e9:.1f} GB are free; make room or set ALEXNET_HOME to another disk"
        )


def train_run(
    plan: Plan, home: Home, mesh: Mesh, console: Console, on_resumable: Callable[[str], None]
) -> Path | None:
    """Train and measure, as one process of the run; rank 0 writes the run's files.

    Returns the weights file in rank 0, None in other processes.
    """
    options, spec = plan.options, plan.spec
    check_batch_size(spec, mesh)
    state = init_state(plan.config, spec.recipe, plan.device, mesh)
    if plan.initial_weights:
        start = init_from_weights(plan.initial_weights, state, spec.recipe.from_layers)
        if mesh.is_main and not options.resume:
            console.print(start.describe())
    with ExitStack() as until_end:
        run = start_or_resume(options, spec, plan.preset, state, home, console, until_end)
        until_end.enter_context(record_end(run, spec.recipe))
        # The images of the whole run, so that a resumed one is compiled, and computes, alike.
        images = len(spec.data.train) * spec.recipe.epochs
        compiled = compile_network(state, options.compile, images, spec.precision)
        console.print(
            f"{len(spec.data.train):,} images, {spec.precision}, {plan.device.type}, "
            f"{mesh.replicas} × {mesh.towers} processes, {compiled}."
        )
        if run:
            write_environment(run, plan.device, spec.precision, mesh.replicas * mesh.towers)
            write_atomically(run.config, format_config(options, plan.preset))
            on_resumable(f"To resume: python training/run.py --resume {run.path}")
        ten_crop_errors = train_and_measure(plan, state, run, console)
        tensors = mesh.gather(state.network.state_dict(), plan.config)
        if run is None:
            return None
        weights = finish_run(run, home, state, spec, tensors, ten_crop_errors)
    console.print(f"Wrote weights {weights.identity} to {run.weights}.")
    return run.weights


def train_and_measure(
    plan: Plan, state: TrainingState, run: RunFolder | None, console: Console
) -> tuple[float, float] | None:
    """Train until the recipe ends the run; return the errors with ten crops if they are wanted."""
    options, spec = plan.options, plan.spec
    with (
        catch_stop_signals() as stop_signal,
        report_run(
            run,
            spec,
            console,
            stop_signal,
            options.checkpoint_seconds,
            options.report_seconds,
            options.log,
        ) as reports,
        profile_steps(run, options.profile, reports) as callbacks,
    ):
        try:
            train_network(state, spec.data, spec.recipe, spec.precision, callbacks)
            # So that training is not lost if the last measurement fails.
            callbacks.save_checkpoint(state)
            if not options.ten_crops:
                return None
            return measure_ten_crops(state, spec, spec.precision, console, callbacks)
        except StoppedError:
            if run:
                console.print(
                    f"Saved. To resume: python training/run.py --resume {run.path}", markup=False
                )
            raise


def check_batch_size(spec: RunSpec, mesh: Mesh) -> None:
    """Raise RecipeError if a batch has fewer images than there are replicas."""
    images = min(spec.recipe.batch, len(spec.data.train), len(spec.data.val))
    if images < mesh.replicas:
        raise RecipeError(f"{mesh.replicas} replicas cannot share batches of {images} images")

"""`python experiments/run.py NAME --data DIR`: one of the paper's claims, measured.

NAME is an experiment; `list` shows them all, and `report` writes docs/findings.md from the results
that are there. Arms and seeds take turns, each run leaves one small file under experiments/results,
and the same command goes on where it was stopped.
"""

import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

if not __package__:
    # Run as a script, Python puts this file's folder on the path, not the project's root.
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import tyro
from rich.console import Console

from experiments.claims.experiment import CIFAR10_CLASSES, Experiment, find_data_kind
from experiments.claims.listing import make_listing
from experiments.claims.page import write_report
from experiments.claims.registry import EXPERIMENTS
from experiments.claims.result import ResultError, read_results
from experiments.claims.runner import Workplace, choose_setting
from experiments.claims.special import run_experiment
from model.dataset.folder import ImageFolder
from storage.findings import RESULTS
from storage.home import home_from_environment
from storage.pretrained import SHIPPED
from training.dataset.find_source import find_source
from training.dataset.prepare import prepare
from training.distributed.signals import catch_stop_signals
from training.optimisation.device import keep_freed_memory
from training.recipe.options import Options as TrainingOptions
from training.recipe.options import choose_data_source
from training.records.callbacks import StoppedError
from training.train import EXPECTED_ERRORS

CIFAR_SIDE, PHOTOGRAPH_SIDE = 32, 256


@dataclass(frozen=True, kw_only=True)
class Options:
    """Measure one of the paper's claims; go on where the same command was stopped."""

    name: tyro.conf.Positional[str]
    """The experiment; or `list`, or `report`."""
    data: str | None = None
    """Folder of photographs. Default: the folder named by ALEXNET_DATA."""
    seeds: int | None = None
    """How often each arm is trained. Default: the experiment's own."""
    arms: tuple[str, ...] = ()
    """The arms to run, to divide them between machines or cores. Default: all."""
    budget: float | None = None
    """Minutes after which it stops, to be continued. Default: the experiment's own."""
    epochs: int | None = None
    """Epochs of each run. Default: the experiment's own."""
    images: int | None = None
    """Training images of each run. Default: the experiment's own."""
    precision: Literal["auto", "f32", "bf16"] = "auto"
    """Precision of the layers' arithmetic."""
    results: Path = RESULTS
    """Folder for the runs' results."""
    weights: Path = SHIPPED.weights
    """For `neighbours`: the weights whose features are compared."""


def main() -> None:
    """Run, list or report."""
    options, console = tyro.cli(Options), Console()
    try:
        if options.name == "list":
            console.print(make_listing(read_results(options.results)))
        elif options.name == "report":
            write_report(read_results(), console)
        elif options.name in EXPERIMENTS:
            run(EXPERIMENTS[options.name], options, console)
        else:
            known = ", ".join(EXPERIMENTS)
            raise ResultError(f"there is no experiment {options.name}; choose from {known}")
    except StoppedError:
        console.print("Stopped. The same command goes on from here.")
    except (*EXPECTED_ERRORS, ResultError) as error:
        sys.exit(str(error))


def run(experiment: Experiment, options: Options, console: Console) -> None:
    """Run what is missing of an experiment, until its budget is spent."""
    started = time.monotonic()
    keep_freed_memory()
    home = home_from_environment()
    folder = choose_data_source(TrainingOptions(data=options.data))[0]
    if folder is None:
        raise ResultError(f"name the photographs: {experiment.name} --data DIR")
    source = find_source(folder)
    folders = {c.folder for c in source.classes} if isinstance(source, ImageFolder) else set()
    side = CIFAR_SIDE if folders == CIFAR10_CLASSES else PHOTOGRAPH_SIDE
    # Compiling takes longer than it saves where a run takes minutes.
    training = TrainingOptions(
        precision=options.precision, compile="off" if side == CIFAR_SIDE else "auto"
    )
    data = prepare(source, home.prepared, lambda _: None, side=side)
    setting = choose_setting(experiment, data, options.epochs, options.images, options.arms)
    seeds = options.seeds or setting.seeds
    minutes = options.budget or setting.minutes
    console.print(
        f"{experiment.name} on {find_data_kind(data.class_names)}: {seeds} seeds, "
        f"{setting.epochs} epochs, at most {minutes:,.0f} minutes."
    )
    with catch_stop_signals() as stop_signal:
        work = Workplace(
            data=data,
            home=home,
            options=training,
            console=console,
            results=options.results,
            stop_signal=stop_signal,
            deadline=started + 60 * minutes,
        )
        run_experiment(experiment, setting, seeds, options.weights, work)
    console.print("Finished. `python experiments/run.py report` writes docs/findings.md.")


if __name__ == "__main__":
    main()

"""Run an experiment: what is missing of its runs, all arms of one seed before the next seed's."""

import hashlib
import json
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from signal import SIGTERM

import numpy as np
import numpy.typing as npt
from rich.console import Console

from experiments.arms import Arm
from experiments.claims.experiment import DATA_LABELS, Experiment, Setting, find_data_kind
from experiments.claims.result import (
    ResultError,
    RunResult,
    find_same_run,
    name_result,
    read_result,
)
from experiments.claims.train import Parts, Trained, describe_run, divide, train_run
from model.weights.checkpoint import save_weights
from storage.findings import RESULTS
from storage.home import Home
from storage.runs import RunFolder
from training.dataset.prepare import PreparedDataset
from training.optimisation.device import choose_precision, select_device
from training.recipe.config import Recipe
from training.recipe.options import Options
from training.records.run_folder import RunSpec, make_weights

Probabilities = npt.NDArray[np.float16]


@dataclass(frozen=True, kw_only=True)
class Workplace:
    """Where an experiment runs.

    home: holds what a stopped run continues from, and predictions, none of which is committed.
    results: the folder of results. seconds: the budget; no further step is taken after it.
    """

    data: PreparedDataset
    home: Home
    options: Options
    console: Console
    stop_signal: Callable[[], int]
    deadline: float
    results: Path = RESULTS

    def is_time_over(self) -> int:
        """Return the signal to stop on: one that was received, or SIGTERM after the deadline."""
        return self.stop_signal() or (SIGTERM if time.monotonic() > self.deadline else 0)

    @property
    def precision(self) -> str:
        """What the layers compute in."""
        return choose_precision(self.options, select_device(self.options))


def choose_setting(
    experiment: Experiment,
    data: PreparedDataset,
    epochs: int | None,
    images: int | None,
    arms: Sequence[str] = (),
) -> Setting:
    """Return how an experiment runs on this data. Raises ResultError if it does not.

    arms: those to run; none named: all.
    """
    kind = find_data_kind(data.class_names)
    if not experiment.settings:
        raise ResultError(
            f"{experiment.name} is read from the runs of other experiments: run one of those, then "
            "`python experiments/run.py report`"
        )
    if kind not in experiment.settings:
        known = " or ".join(DATA_LABELS[one] for one in experiment.settings)
        raise ResultError(
            f"{experiment.name} runs on {known}, and {data.root} is {DATA_LABELS[kind]}"
        )
    setting = experiment.settings[kind]
    if arms and experiment.special == "chain":
        raise ResultError(f"{experiment.name} runs whole: each network starts from the one before")
    made = tuple(setting.make_arms(1))
    for name in arms:
        if name not in made:
            choice = ", ".join(made)
            raise ResultError(f"{experiment.name} has no arm {name}; choose from {choice}")
    return replace(
        setting,
        epochs=epochs or setting.epochs,
        images=images or setting.images,
        only=tuple(arms),
    )


def run_arms_interleaved(
    experiment: Experiment, setting: Setting, seeds: int, work: Workplace
) -> Iterator[tuple[Arm, RunResult]]:
    """Run what is missing, and yield each arm with its result. Raises StoppedError."""
    parts = divide(work.data, setting)
    arms = setting.choose_arms(setting.epochs)
    if setting.rates:
        arms = {
            name: replace(recipe, rate=search_rate(experiment, name, setting, work))
            for name, recipe in arms.items()
        }
    for seed in range(seeds):
        for name, recipe in arms.items():
            if seed < setting.count_seeds(name, seeds):
                arm = Arm(name=name, recipe=replace(recipe, seed=seed))
                yield arm, run_or_read(experiment, arm, parts, setting, work)


def search_rate(experiment: Experiment, name: str, setting: Setting, work: Workplace) -> float:
    """Find an arm's best rate, training on images that the measured runs do not see."""
    parts = divide(work.data, setting, search=True)
    found: dict[float, RunResult] = {}
    for rate in setting.rates:
        recipe: Recipe = setting.make_arms(setting.search_epochs)[name]
        arm = Arm(name=f"{name}, rate {rate:g}", recipe=replace(recipe, rate=rate))
        found[rate] = run_or_read(experiment, arm, parts, setting, work, search=True)
    return choose_rate(found)


def choose_rate(found: Mapping[float, RunResult]) -> float:
    """Return the rate with the lowest training error in the fewest epochs. Raises ResultError.

    A run ends at the target: of those that reached it the shortest wins, of equally long ones, and
    where none did, the lowest error.
    """
    good = {rate: run for rate, run in found.items() if not run.diverged}
    if not good:
        raise ResultError("every rate that was tried diverges")

    def order(rate: float) -> tuple[int, float, float]:
        last = good[rate].curve[-1]
        return last.epoch, last.training_error or 0.0, rate

    return min(good, key=order)


def run_or_read(
    experiment: Experiment,
    arm: Arm,
    parts: Parts,
    setting: Setting,
    work: Workplace,
    *,
    search: bool = False,
    keep_weights: bool = False,
) -> RunResult:
    """Return a run's result: read if it is there, else copied from the same run, else made.

    keep_weights: also have its weights in the home. Raises StoppedError.
    """
    described = describe_run(experiment.name, arm, parts, work.precision, search=search)
    relative = name_result(experiment.name, parts.data, described.epochs, arm.name, described.seed)
    file = work.results / relative
    weights = weights_file(experiment, arm, parts, work)
    made = file.exists() and read_result(file).identity == described.identity
    if made and (weights.exists() or not keep_weights):
        return read_result(file)
    # A run that may end early, or whose weights are wanted, is no other experiment's.
    own = setting.target is not None or setting.plateau or keep_weights
    for same in [] if own else find_same_run(described.identity, work.results):
        if experiment.special == "ensemble" and not predictions_file(same, work.home).exists():
            continue
        result = replace(
            same, experiment=experiment.name, arm=arm.name, copied_from=same.experiment
        )
        result.write(file)
        work.console.print(f"{relative}: the same run as in {same.experiment}")
        return result
    folder = work.home.root / "experiments" / digest(described)
    trained = train_run(
        *(described, arm, parts, setting, folder),
        *(work.options, work.console, work.is_time_over),
    )
    if len(trained.probabilities):
        save_arrays(trained, work.home)
    if keep_weights:
        save_kept_weights(trained, arm, parts, weights)
    trained.result.write(file)
    shutil.rmtree(folder, ignore_errors=True)
    work.console.print(f"{relative}: {summarise(trained.result)}")
    return trained.result


def digest(run: RunResult) -> str:
    """Digest what identifies a run, for the name of a file or a folder."""
    values = [run.purpose, run.identity]
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:16]


def weights_file(experiment: Experiment, arm: Arm, parts: Parts, work: Workplace) -> Path:
    """Return where a run's weights are kept, if they are."""
    described = describe_run(experiment.name, arm, parts, work.precision, search=False)
    return work.home.root / "experiments" / "weights" / f"{digest(described)}.safetensors"


def save_kept_weights(trained: Trained, arm: Arm, parts: Parts, file: Path) -> None:
    """Save a run's weights, for another run to start from. Raises ResultError if it diverged."""
    if trained.result.diverged:
        raise ResultError(f"{arm.name} diverged: {trained.result.diverged}")
    spec = RunSpec(parts.train, arm.recipe)
    state = trained.state
    made = make_weights(state, spec, RunFolder(file.parent), dict(state.network.state_dict()))
    file.parent.mkdir(parents=True, exist_ok=True)
    save_weights(made, file)


def predictions_file(run: RunResult, home: Home) -> Path:
    """Return where a run's predictions of the test images lie."""
    return home.root / "experiments" / "predictions" / f"{digest(run)}.npy"


def conv1_file(run: RunResult, home: Home) -> Path:
    """Return where a run's first kernels lie."""
    return home.root / "experiments" / "conv1" / f"{digest(run)}.npy"


def save_arrays(trained: Trained, home: Home) -> None:
    """Save a run's predictions, for ensembles, and its first kernels, for a picture."""
    for file, array in (
        (predictions_file(trained.result, home), trained.probabilities),
        (conv1_file(trained.result, home), trained.conv1),
    ):
        file.parent.mkdir(parents=True, exist_ok=True)
        np.save(file, array)


def load_predictions(run: RunResult, home: Home) -> Probabilities:
    """Load a run's predictions. Raises ResultError if they are not there."""
    try:
        found: Probabilities = np.load(predictions_file(run, home))
    except OSError as error:
        raise ResultError(f"{run.arm}, seed {run.seed}: its predictions are gone") from error
    return found


def summarise(run: RunResult) -> str:
    """Say in a line what a run came to."""
    if run.diverged:
        return run.diverged
    errors = ", ".join(f"{name} {count.error:.2%}" for name, count in run.errors.items())
    if not run.errors:
        errors = f"training error {run.curve[-1].training_error or 0:.2%}"
    return f"{errors}; {run.cpu_seconds:.0f} s of processor time"

"""What is read of a run's result, to be compared between arms."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from statistics import fmean
from typing import NamedTuple

from experiments.claims.result import RunResult, unpack
from storage.findings import Unit

CONVERGED = 1.05
"""A run has converged at the first epoch whose error held out is within this factor of its best."""
NEIGHBOURS = 6
"""Nearest training images that are looked at, as in the paper's Figure 4."""
TARGET = 0.25
"""The training error of Figure 1."""


class Reading(NamedTuple):
    """A value; at_least: whether the run ended before it was reached, so that it is larger."""

    value: float
    at_least: bool = False


@dataclass(frozen=True, kw_only=True)
class Measure:
    """What is measured of a run; read_pair: of two, where it depends on both."""

    label: str
    unit: Unit
    read: Callable[[RunResult], Reading | None]
    read_pair: Callable[[RunResult, RunResult], tuple[Reading, Reading] | None] | None = None

    def compare(self, more: RunResult, less: RunResult) -> tuple[Reading, Reading] | None:
        """Read both runs of a pair; None if one of them has no value."""
        if self.read_pair:
            return self.read_pair(more, less)
        first, second = self.read(more), self.read(less)
        return (first, second) if first and second else None


def read_error(run: RunResult, crops: str) -> Reading | None:
    """Read the top-1 error on the test images."""
    count = run.errors.get(f"{crops} top-1")
    return Reading(count.error) if count else None


def read_training_error(run: RunResult) -> Reading | None:
    """Read the last training error."""
    last = run.curve[-1].training_error if run.curve else None
    return None if last is None else Reading(last)


def read_gap(run: RunResult) -> Reading | None:
    """Read how far the test error, by the centre crop, is above the training error."""
    test, training = read_error(run, "centre"), read_training_error(run)
    return Reading(test.value - training.value) if test and training else None


def read_epochs_to(run: RunResult, target: float) -> Reading | None:
    """Read how many epochs it took to a training error, between epochs along a straight line."""
    before: tuple[float, float] | None = None
    for point in run.curve:
        error = point.training_error
        if error is None:
            continue
        if error <= target:
            if before is None or before[1] <= error:
                return Reading(float(point.epoch))
            share = (before[1] - target) / (before[1] - error)
            return Reading(before[0] + share * (point.epoch - before[0]))
        before = (float(point.epoch), error)
    return Reading(before[0], at_least=True) if before else None


def read_epochs_to_common_error(more: RunResult, less: RunResult) -> tuple[Reading, Reading] | None:
    """Read how many epochs each run of a pair took to the lowest training error of the worse."""
    lowest = [
        min((p.training_error for p in run.curve if p.training_error is not None), default=None)
        for run in (more, less)
    ]
    known = [error for error in lowest if error is not None]
    if len(known) < len(lowest):
        return None
    first, second = read_epochs_to(more, max(known)), read_epochs_to(less, max(known))
    return (first, second) if first and second else None


def read_epochs_to_converge(run: RunResult) -> Reading | None:
    """Read the first epoch whose error held out is nearly the run's lowest."""
    errors = [point.held_out_error for point in run.curve]
    if not errors:
        return None
    converged = next(n for n, e in enumerate(errors, 1) if e <= CONVERGED * min(errors))
    # The last epoch's error may not be the lowest that more would have reached.
    return Reading(float(converged), at_least=converged == len(errors))


def read_steps(run: RunResult) -> Reading | None:
    """Read the steps on the first plateau."""
    steps = run.measured.get("steps")
    return Reading(steps, at_least=not run.measured["left the plateau"]) if steps else None


def read_precision(run: RunResult) -> Reading | None:
    """Read the share of a query's nearest images that are of its class, over all queries."""
    if hits := run.per_image.get("hits"):
        return Reading(fmean(unpack(hits).tolist()) / NEIGHBOURS)
    chance = run.measured.get("precision")
    return None if chance is None else Reading(chance)


MEASURES: Mapping[str, Measure] = {
    "error, crops": Measure(
        label="top-1 error, crops averaged",
        unit="share",
        read=lambda run: read_error(run, "crops"),
    ),
    "training error": Measure(label="top-1 training error", unit="share", read=read_training_error),
    "gap": Measure(label="test error above training error", unit="share", read=read_gap),
    "epochs to 25 %": Measure(
        label="epochs to 25 % training error",
        unit="number",
        read=lambda run: read_epochs_to(run, TARGET),
    ),
    "epochs to the lowest error of both": Measure(
        label="epochs to the lowest training error that both reached",
        unit="number",
        read=lambda _: None,
        read_pair=read_epochs_to_common_error,
    ),
    "epochs to converge": Measure(
        label="epochs until the error held out is within a twentieth of its lowest",
        unit="number",
        read=read_epochs_to_converge,
    ),
    "steps on the plateau": Measure(
        label="steps on the first plateau", unit="number", read=read_steps
    ),
    "precision of six": Measure(
        label="precision of the six nearest", unit="share", read=read_precision
    ),
}

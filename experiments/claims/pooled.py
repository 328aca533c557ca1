"""Claims about all runs of whatever experiment, and about several networks together."""

from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from experiments.claims.experiment import DATA_LABELS, DataKind
from experiments.claims.recipes import APART, ONE_TOWER
from experiments.claims.result import RunResult, unpack
from experiments.claims.statistics import Interval, find_mean_interval, judge
from storage.findings import ArmFigures, DataFindings, Effect, Unit, Verdict
from training.evaluation.confidence import error_rate

ONE, FIVE, MEMBERS = "one network", "five averaged", 5
MIN_EPOCHS, MIN_RUNS, SIGNIFICANT = 20, 5, 0.05
"""Of runs whose halves are compared; how many there must be; and the p-value of a difference."""
TOGETHER_DIFFER, APART_DIFFER = "towers that differ", "towers apart that differ"
HALVES_DIFFER = "halves of one tower that differ"
SELECTIVITY = "mean colour selectivity"
POOLED: Mapping[str, tuple[str, Unit]] = {
    "crops against centre": ("top-1 error", "share"),
    "one against five": ("top-1 error, crops averaged", "share"),
    TOGETHER_DIFFER: (SELECTIVITY, "number"),
    APART_DIFFER: (SELECTIVITY, "number"),
    HALVES_DIFFER: (SELECTIVITY, "number"),
}
"""What is compared, by the name of the measure, and its unit."""
COUNTED = (TOGETHER_DIFFER, APART_DIFFER, HALVES_DIFFER)
"""Measures that count the runs that do as the claim says."""


def make_pooled(
    measure: str, groups: Mapping[DataKind, list[RunResult]], results: Sequence[RunResult]
) -> Iterator[DataFindings]:
    """Yield what a measure came to on each kind of data that has runs for it."""
    every = [
        run
        for run in results
        if run.purpose == "measurement" and not run.copied_from and not run.diverged
    ]
    for kind in DATA_LABELS:
        own = [run for run in every if run.data.kind == kind]
        match measure:
            case "crops against centre":
                found = compare_crops(kind, own)
            case "one against five":
                found = compare_ensemble(kind, groups[kind])
            case _:
                found = count_differing_runs(kind, measure, own)
        if found:
            yield found


def find_halves_measure(run: RunResult) -> str:
    """Return which measure a run's halves of conv1 belong to."""
    variant = run.recipe.get("variant")
    if variant in ONE_TOWER:
        return HALVES_DIFFER
    return APART_DIFFER if variant in APART else TOGETHER_DIFFER


def compare_crops(kind: DataKind, runs: Sequence[RunResult]) -> DataFindings | None:
    """Compare the error of all crops with that of the centre crop, run by run."""
    # Of a network that sees the whole image, there is one crop.
    several = [
        run
        for run in runs
        if {"centre", "crops"} <= set(run.per_image)
        and run.per_image["centre"] != run.per_image["crops"]
    ]
    if not several:
        return None
    errors = {
        name: [run.errors[f"{key} top-1"].error for run in several]
        for name, key in (("centre crop", "centre"), ("crops averaged", "crops"))
    }
    first, second = errors.values()
    difference = find_mean_interval(np.subtract(first, second))
    effect = make_effect("centre crop", "crops averaged", difference, len(several), "runs")
    arms = tuple(make_arm(name, values) for name, values in errors.items())
    return make_data(kind, f"{len(several)} runs of all experiments", arms, effect)


def compare_ensemble(kind: DataKind, runs: Sequence[RunResult]) -> DataFindings | None:
    """Compare the mean error of one network with that of five averaged, image by image."""
    ones = [run for run in runs if run.arm == ONE and run.curve]
    if not ones:
        return None
    first = ones[0]
    five = next((r for r in runs if r.arm == FIVE and is_same_length(r, first)), None)
    if five is None:
        return None
    wrong = np.mean([unpack(run.per_image["crops"]) for run in ones], axis=0)
    difference = find_mean_interval(wrong - unpack(five.per_image["crops"]))
    effect = make_effect(ONE, FIVE, difference, len(wrong), "images")
    arms = (
        make_arm(ONE, [run.errors["crops top-1"].error for run in ones]),
        make_arm(FIVE, [five.errors["crops top-1"].error]),
    )
    setting = (
        f"{first.data.train:,} training images, {first.epochs} epochs, {first.precision}, "
        f"{first.data.test:,} test images"
    )
    return make_data(kind, setting, arms, effect)


def is_same_length(run: RunResult, other: RunResult) -> bool:
    """Return whether two runs had the same images and epochs."""
    return (run.data, run.epochs) == (other.data, other.epochs)


def count_differing_runs(
    kind: DataKind, measure: str, runs: Sequence[RunResult]
) -> DataFindings | None:
    """Count the runs whose halves of conv1 differ in colour selectivity.

    By the claim, those of two towers all do, and those of one tower do not.
    """
    tested = [
        run
        for run in runs
        if find_halves_measure(run) == measure and "p" in run.measured and run.epochs >= MIN_EPOCHS
    ]
    if not tested:
        return None
    differ = np.array([run.measured["p"] <= SIGNIFICANT for run in tested])
    rate = error_rate(differ)
    verdict: Verdict = "held" if np.all(differ != (measure == HALVES_DIFFER)) else "not held"
    reason = f"they differ in {rate.wrong} of {count_runs(rate.images)}"
    if len(tested) < MIN_RUNS:
        verdict = "not resolved"
        reason += f"; the rule asks for {MIN_RUNS}"
    effect = Effect(
        more="first half",
        less="second half",
        value=rate.error,
        low=rate.low,
        high=rate.high,
        compared=rate.images,
        verdict=verdict,
        reason=reason,
    )
    arms = tuple(
        make_arm(
            name,
            [select(run.measured["first half"], run.measured["second half"]) for run in tested],
        )
        for name, select in (("the less selective half", min), ("the more selective half", max))
    )
    setting = f"{count_runs(len(tested))} of at least {MIN_EPOCHS} epochs"
    return make_data(kind, setting, arms, effect)


def count_runs(runs: int) -> str:
    """Say how many runs there are: 1 run, 5 runs."""
    return "1 run" if runs == 1 else f"{runs} runs"


def make_arm(name: str, values: Sequence[float]) -> ArmFigures:
    """Return the mean of an arm's values with its interval."""
    mean = find_mean_interval(values)
    return ArmFigures(arm=name, runs=len(values), mean=mean.mean, low=mean.low, high=mean.high)


def make_effect(more: str, less: str, interval: Interval, compared: int, over: str) -> Effect:
    """Judge that the first has more, by an interval over runs or images."""
    verdict = judge(interval)
    reasons = {"held": "above", "not held": "below"}
    reason = f"zero lies in the interval over {compared:,} {over}"
    if interval.low is None:
        reason = "one run: an interval needs two"
    elif verdict in reasons:
        reason = f"the whole interval, over {compared:,} {over}, is {reasons[verdict]} zero"
    return Effect(
        more=more,
        less=less,
        value=interval.mean,
        low=interval.low,
        high=interval.high,
        compared=compared,
        verdict=verdict,
        reason=reason,
    )


def make_data(
    kind: DataKind, setting: str, arms: tuple[ArmFigures, ...], effect: Effect
) -> DataFindings:
    """Put what was found on one kind of data together."""
    return DataFindings(
        kind=kind,
        data=DATA_LABELS[kind],
        setting=setting,
        arms=arms,
        effects=(effect,),
        verdict=effect.verdict,
    )

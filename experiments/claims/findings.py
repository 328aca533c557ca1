"""The findings, computed from the results: what each claim came to, by statistics.py's rule."""

import math
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import replace
from statistics import fmean

from experiments.claims.experiment import (
    DATA_LABELS,
    Claim,
    Contrast,
    DataKind,
    Experiment,
    label_data,
)
from experiments.claims.measures import MEASURES, NEIGHBOURS, Reading
from experiments.claims.pooled import COUNTED, POOLED, make_pooled
from experiments.claims.registry import EXPERIMENTS
from experiments.claims.result import RunResult, unpack
from experiments.claims.statistics import (
    Interval,
    combine,
    combine_data,
    count_seeds_needed,
    find_mean_interval,
    judge,
)
from storage.findings import (
    FINDINGS_FORMAT,
    ArmErrors,
    ArmFigures,
    ClaimFindings,
    Comparison,
    DataFindings,
    Effect,
    ExperimentFindings,
    Findings,
    RunCurve,
    Verdict,
)
from training.recipe.config import PAPER

ENOUGH_SEEDS = 2
"""Seeds of which there is an interval: a longer run with fewer does not count before a shorter."""


def make_findings(results: Sequence[RunResult]) -> Findings:
    """Compute the findings of all experiments, in the registry's order."""
    own = [run for run in results if not run.copied_from]
    return Findings(
        format=FINDINGS_FORMAT,
        experiments=tuple(judge_experiment(one, results) for one in EXPERIMENTS.values()),
        machines=tuple(sorted({f"{run.machine}, {run.cores} cores" for run in own})),
        cpu_seconds=round(sum(run.cpu_seconds for run in own)),
    )


def judge_experiment(experiment: Experiment, results: Sequence[RunResult]) -> ExperimentFindings:
    """Compute an experiment's findings; each kind of data has one group of runs of equal length."""
    mine = [run for run in results if run.experiment == experiment.name]
    groups = {
        kind: choose_group([run for run in mine if run.data.kind == kind]) for kind in DATA_LABELS
    }
    counted = [run for group in groups.values() for run in group]
    return ExperimentFindings(
        name=experiment.name,
        title=experiment.title,
        section=experiment.section,
        note=experiment.note,
        choice=describe_choice(mine),
        claims=tuple(judge_claim(claim, groups, results) for claim in experiment.claims),
        errors=tuple(list_errors(counted)),
        curves=tuple(make_curve(run) for run in counted if run.curve),
        runs=len(counted),
        cpu_seconds=round(sum(run.cpu_seconds for run in mine if not run.copied_from)),
    )


def describe_choice(runs: Sequence[RunResult]) -> str:
    """Say which learning rates were tried, and which was chosen; empty if none were."""
    # A recipe is kept without the values that are the paper's.
    rates = {run.recipe.get("rate", PAPER.rate) for run in runs if run.purpose == "search"}
    if not rates:
        return ""
    chosen = {
        run.arm: f"{run.arm} {run.recipe.get('rate', PAPER.rate):g}"
        for run in runs
        if run.purpose == "measurement"
    }
    tried = ", ".join(f"{rate:g}" for rate in sorted(rates))
    return f"Learning rates tried: {tried}. Chosen: {', '.join(chosen.values()) or 'none yet'}."


def list_errors(runs: Sequence[RunResult]) -> Iterable[ArmErrors]:
    """Yield the mean test errors of each arm on each kind of data."""
    tested = [run for run in runs if {"crops top-1", "crops top-5"} <= set(run.errors)]
    for kind, arm in dict.fromkeys((run.data.kind, run.arm) for run in tested):
        own = [run.errors for run in tested if (run.data.kind, run.arm) == (kind, arm)]
        yield ArmErrors(
            kind=kind,
            data=label_data(kind),
            arm=arm,
            runs=len(own),
            top1=fmean(errors["crops top-1"].error for errors in own),
            top5=fmean(errors["crops top-5"].error for errors in own),
        )


def choose_group(runs: Sequence[RunResult]) -> list[RunResult]:
    """Choose the runs that count: of equal images, epochs and precision, the longest.

    But of groups in which an arm has one seed, and one in which all have two, the latter.
    """
    groups: dict[tuple[object, ...], list[RunResult]] = defaultdict(list)
    for run in runs:
        if run.purpose == "measurement":
            key = run.data.fingerprint, run.epochs if run.curve else 0, run.precision
            groups[key if run.curve or run.diverged else ("untrained",)].append(run)
    untrained = groups.pop(("untrained",), [])
    if not groups:
        return untrained

    def rank(group: list[RunResult]) -> tuple[int, int]:
        seeds = min(sum(run.arm == arm for run in group) for arm in {run.arm for run in group})
        return min(seeds, ENOUGH_SEEDS), group[0].data.train * group[0].epochs

    return [*max(groups.values(), key=rank), *untrained]


def judge_claim(
    claim: Claim, groups: dict[DataKind, list[RunResult]], results: Sequence[RunResult]
) -> ClaimFindings:
    """Compute what a claim came to on each kind of data, and over all of them."""
    if claim.measure in POOLED:
        label, unit = POOLED[claim.measure]
        found = list(make_pooled(claim.measure, groups, results))
    else:
        measure = MEASURES[claim.measure]
        label, unit = measure.label, measure.unit
        kinds = claim.data or tuple(DATA_LABELS)
        found = [judge_on_data(claim, kind, groups[kind]) for kind in kinds if groups.get(kind)]
    return ClaimFindings(
        statement=claim.statement,
        paper=claim.paper,
        paper_value=claim.paper_value,
        measure=label,
        unit=unit,
        comparison=choose_comparison(claim),
        verdict=combine_data([one.verdict for one in found]),
        data=tuple(found),
    )


def choose_comparison(claim: Claim) -> Comparison:
    """Say how a claim compares its arms."""
    if claim.measure in COUNTED:
        return "count"
    return "ratio" if claim.ratio else "difference"


def judge_on_data(claim: Claim, kind: DataKind, runs: Sequence[RunResult]) -> DataFindings:
    """Compute what a claim came to on one kind of data."""
    effects = tuple(compare_arms(claim, contrast, runs) for contrast in claim.contrasts)
    return DataFindings(
        kind=kind,
        data=DATA_LABELS[kind],
        setting=describe_setting(runs),
        arms=tuple(measure_arms(claim, runs)),
        effects=effects,
        verdict=combine([effect.verdict for effect in effects]),
    )


def describe_setting(runs: Sequence[RunResult]) -> str:
    """Say how long runs of one group were."""
    first, seeds = runs[0], len({run.seed for run in runs})
    tested = f"{first.data.test:,} test images"
    if not first.curve:
        return f"{first.data.train:,} training images, {tested}"
    epochs = "1 epoch" if first.epochs == 1 else f"{first.epochs} epochs"
    return (
        f"{first.data.train:,} training images, {epochs}, {first.precision}, "
        f"{seeds} {'seed' if seeds == 1 else 'seeds'}, {tested}"
    )


def measure_arms(claim: Claim, runs: Sequence[RunResult]) -> Iterable[ArmFigures]:
    """Yield what was measured of each arm that the claim compares."""
    names = dict.fromkeys(name for one in claim.contrasts for name in (one.more, one.less))
    for name in names:
        read = [MEASURES[claim.measure].read(run) for run in runs if run.arm == name]
        values = [reading.value for reading in read if reading and not reading.at_least]
        if values:
            mean = find_mean_interval(values)
            yield ArmFigures(
                arm=name, runs=len(values), mean=mean.mean, low=mean.low, high=mean.high
            )


def compare_arms(claim: Claim, contrast: Contrast, runs: Sequence[RunResult]) -> Effect:
    """Compare two arms: pairs of runs of the same seed, or of the same images."""
    by_seed = {(run.arm, run.seed): run for run in runs if not run.diverged}
    seeds = sorted({run.seed for run in runs})
    pairs = [
        (by_seed[contrast.more, seed], by_seed[contrast.less, seed])
        for seed in seeds
        if (contrast.more, seed) in by_seed and (contrast.less, seed) in by_seed
    ]
    if claim.over == "images":
        return compare_images(claim, contrast, pairs)
    read = [MEASURES[claim.measure].compare(more, less) for more, less in pairs]
    # Where the arm that should have less did not get there, the ratio has no lower bound.
    usable = [one for one in read if one and not one[1].at_least]
    bounds = sum(more.at_least for more, _ in usable)
    values = [subtract(claim, more, less) for more, less in usable]
    if not values:
        ended = bool(read)
        reason = f"{contrast.less} did not get there in time" if ended else "no pair of runs yet"
        verdict: Verdict = "not resolved" if ended else "not run"
        return make_effect(contrast, None, 0, verdict, reason)
    interval = find_mean_interval(values)
    verdict, reason = judge(interval), explain(claim, interval, values)
    if bounds:
        reason = (
            f"a lower bound: {bounds} of {len(values)} runs of {contrast.more} ended before it; "
            + reason
        )
        verdict = "not resolved" if verdict == "not held" else verdict
    effect = make_effect(contrast, transform(claim, interval), len(values), verdict, reason)
    return replace(effect, at_least=bool(bounds))


def subtract(claim: Claim, more: Reading, less: Reading) -> float:
    """Return the difference of a pair, or the logarithm of its ratio."""
    return math.log(more.value / less.value) if claim.ratio else more.value - less.value


def transform(claim: Claim, interval: Interval) -> Interval:
    """Return the interval of differences, or of ratios instead of their logarithms."""
    if not claim.ratio:
        return interval
    low, high = (None if end is None else math.exp(end) for end in (interval.low, interval.high))
    return Interval(mean=math.exp(interval.mean), low=low, high=high)


def compare_images(
    claim: Claim, contrast: Contrast, pairs: Sequence[tuple[RunResult, RunResult]]
) -> Effect:
    """Compare two arms image by image."""
    if not pairs:
        return make_effect(contrast, None, 0, "not run", "no pair of runs yet")
    more, less = (unpack(run.per_image["hits"]).astype(float) / NEIGHBOURS for run in pairs[0])
    interval = find_mean_interval(more - less)
    verdict, over = judge(interval), f"the interval is over {len(more):,} images"
    reason = f"zero lies in it; {over}"
    if verdict != "not resolved":
        reason = f"{explain(claim, interval, ())}; {over}"
    return make_effect(contrast, interval, len(more), verdict, reason)


def explain(claim: Claim, interval: Interval, values: Sequence[float]) -> str:
    """Say why a claim held, or not, and how the paper's figure compares."""
    if interval.low is None or interval.high is None:
        return "one seed: an interval needs two"
    verdict = judge(interval)
    if verdict == "not resolved":
        nothing = "one" if claim.ratio else "zero"
        needed = count_seeds_needed(values)
        seeds = f"about {needed} seeds" if needed else "more than a thousand seeds"
        return f"{nothing} lies in the interval; {seeds} would resolve what was seen"
    side = "above" if verdict == "held" else "below"
    reason = f"the whole interval is {side} {'one' if claim.ratio else 'zero'}"
    if claim.paper_value is not None:
        shown = transform(claim, interval)
        assert shown.low is not None
        assert shown.high is not None
        inside = shown.low <= claim.paper_value <= shown.high
        reason += f"; the paper's figure is {'inside' if inside else 'outside'} it"
    return reason


def make_effect(
    contrast: Contrast, interval: Interval | None, compared: int, verdict: Verdict, reason: str
) -> Effect:
    """Put an effect together."""
    return Effect(
        more=contrast.more,
        less=contrast.less,
        value=interval.mean if interval else None,
        low=interval.low if interval else None,
        high=interval.high if interval else None,
        compared=compared,
        verdict=verdict,
        reason=reason,
    )


def make_curve(run: RunResult) -> RunCurve:
    """Return a run's curve as the figures show it."""
    return RunCurve(
        kind=run.data.kind,
        arm=run.arm,
        seed=run.seed,
        training=tuple(point.training_error for point in run.curve),
        held_out=tuple(point.held_out_error for point in run.curve),
    )

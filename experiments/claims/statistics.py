"""Intervals, verdicts by a stated rule, and the seeds that would resolve what is not resolved."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.stats import t

from storage.findings import Verdict
from training.evaluation.confidence import CONFIDENCE_LEVEL

MAX_SEEDS = 1000
"""More seeds than these are not named as those that would resolve a difference."""
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Interval:
    """A mean with its 95 % interval, None where a single value has none."""

    mean: float
    low: float | None
    high: float | None


def find_mean_interval(values: Sequence[float] | Floats) -> Interval:
    """Compute the mean of independent values, N ≥ 1, with Student's interval."""
    found, count = np.asarray(values, np.float64), len(values)
    mean = float(found.mean())
    if count < 2:
        return Interval(mean=mean, low=None, high=None)
    half = find_quantile(count) * float(found.std(ddof=1)) / math.sqrt(count)
    return Interval(mean=mean, low=mean - half, high=mean + half)


def find_quantile(count: int) -> float:
    """Return the quantile of Student's distribution for an interval of so many values."""
    return float(t.ppf(0.5 + CONFIDENCE_LEVEL / 2, count - 1))


def judge(interval: Interval) -> Verdict:
    """Judge a claim that a mean is above zero.

    It held if the whole interval is above zero, not if it is below; else it is not resolved.
    """
    if interval.low is None or interval.high is None:
        return "not resolved"
    if interval.low > 0:
        return "held"
    return "not held" if interval.high < 0 else "not resolved"


def count_seeds_needed(values: Sequence[float]) -> int | None:
    """Count the seeds that would part a mean from zero, if their mean and deviation stayed.

    None if it would be more than MAX_SEEDS, or if there are fewer than two values.
    """
    if len(values) < 2:
        return None
    mean, deviation = abs(float(np.mean(values))), float(np.std(values, ddof=1))
    counts = range(2, MAX_SEEDS + 1)
    return next((n for n in counts if find_quantile(n) * deviation / math.sqrt(n) < mean), None)


def combine(verdicts: Sequence[Verdict]) -> Verdict:
    """Combine the verdicts of contrasts that must all hold."""
    if not set(verdicts) - {"not run"}:
        return "not run"
    if "not held" in verdicts:
        return "not held"
    return "held" if set(verdicts) == {"held"} else "not resolved"


def combine_data(verdicts: Sequence[Verdict]) -> Verdict:
    """Combine the verdicts on several kinds of data: what is not resolved on one has no say."""
    known = set(verdicts) - {"not run", "not resolved"}
    if len(known) == 1:
        return known.pop()
    return "not resolved" if set(verdicts) - {"not run"} else "not run"

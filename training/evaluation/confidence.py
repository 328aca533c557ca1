"""How sure a measured error is: an interval for one, and for the difference between two."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.stats import binomtest

CONFIDENCE = 0.95
RESAMPLES = 100_000
Wrong = npt.NDArray[np.bool_]


@dataclass(frozen=True, kw_only=True)
class Rate:
    """A share of images and its 95 % interval by Wilson's score (Wilson 1927)."""

    wrong: int
    """Images on which the guess was wrong."""
    images: int
    """Images in all."""
    error: float
    """The first by the second, 0–1."""
    low: float
    """Where the interval begins, 0–1."""
    high: float
    """Where it ends, 0–1."""


@dataclass(frozen=True, kw_only=True)
class Difference:
    """How two answers to the same images differ in error."""

    difference: float
    """Error of the first minus error of the second, −1 to 1."""
    low: float
    """Where the 95 % interval of the difference begins: images drawn anew, in pairs."""
    high: float
    """Where it ends."""
    only_first_wrong: int
    """Images that the first got wrong and the second right."""
    only_second_wrong: int
    """Images that the second got wrong and the first right."""
    p: float
    """Of McNemar's exact test: how probable a split at least as uneven would be by chance."""


def rate(wrong: Wrong) -> Rate:
    """The share of images that are wrong, with its interval: bool [N], N ≥ 1."""
    count, images = int(wrong.sum()), len(wrong)
    interval = binomtest(count, images).proportion_ci(CONFIDENCE, method="wilson")
    return Rate(
        wrong=count,
        images=images,
        error=count / images,
        low=float(interval.low),
        high=float(interval.high),
    )


def difference(first: Wrong, second: Wrong, seed: int = 0) -> Difference:
    """Compare what two got wrong among the same images, each bool [N], N ≥ 1."""
    only_first, only_second = int((first & ~second).sum()), int((second & ~first).sum())
    low, high = bootstrap(only_first, only_second, len(first), seed)
    return Difference(
        difference=(only_first - only_second) / len(first),
        low=low,
        high=high,
        only_first_wrong=only_first,
        only_second_wrong=only_second,
        p=mcnemar(only_first, only_second),
    )


def bootstrap(only_first: int, only_second: int, images: int, seed: int) -> tuple[float, float]:
    """The percentile interval of the difference when images are drawn anew with replacement.

    An image counts +1, −1 or 0, so drawing images is drawing from a multinomial distribution.
    """
    counts = np.array([only_first, only_second, images - only_first - only_second])
    drawn = np.random.default_rng(seed).multinomial(images, counts / images, size=RESAMPLES)
    outside = (1 - CONFIDENCE) / 2
    ends = np.quantile((drawn[:, 0] - drawn[:, 1]) / images, [outside, 1 - outside])
    return float(ends[0]), float(ends[1])


def mcnemar(only_first: int, only_second: int) -> float:
    """McNemar's exact test, two-sided (McNemar 1947): the p of these two counts being equal."""
    if only_first == only_second:
        return 1.0
    return float(binomtest(only_first, only_first + only_second, 0.5).pvalue)

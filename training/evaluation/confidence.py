"""Confidence intervals of an error rate, and of the difference between two error rates."""

import numpy as np
import numpy.typing as npt
from scipy.stats import binomtest

from storage.evaluations import Difference, Rate

CONFIDENCE_LEVEL = 0.95
BOOTSTRAP_RESAMPLES = 100_000
"""Bootstrap resamples."""
Wrong = npt.NDArray[np.bool_]
"""bool [N]: which of N images a network got wrong."""


def error_rate(wrong: Wrong) -> Rate:
    """Compute the error rate with its Wilson interval. wrong: bool [N], N ≥ 1."""
    count, images = int(wrong.sum()), len(wrong)
    interval = binomtest(count, images).proportion_ci(CONFIDENCE_LEVEL, method="wilson")
    return Rate(
        wrong=count,
        images=images,
        error=count / images,
        low=float(interval.low),
        high=float(interval.high),
    )


def paired_difference(first: Wrong, second: Wrong, seed: int = 0) -> Difference:
    """Compare two error rates on the same images. first, second: bool [N], N ≥ 1.

    The interval is that of a paired bootstrap, drawn with `seed`.
    """
    only_first, only_second = int((first & ~second).sum()), int((second & ~first).sum())
    low, high = bootstrap_interval(only_first, only_second, len(first), seed)
    return Difference(
        difference=(only_first - only_second) / len(first),
        low=low,
        high=high,
        only_first_wrong=only_first,
        only_second_wrong=only_second,
        p=mcnemar_p_value(only_first, only_second),
    )


def bootstrap_interval(
    only_first: int, only_second: int, images: int, seed: int
) -> tuple[float, float]:
    """Compute the percentile interval of the difference by bootstrap resampling of the images.

    Each image counts +1, −1 or 0, so resampling is drawing from a multinomial distribution.
    """
    counts = np.array([only_first, only_second, images - only_first - only_second])
    drawn = np.random.default_rng(seed).multinomial(
        images, counts / images, size=BOOTSTRAP_RESAMPLES
    )
    outside = (1 - CONFIDENCE_LEVEL) / 2
    ends = np.quantile((drawn[:, 0] - drawn[:, 1]) / images, [outside, 1 - outside])
    return float(ends[0]), float(ends[1])


def mcnemar_p_value(only_first: int, only_second: int) -> float:
    """Compute the two-sided p-value of McNemar's exact test (McNemar 1947)."""
    if only_first == only_second:
        return 1.0
    return float(binomtest(only_first, only_first + only_second, 0.5).pvalue)

"""Intervals and tests against published examples, arithmetic by hand and scipy's own bootstrap."""

import numpy as np
import pytest
from scipy import stats

from training.evaluation.confidence import (
    bootstrap_interval,
    error_rate,
    mcnemar_p_value,
    paired_difference,
)


@pytest.mark.parametrize(
    ("wrong", "images", "low", "high"),
    [
        # Newcombe 1998, "Two-sided confidence intervals for the single proportion", Table I,
        # method 3: the score interval without continuity correction.
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0000, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ],
)
def test_the_score_interval_is_that_of_the_literature(
    wrong: int, images: int, low: float, high: float
) -> None:
    found = error_rate(np.arange(images) < wrong)
    assert (found.wrong, found.images, found.error) == (wrong, images, wrong / images)
    assert (found.low, found.high) == (pytest.approx(low, abs=5e-5), pytest.approx(high, abs=5e-5))


def test_all_wrong_is_an_interval_too() -> None:
    found = error_rate(np.ones(20, bool))
    assert (found.error, found.high) == (1.0, pytest.approx(1))
    assert found.low == pytest.approx(1 - 0.1611, abs=5e-5)


@pytest.mark.parametrize(
    ("only_first", "only_second", "p"),
    [
        (1, 9, 22 / 1024),  # twice (1 + 10) of 2¹⁰ equally probable splits
        (9, 1, 22 / 1024),
        (0, 6, 2 / 64),
        (3, 3, 1.0),
        (0, 0, 1.0),
    ],
)
def test_mcnemars_exact_test_counts_splits(only_first: int, only_second: int, p: float) -> None:
    assert mcnemar_p_value(only_first, only_second) == pytest.approx(p)


def test_drawing_counts_is_drawing_images() -> None:
    random = np.random.default_rng(1)
    first, second = random.random(400) < 0.3, random.random(400) < 0.2
    found = paired_difference(first, second)
    own = stats.bootstrap(
        (first.astype(float), second.astype(float)),
        lambda a, b, axis: a.mean(axis) - b.mean(axis),
        paired=True,
        vectorized=True,
        method="percentile",
        n_resamples=20_000,
        rng=np.random.default_rng(2),
    ).confidence_interval
    assert found.difference == pytest.approx(first.mean() - second.mean())
    assert found.low == pytest.approx(own.low, abs=0.003)
    assert found.high == pytest.approx(own.high, abs=0.003)
    assert found.only_first_wrong == sum(a and not b for a, b in zip(first, second, strict=True))
    assert found.only_second_wrong == sum(b and not a for a, b in zip(first, second, strict=True))
    table = stats.binomtest(
        found.only_first_wrong, found.only_first_wrong + found.only_second_wrong
    )
    assert found.p == pytest.approx(table.pvalue)


def test_a_difference_is_repeated_to_the_last_digit_and_turns_with_its_sides() -> None:
    first, second = np.arange(100) < 30, np.arange(100) % 4 == 0
    there, back = paired_difference(first, second), paired_difference(second, first)
    assert there == paired_difference(first, second)
    assert back.difference == -there.difference
    assert back.p == there.p
    assert (back.low, back.high) == (
        pytest.approx(-there.high, abs=0.011),  # a step is one image in a hundred
        pytest.approx(-there.low, abs=0.011),
    )


def test_the_same_answers_do_not_differ() -> None:
    assert bootstrap_interval(0, 0, 50, seed=0) == (0.0, 0.0)

"""The kernels of conv1: numbered, ranked, and compared between the GPUs."""

import numpy as np
import pytest
from flask import Flask
from scipy.stats import permutation_test

from app.views.filters.kernels import compare_selectivities, list_kernels


def test_the_kernels_are_numbered_and_ranked_within_their_gpu(app: Flask) -> None:
    predictor = app.extensions["loader"].get_state().predictor
    found, weights = list_kernels(predictor), predictor.conv1_kernels().double().numpy()
    assert [k.number for k in found] == list(range(1, 97))
    assert [k.gpu for k in found] == [1] * 48 + [2] * 48
    assert [(k.row, k.column) for k in found[:9]] == [(0, n) for n in range(8)] + [(1, 0)]
    for k, kernel in zip(found, weights, strict=True):
        grey = (kernel.sum(0) ** 2 / 3).sum()
        assert k.selectivity == pytest.approx(1 - grey / (kernel**2).sum(), abs=1e-5)
    for half in (found[:48], found[48:]):
        order = sorted(half, key=lambda k: -k.selectivity)
        assert [k.rank for k in order] == list(range(1, 49))


@pytest.mark.parametrize("shift", [0.0, 0.8, -1.2])
def test_the_p_value_equals_an_exact_permutation_test(shift: float) -> None:
    drawn = np.random.default_rng(4)
    first, second = drawn.normal(0.5, 1, 6), drawn.normal(0.5 + shift, 1, 6)
    exact = permutation_test(
        (first, second), lambda a, b: abs(a.mean() - b.mean()), alternative="greater"
    )
    assert exact.null_distribution.size == 924  # every split there is
    found = compare_selectivities(first, second)
    error = (exact.pvalue * (1 - exact.pvalue) / found.splits) ** 0.5
    assert found.as_extreme / found.splits == pytest.approx(exact.pvalue, abs=5 * error)
    assert found.means == pytest.approx((first.mean(), second.mean()))
    assert found.difference == pytest.approx(second.mean() - first.mean())
    assert found.by_chance == (exact.pvalue > 0.05)


def test_a_full_separation_is_significant() -> None:
    found = compare_selectivities(np.linspace(0, 0.2, 48), np.linspace(0.6, 0.9, 48))
    assert (found.as_extreme, found.by_chance) == (0, False)

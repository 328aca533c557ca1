"""The kernels of conv1: numbered and ranked."""

import pytest
from flask import Flask

from app.views.filters.kernels import list_kernels


def test_the_kernels_are_numbered_and_ranked_within_their_gpu(app: Flask) -> None:
    predictor = app.extensions["loader"].get_state().predictor
    found, weights = list_kernels(predictor), predictor.conv1.astype(float)
    assert [k.number for k in found] == list(range(1, 97))
    assert [k.gpu for k in found] == [1] * 48 + [2] * 48
    assert [(k.row, k.column) for k in found[:9]] == [(0, n) for n in range(8)] + [(1, 0)]
    for k, kernel in zip(found, weights, strict=True):
        grey = (kernel.sum(0) ** 2 / 3).sum()
        assert k.selectivity == pytest.approx(1 - grey / (kernel**2).sum(), abs=1e-5)
    for half in (found[:48], found[48:]):
        order = sorted(half, key=lambda k: -k.selectivity)
        assert [k.rank for k in order] == list(range(1, 49))

"""Shared weights: k-means as in scikit-learn, and few values that are near the old ones."""

import numpy as np
import numpy.typing as npt
import pytest
import torch
from sklearn.cluster import KMeans

from training.compression.options import LayerCompression
from training.compression.share import find_centres, share_values, share_weights

Floats = npt.NDArray[np.float32]


def draw_pruned(seed: int, size: int, density: float = 0.1) -> Floats:
    """The weights that pruning leaves of a layer, ascending: none of them near zero."""
    weights = np.random.default_rng(seed).normal(0, 0.02, size).astype(np.float32)
    weights[0] = 0.2  # an outlier
    return np.sort(weights[np.abs(weights) > np.quantile(np.abs(weights), 1 - density)])


@pytest.mark.parametrize("count", [2, 4, 16, 32])
@pytest.mark.parametrize("seed", [0, 1])
def test_the_centres_are_those_of_scikit_learn(seed: int, count: int) -> None:
    values = draw_pruned(seed, 20_000)
    centres = find_centres(values, count)
    # From there Lloyd's algorithm moves nothing any more.
    found = KMeans(len(centres), init=centres[:, None], n_init=1, tol=0).fit(values[:, None])
    np.testing.assert_allclose(np.sort(found.cluster_centers_[:, 0]), centres, atol=1e-7)
    distance = np.abs(values[:, None] - centres).min(1)
    assert found.inertia_ == pytest.approx((distance.astype(np.float64) ** 2).sum(), rel=1e-4)


def test_every_value_takes_the_nearest_centre() -> None:
    weights = torch.randn(40, 30, 3, 3, generator=torch.Generator().manual_seed(3))
    weights[weights.abs() < 1] = 0
    shared = share_values(weights, 8)
    centres = shared[shared != 0].unique()  # type: ignore[no-untyped-call]
    assert len(centres) == 8
    kept = weights != 0
    nearest = (weights[kept][:, None] - centres).abs().min(1).values
    assert torch.equal((weights - shared)[kept].abs(), nearest)
    assert not shared[~kept].any()
    for centre in centres:
        own = weights[shared == centre]
        assert float(centre) == pytest.approx(float(own.double().mean()), abs=1e-6)


def test_more_bits_are_nearer() -> None:
    weights = torch.from_numpy(draw_pruned(5, 50_000))
    errors = [float((share_values(weights, 2**bits) - weights).norm()) for bits in range(1, 9)]
    assert errors == sorted(errors, reverse=True)
    assert errors[4] < 0.05 * float(weights.norm())  # the five bits of the fully connected layers


@pytest.mark.parametrize("values", [[], [0.0, 0.0], [1.5], [-1.0, 2.0, 0.0, 2.0]])
def test_few_values_stay_as_they_are(values: list[float]) -> None:
    weights = torch.tensor(values)
    assert torch.equal(share_values(weights, 4), weights)


def test_only_the_named_layers_change() -> None:
    state = {"fc6.weight": torch.randn(50, 40), "fc6.bias": torch.randn(50)}
    shared = share_weights(state, {"fc6.weight": LayerCompression(density=1, bits=3)})
    assert len(shared["fc6.weight"].unique()) == 8  # type: ignore[no-untyped-call]
    assert shared["fc6.bias"] is state["fc6.bias"]

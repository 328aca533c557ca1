"""LRN against the paper's formula written out in NumPy, map by map."""

import numpy as np
import numpy.typing as npt
import pytest
import torch

from model.lrn import LocalResponseNorm, build_band

K, N, ALPHA, BETA = 2.0, 5, 1e-4, 0.75


def formula(a: npt.NDArray[np.float64], towers: int = 2) -> npt.NDArray[np.float64]:
    """b_i = a_i / (k + α Σ a_j²)^β, j from max(0, i − n/2) to min(N − 1, i + n/2), a GPU alone."""
    b = np.empty_like(a)
    maps = a.shape[1] // towers
    for gpu in range(towers):
        own = a[:, gpu * maps : (gpu + 1) * maps]
        for i in range(maps):
            low, high = max(0, i - N // 2), min(maps - 1, i + N // 2)
            total = sum(own[:, j] ** 2 for j in range(low, high + 1))
            b[:, gpu * maps + i] = own[:, i] / (K + ALPHA * total) ** BETA
    return b


@pytest.fixture
def lrn() -> LocalResponseNorm:
    return LocalResponseNorm(96, 2, K, N, ALPHA, BETA)


@pytest.fixture
def a() -> npt.NDArray[np.float64]:
    return np.abs(np.random.default_rng(0).normal(0, 120, (2, 96, 5, 4)))


def test_equals_the_formula_in_both_halves(
    lrn: LocalResponseNorm, a: npt.NDArray[np.float64]
) -> None:
    b = lrn(torch.from_numpy(a)).numpy()
    np.testing.assert_allclose(b, formula(a), rtol=1e-12)
    in_float32 = lrn(torch.from_numpy(a).float()).numpy()
    np.testing.assert_allclose(in_float32, formula(a), rtol=2e-6)


def test_each_half_is_torchs_own_with_alpha_times_n(
    lrn: LocalResponseNorm, a: npt.NDArray[np.float64]
) -> None:
    torchs = torch.nn.LocalResponseNorm(N, alpha=N * ALPHA, beta=BETA, k=K)
    x = torch.from_numpy(a)
    for half in (slice(0, 48), slice(48, 96)):
        torch.testing.assert_close(lrn(x)[:, half], torchs(x[:, half]))


def test_the_normalisation_is_strong_enough_to_matter_here(a: npt.NDArray[np.float64]) -> None:
    # Otherwise the tests above would pass without the sum.
    assert (formula(a) / (a / K**BETA)).mean() < 0.7


def test_its_gradient_is_right() -> None:
    small = LocalResponseNorm(12, 2, K, N, 0.1, BETA)
    x = torch.rand(2, 12, 3, 2, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(small, (x,))


@pytest.mark.parametrize("beta", [0.5, 1.0])
def test_another_beta(beta: float) -> None:
    small = LocalResponseNorm(12, 2, K, N, 0.1, beta)
    x = torch.rand(2, 12, 3, 2, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(small, (x,))
    torchs = torch.nn.LocalResponseNorm(N, alpha=N * 0.1, beta=beta, k=K)
    torch.testing.assert_close(small(x)[:, :6], torchs(x[:, :6]))


def test_the_band_has_two_blocks() -> None:
    assert (
        build_band(8, 2, 3)[:, :, 0, 0].tolist()
        == [
            [1, 1, 0, 0],
            [1, 1, 1, 0],
            [0, 1, 1, 1],
            [0, 0, 1, 1],
        ]
        * 2
    )


def test_bf16_stays_bf16() -> None:
    lrn = LocalResponseNorm(96, 2, K, N, ALPHA, BETA)
    x = (torch.rand(1, 96, 3, 3) * 50).to(torch.bfloat16).requires_grad_()
    out = lrn(x)
    out.sum().backward()
    assert out.dtype == torch.bfloat16
    assert x.grad is not None
    np.testing.assert_allclose(
        out.detach().float().numpy(),
        formula(x.detach().double().numpy()),
        rtol=0.03,
    )

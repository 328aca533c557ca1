"""LRN against the paper's formula written out in NumPy, map by map."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import numpy.typing as npt
import pytest
import skimage.data
import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from model.network.alexnet import AlexNet
from model.network.config import AlexNetConfig
from model.network.lrn import LocalResponseNorm, build_band
from training.recipe.config import PAPER, SMALL

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


@pytest.fixture(params=["convolution", "additions"])
def lrn(request: pytest.FixtureRequest) -> LocalResponseNorm:
    lrn = LocalResponseNorm(96, 2, K, N, ALPHA, BETA)
    lrn.expand(enabled=request.param == "additions")
    return lrn


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


def test_the_memory_format_stays(lrn: LocalResponseNorm) -> None:
    for form in (torch.channels_last, torch.contiguous_format):
        x = torch.rand(2, 96, 5, 4).contiguous(memory_format=form).requires_grad_()
        b = lrn(x)
        b.sum().backward()
        assert x.grad is not None
        assert b.is_contiguous(memory_format=form)


@pytest.mark.parametrize("expanded", [False, True])
def test_its_gradient_is_right(expanded: bool) -> None:
    small = LocalResponseNorm(12, 2, K, N, 0.1, BETA)
    small.expand(enabled=expanded)
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


@pytest.mark.parametrize("autocast", [False, True])
def test_in_bf16_only_the_result_is_rounded(
    lrn: LocalResponseNorm,
    a: npt.NDArray[np.float64],
    check_rounded_once: Callable[..., None],
    autocast: bool,
) -> None:
    x = torch.from_numpy(a).bfloat16().contiguous(memory_format=torch.channels_last)
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        check_rounded_once(lrn, x)


def test_autocast_does_not_round_the_sum_of_float32(
    lrn: LocalResponseNorm, a: npt.NDArray[np.float64]
) -> None:
    with torch.autocast("cpu", torch.bfloat16):
        b = lrn(torch.from_numpy(a).float())
    np.testing.assert_allclose(b.numpy(), formula(a), rtol=2e-6)


PHOTOGRAPHS = (
    skimage.data.astronaut,
    skimage.data.coffee,
    skimage.data.chelsea,
    skimage.data.rocket,
)


@pytest.fixture(scope="module")
def photographs() -> Tensor:
    """Photographs minus their mean image, float32 [4, 3, 224, 224]."""
    squares = []
    for load in PHOTOGRAPHS:
        pixels = torch.from_numpy(load()[..., :3].copy()).permute(2, 0, 1)[None].float()
        side = min(pixels.shape[2:])
        squares.append(F.interpolate(pixels[..., :side, :side], size=224, mode="area"))
    x = torch.cat(squares)
    return x - x.mean(0)


def shares(config: AlexNetConfig, x: Tensor) -> list[float]:
    """The mean of α Σ a² / k at both normalisation layers of an initial network."""
    torch.manual_seed(0)
    # Crops of 67 for a small fc6; the layers before it take images of any size.
    network, found = AlexNet(replace(config, crop=67)), []
    x = x / config.input_scale
    for layer in network.children():
        if isinstance(layer, LocalResponseNorm):
            own = x.double().square().unflatten(1, (layer.towers, -1))
            around = F.pad(own, (0, 0, 0, 0, N // 2, N // 2)).unfold(2, N, 1).sum(-1)
            found.append(float((layer.alpha * around / layer.k).mean()))
        if isinstance(layer, nn.Flatten):
            break
        x = layer(x)
    return found


@torch.inference_mode()
def test_the_small_presets_start_normalises_photographs_as_the_papers_does(
    photographs: Tensor,
) -> None:
    papers = shares(PAPER.network(10), photographs)
    for scale in (SMALL.input_scale, 60.0):
        ours = shares(replace(SMALL, input_scale=scale).network(10), photographs)
        for own, paper in zip(ours, papers, strict=True):
            assert paper / 1.5 < own < paper * 1.5

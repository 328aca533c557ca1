"""The compiled loops of the response normalisation against the formula and the plain way."""

import shutil
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from model.network.lrn import LocalResponseNorm

K, N, ALPHA, BETA = 2.0, 5, 1e-4, 0.75

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(shutil.which("g++") is None, reason="there is no C++ compiler"),
    # torch's compiler warns of its own parts.
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning"),
]


def draw_maps(dtype: torch.dtype) -> Tensor:
    """Activations [3, 24, 5, 4], channels last. Another shape or type takes seconds to compile."""
    torch.manual_seed(0)
    a = (torch.rand(3, 24, 5, 4, dtype=torch.float64) * 200).to(dtype)
    return a.contiguous(memory_format=torch.channels_last)


def both_ways(a: Tensor, g: Tensor, beta: float = BETA) -> list[tuple[Tensor, Tensor]]:
    """The result and the gradient, plainly and by the loops."""
    found = []
    for fused in (False, True):
        lrn = LocalResponseNorm(a.shape[1], 2, K, N, ALPHA, beta)
        if fused:
            lrn.fuse()
        x = a.clone(memory_format=torch.preserve_format).requires_grad_()
        b = lrn(x)
        b.backward(g)
        assert x.grad is not None
        found.append((b.detach(), x.grad))
    return found


@pytest.mark.parametrize(
    ("dtype", "tolerance"),
    [(torch.float64, 1e-13), (torch.float32, 2e-6)],
)
def test_the_loops_give_what_the_plain_way_gives(dtype: torch.dtype, tolerance: float) -> None:
    a = draw_maps(dtype)
    plain, fused = both_ways(a, torch.randn_like(a))
    for one, other in zip(plain, fused, strict=True):
        assert other.dtype == dtype
        torch.testing.assert_close(other, one, rtol=tolerance, atol=tolerance)
        assert other.is_contiguous(memory_format=torch.channels_last)


def test_in_bf16_only_the_result_is_rounded(check_rounded_once: Callable[..., None]) -> None:
    lrn = LocalResponseNorm(24, 2, K, N, ALPHA, BETA)
    lrn.fuse()
    a = draw_maps(torch.bfloat16)
    # As in training.
    with torch.autocast("cpu", torch.bfloat16):
        check_rounded_once(lrn, a)


def test_each_tower_alone_by_torchs_own_normalisation() -> None:
    torchs = torch.nn.LocalResponseNorm(N, alpha=N * ALPHA, beta=BETA, k=K)
    lrn = LocalResponseNorm(24, 2, K, N, ALPHA, BETA)
    lrn.fuse()
    x = draw_maps(torch.float64)
    for half in (slice(0, 12), slice(12, 24)):
        torch.testing.assert_close(lrn(x)[:, half], torchs(x[:, half]))


def test_the_additions_compile_as_one_graph_to_what_the_plain_way_gives() -> None:
    plain = LocalResponseNorm(24, 2, K, N, ALPHA, BETA)
    expanded = LocalResponseNorm(24, 2, K, N, ALPHA, BETA)
    expanded.expand()
    compiled = torch.compile(expanded, fullgraph=True)
    torch.manual_seed(0)
    a = (torch.rand(2, 24, 3, 4) * 200).contiguous(memory_format=torch.channels_last)
    x, y = a.clone().requires_grad_(), a.clone().requires_grad_()
    b, truth = compiled(x), plain(y)
    b.sum().backward()
    truth.sum().backward()
    torch.testing.assert_close(b, truth)
    torch.testing.assert_close(x.grad, y.grad)
    assert b.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.gpu
def test_compiled_for_a_gpu_it_gives_what_the_cpu_gives() -> None:
    if not torch.cuda.is_available():
        pytest.skip("torch finds no GPU")
    plain = LocalResponseNorm(96, 2, K, N, ALPHA, BETA)
    expanded = LocalResponseNorm(96, 2, K, N, ALPHA, BETA)
    expanded.expand()
    torch.manual_seed(0)
    a = (torch.rand(4, 96, 7, 7) * 200).contiguous(memory_format=torch.channels_last)
    x, y = a.clone().requires_grad_(), a.cuda().requires_grad_()
    truth, found = plain(x), torch.compile(expanded.cuda())(y)
    truth.sum().backward()
    found.sum().backward()
    assert x.grad is not None
    assert y.grad is not None
    torch.testing.assert_close(found.cpu(), truth)
    torch.testing.assert_close(y.grad.cpu(), x.grad)


def test_another_size_of_batch_and_another_exponent() -> None:
    lrn = LocalResponseNorm(12, 2, K, 3, 0.1, 0.5)
    lrn.fuse()
    plain = LocalResponseNorm(12, 2, K, 3, 0.1, 0.5)
    for images in (3, 1, 4):
        x = torch.rand(images, 12, 2, 2, dtype=torch.float64)
        torch.testing.assert_close(lrn(x), plain(x))


def test_the_gradient_is_right() -> None:
    lrn = LocalResponseNorm(24, 2, K, N, ALPHA, BETA)
    lrn.fuse()
    x = draw_maps(torch.float64).requires_grad_()
    assert torch.autograd.gradcheck(lrn, (x,), fast_mode=True)

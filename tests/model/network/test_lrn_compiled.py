"""The response normalisation written as additions, compiled by torch.compile."""

import shutil

import pytest
import torch

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

"""What tests of trained networks need."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from model.network.config import AlexNetConfig
from model.network.lrn import LocalResponseNorm
from model.predict import Predictor
from model.weights.checkpoint import Weights


@pytest.fixture(scope="session")
def make_predictor(weights_of: Callable[..., Weights]) -> Callable[[AlexNetConfig], Predictor]:
    """Makes a network of a configuration, its weights drawn, its mean image of any colours."""

    def make(config: AlexNetConfig) -> Predictor:
        mean = torch.rand(3, config.side, config.side, generator=torch.Generator().manual_seed(1))
        return Predictor.from_weights(weights_of(config, mean=200 * mean, seed=11), "cpu")

    return make


@pytest.fixture(scope="session")
def check_rounded_once() -> Callable[[LocalResponseNorm, Tensor], None]:
    """Check that LRN of a tensor in bf16, and its gradient, are float64's but for one rounding."""

    def check(lrn: LocalResponseNorm, a: Tensor) -> None:
        # torch divides α by n; each GPU alone.
        torchs = torch.nn.LocalResponseNorm(lrn.n, alpha=lrn.n * lrn.alpha, beta=lrn.beta, k=lrn.k)
        g = torch.randn(a.shape, generator=torch.Generator().manual_seed(1)).to(a.dtype)
        x, y = a.clone().requires_grad_(), a.double().requires_grad_()
        b, exact = lrn(x), torch.cat([torchs(half) for half in y.chunk(2, 1)], 1)
        b.backward(g)
        exact.backward(g.double())
        assert x.grad is not None
        assert y.grad is not None
        assert b.dtype == x.grad.dtype == torch.bfloat16
        # With eight significant bits rounding changes a number by at most 2^-8 of it. The gradient
        # is a difference of two terms as large as g; float32 has an error of its own in each.
        rounding = 2**-8 * (1 + 1e-3)
        assert ((b.double() - exact).abs() <= rounding * exact.abs()).all()
        bound = rounding * y.grad.abs() + 1e-6 * g.double().abs().max()
        assert ((x.grad.double() - y.grad).abs() <= bound).all()

    return check

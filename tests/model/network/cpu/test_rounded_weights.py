"""Layers that compute with a bfloat16 copy of their weights."""

import torch
import torch.nn.functional as F  # noqa: N812
from torch import nn

from model.network.cpu.rounded_weights import list_rounded, round_weights
from model.network.modules import DenseLayer


def build() -> nn.Sequential:
    """A layer large enough for a copy, and one that is not."""
    torch.manual_seed(0)
    return nn.Sequential(DenseLayer(1000, 1000), DenseLayer(1000, 10))


def draw() -> torch.Tensor:
    return torch.randn(4, 1000, generator=torch.Generator().manual_seed(1))


def test_outputs_and_gradients_are_autocasts_own() -> None:
    plain, rounded = build(), build()
    assert round_weights(rounded) == 1
    x, y = draw().requires_grad_(), draw().requires_grad_()
    for network, own in ((plain, x), (rounded, y)):
        with torch.autocast("cpu", torch.bfloat16):
            out = network(own)
        out.float().square().sum().backward()
    for a, b in zip(plain.parameters(), rounded.parameters(), strict=True):
        assert a.grad is not None
        assert b.grad is not None
        assert torch.equal(b.grad.float(), a.grad)
    assert x.grad is not None
    assert y.grad is not None
    assert torch.equal(x.grad, y.grad)
    assert [p.grad.dtype for p in rounded.parameters() if p.grad is not None] == [
        torch.bfloat16,
        torch.float32,
        torch.float32,
        torch.float32,
    ]


def test_a_copy_follows_weights_that_are_changed_by_others() -> None:
    network = build()
    round_weights(network)
    [(layer, _)] = list_rounded(network)
    for change in (
        lambda: layer.weight.mul_(2),
        lambda: network.load_state_dict(build().state_dict()),
    ):
        with torch.no_grad():
            change()
        with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
            found = layer(draw())
        truth = F.linear(draw().bfloat16(), layer.weight.bfloat16(), layer.bias.bfloat16())
        assert torch.equal(found, truth)


def test_outside_of_bf16_the_weights_themselves_are_used() -> None:
    network = build()
    truth = network(draw())
    round_weights(network)
    assert torch.equal(network(draw()), truth)


def test_weights_that_do_not_learn_need_no_copy() -> None:
    network = build().requires_grad_(False)
    assert round_weights(network) == 0

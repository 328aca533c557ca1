"""bfloat16 copies of a network's large matrices, which its update keeps up to date.

Layers that compute in bfloat16 round their float32 weights in every step and widen their gradients.
For fc6 and fc7 that is as many passes over 50 million numbers as the update itself. With a copy
that the update writes, and a gradient that it reads as it is, they are saved; the numbers are the
same (training/optimisation/fused_update.py).
"""

from collections.abc import Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from model.network.modules import DenseLayer

MIN_WEIGHTS = 1_000_000


def round_weights(network: nn.Module) -> int:
    """Give the large fully connected layers copies, if they learn; return how many have one.

    For training in bfloat16 on a CPU only: their gradients are bfloat16 from now on.
    """
    for layer in network.children():
        large = isinstance(layer, DenseLayer) and layer.weight.numel() >= MIN_WEIGHTS
        if large and layer.weight.requires_grad and layer.rounded is None:
            layer.rounded = RoundedLinear(layer)
            layer.weight.grad_dtype = torch.bfloat16
    return len(list(list_rounded(network)))


def list_rounded(network: nn.Module) -> Iterator[tuple[DenseLayer, "RoundedLinear"]]:
    """Yield the layers with copies, and these."""
    for layer in network.children():
        if isinstance(layer, DenseLayer) and isinstance(layer.rounded, RoundedLinear):
            yield layer, layer.rounded


class RoundedLinear:
    """A fully connected layer computed with a copy of its weights, bfloat16 [out, in]."""

    def __init__(self, layer: DenseLayer) -> None:
        self.layer = layer
        self.copy = layer.weight.detach().bfloat16()
        self.version = layer.weight._version

    def __call__(self, x: Tensor) -> Tensor:
        """[N, in] of any floating dtype → bfloat16 [N, out]."""
        layer = self.layer
        out: Tensor = _RoundedLinear.apply(x.bfloat16(), layer.weight, layer.bias, self)
        return out

    def read_copy(self) -> Tensor:
        """Return the copy, made anew if the weights were changed by other means than the update."""
        weight = self.layer.weight
        if weight._version != self.version:
            self.copy.copy_(weight.detach())
            self.version = weight._version
        return self.copy


class _RoundedLinear(torch.autograd.Function):
    """y = x Wᵀ + b; the gradient of W is left in bfloat16."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, rounded: RoundedLinear
    ) -> Tensor:
        copy = rounded.read_copy()
        ctx.save_for_backward(x, copy)
        ctx.bias_dtype = bias.dtype
        return F.linear(x, copy, bias.to(x.dtype))

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        (g,) = grads
        x, copy = ctx.saved_tensors
        needed = ctx.needs_input_grad
        return (
            g @ copy if needed[0] else None,
            g.T @ x if needed[1] else None,
            g.sum(0).to(ctx.bias_dtype) if needed[2] else None,
            None,
        )

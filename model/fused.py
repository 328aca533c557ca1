"""Response normalisation as loops that torch.compile writes, two forward and two backward.

The first loop of each pair writes what is to be summed into a buffer with a margin of zeros on
either side of each tower's maps, so that the second, which sums over adjacent maps and does all
the rest, need not ask where the maps end. The formulas are those of model/lrn.py.
"""

from collections.abc import Callable
from functools import cache
from typing import Any

import torch
from torch import Tensor


class Loops:
    """The loops for one layer, and the buffer that they share."""

    def __init__(self, towers: int, k: float, n: int, alpha: float, beta: float) -> None:
        self.towers, self.n = towers, n
        self.k, self.alpha, self.beta = k, alpha, beta
        self.buffer = torch.empty(0)

    def normalise(self, a: Tensor) -> Tensor:
        """[N, maps, H, W] of any floating dtype → the same shape, channels last."""
        rows = a.movedim(1, -1).reshape(-1, self.towers, a.shape[1] // self.towers)
        b: Tensor = _Fused.apply(rows, self)
        return b.reshape(len(a), *a.shape[2:], a.shape[1]).movedim(-1, 1)

    def padded(self, like: Tensor) -> Tensor:
        """The buffer for [rows, towers, maps]: its margins are zero and stay so."""
        shape = (*like.shape[:2], like.shape[2] + self.n - 1)
        held = self.buffer
        if (held.shape, held.dtype, held.device) != (shape, like.dtype, like.device):
            self.buffer = torch.zeros(shape, dtype=like.dtype, device=like.device)
        found: Tensor = self.buffer
        return found


class _Fused(torch.autograd.Function):
    """b = a t^-β with t = k + α Σ a², and its gradient."""

    @staticmethod
    def forward(ctx: Any, a: Tensor, loops: Loops) -> Tensor:
        sums = loops.padded(a)
        compiled(squares_into)(a, sums)
        found: tuple[Tensor, Tensor] = compiled(scaled)(a, sums, loops.k, loops.alpha, loops.beta)
        b, t = found
        ctx.save_for_backward(a, t)
        ctx.loops = loops
        return b

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        a, t = ctx.saved_tensors
        loops, g = ctx.loops, grads[0].contiguous()
        sums = loops.padded(a)
        compiled(inner_into)(g, a, t, sums, loops.beta)
        da: Tensor = compiled(gradient)(g, a, t, sums, loops.alpha, loops.beta)
        return da, None


@cache
def compiled(loop: Callable[..., Any]) -> Callable[..., Any]:
    """Have torch write the loop, once a process."""
    return torch.compile(loop)


def squares_into(a: Tensor, sums: Tensor) -> None:
    """a² between the margins."""
    inside(sums, a).copy_(a * a)


def scaled(a: Tensor, sums: Tensor, k: float, alpha: float, beta: float) -> tuple[Tensor, Tensor]:
    """b and t."""
    t = k + alpha * neighbours(sums, a)
    return a * negative_power(t, beta), t


def inner_into(g: Tensor, a: Tensor, t: Tensor, sums: Tensor, beta: float) -> None:
    """g a t^(-β-1) between the margins."""
    inside(sums, a).copy_(g * a * negative_power(t, beta) / t)


def gradient(g: Tensor, a: Tensor, t: Tensor, sums: Tensor, alpha: float, beta: float) -> Tensor:
    """g t^-β − 2αβ a Σ (g a t^(-β-1))."""
    return g * negative_power(t, beta) - 2 * alpha * beta * a * neighbours(sums, a)


def inside(sums: Tensor, a: Tensor) -> Tensor:
    """The buffer without its margins."""
    margin = (sums.shape[-1] - a.shape[-1]) // 2
    return sums[..., margin : margin + a.shape[-1]]


def neighbours(sums: Tensor, a: Tensor) -> Tensor:
    """The sum over the n maps around each."""
    maps = a.shape[-1]
    total = sums[..., :maps]
    for shift in range(1, sums.shape[-1] - maps + 1):
        total = total + sums[..., shift : shift + maps]
    return total


def negative_power(t: Tensor, beta: float) -> Tensor:
    """t^-β elementwise; for the paper's β = ¾ by two square roots, far cheaper than a power."""
    if beta == 0.75:
        root = t.rsqrt()
        return root * root.sqrt()
    return t.pow(-beta)

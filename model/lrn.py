"""Local response normalisation (§3.3): b = a / (k + α Σ a²)^β over n adjacent maps.

The sum over adjacent maps is a 1×1 convolution with a constant banded matrix, one band a tower,
so that the neighbourhood never crosses from one GPU's maps to the other's. The gradient is
written out by hand: it needs only a and the sum, and one more banded convolution.

What that costs is passes over memory. Where torch.compile finds a compiler, `fuse` has it write
two loops each way instead, one that squares and one that does all the rest.
"""

from collections.abc import Callable
from functools import cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class LocalResponseNorm(nn.Module):
    """LRN of `maps` maps that are split over `towers` GPUs.

    Takes and gives [N, maps, H, W] of any floating dtype. α multiplies the plain sum, as in the
    paper; torch's own LocalResponseNorm divides it by n.
    """

    def __init__(self, maps: int, towers: int, k: float, n: int, alpha: float, beta: float) -> None:
        super().__init__()
        self.maps, self.towers, self.k, self.n = maps, towers, k, n
        self.alpha, self.beta = alpha, beta
        self.loops: Loops | None = None
        # Not a part of the weights: it follows from the configuration.
        self.register_buffer("band", build_band(maps, towers, n), persistent=False)

    def materialise(self) -> "LocalResponseNorm":
        """The same layer with its constant computed, after construction on the meta device."""
        with torch.device("cpu"):
            return LocalResponseNorm(self.maps, self.towers, self.k, self.n, self.alpha, self.beta)

    def fuse(self, *, enabled: bool = True) -> None:
        """Use compiled loops from now on, for training, or no longer: they are slow the first time.

        Not for calls from several threads at once, which would share one buffer, nor for maps of
        ever changing sizes, for each of which the loops are compiled anew.
        """
        loops = Loops(self.towers, self.k, self.n, self.alpha, self.beta)
        self.loops = loops if enabled else None

    def forward(self, a: Tensor) -> Tensor:
        """Normalise [N, maps, H, W]; the result lies in memory as `a` does."""
        if self.loops is not None:
            return self.loops.normalise(a)
        b: Tensor = _Normalise.apply(a, self.band, self.towers, self.k, self.alpha, self.beta)
        return b


def build_band(maps: int, towers: int, n: int) -> Tensor:
    """Float32 [maps, maps / towers, 1, 1]: a one where map j is among the n around map i."""
    own = maps // towers
    distance = (torch.arange(own)[:, None] - torch.arange(own)[None, :]).abs()
    one = (distance <= n // 2).float()
    return one.repeat(towers, 1)[:, :, None, None]


class _Normalise(torch.autograd.Function):
    """With t = k + α Σ a²: b = a t^-β, and da = g t^-β − 2αβ a Σ (g a t^(-β-1)).

    The sum runs over the same n maps in both directions, since the band is symmetric.
    """

    @staticmethod
    def forward(
        ctx: Any, a: Tensor, band: Tensor, towers: int, k: float, alpha: float, beta: float
    ) -> Tensor:
        constant = a.new_full((len(band),), k)
        t = F.conv2d(a * a, alpha * band.to(a.dtype), constant, groups=towers)
        scale = negative_power(t, beta)
        ctx.save_for_backward(a, t, scale, band)
        ctx.constants = towers, alpha, beta
        return a * scale

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        (g,) = grads
        a, t, scale, band = ctx.saved_tensors
        towers, alpha, beta = ctx.constants
        da = g * scale
        inner = (da * a).div_(t)
        spread = F.conv2d(inner, -2 * alpha * beta * band.to(a.dtype), groups=towers)
        return da.addcmul_(a, spread), None, None, None, None, None


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

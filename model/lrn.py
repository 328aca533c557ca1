"""Local response normalisation (§3.3): b = a / (k + α Σ a²)^β over n adjacent maps.

The sum over adjacent maps is a 1×1 convolution with a constant banded matrix, one band a tower,
so that the neighbourhood never crosses from one GPU's maps to the other's. The gradient is
written out by hand: it needs only a and the sum, and one more banded convolution.
"""

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
        # Not a part of the weights: it follows from the configuration.
        self.register_buffer("band", band(maps, towers, n), persistent=False)

    def materialise(self) -> "LocalResponseNorm":
        """The same layer with its constant computed, after construction on the meta device."""
        with torch.device("cpu"):
            return LocalResponseNorm(self.maps, self.towers, self.k, self.n, self.alpha, self.beta)

    def forward(self, a: Tensor) -> Tensor:
        b: Tensor = _Normalise.apply(a, self.band, self.towers, self.k, self.alpha, self.beta)
        return b


def band(maps: int, towers: int, n: int) -> Tensor:
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
        t = F.conv2d(a * a, alpha * band.to(a.dtype), groups=towers).add_(k)
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


def negative_power(t: Tensor, beta: float) -> Tensor:
    """t^-β elementwise; for the paper's β = ¾ by two square roots, far cheaper than a power."""
    if beta == 0.75:
        root = t.rsqrt()
        return root.sqrt().mul_(root)
    return t.pow(-beta)

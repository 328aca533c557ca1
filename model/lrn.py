"""Local response normalisation (§3.3): b = a / (k + α Σ a²)^β over n adjacent maps.

The sum over adjacent maps is a 1×1 convolution with a constant banded matrix, one band a tower,
so that the neighbourhood never crosses from one GPU's maps to the other's. The gradient is
written out by hand: it needs only a and the sum, and one more banded convolution.

What that costs is passes over memory. Where torch.compile finds a compiler, `fuse` has it write
two loops each way instead, one that squares and one that does all the rest.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from model.fused import Loops, negative_power


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
        self.register_buffer("band", band(maps, towers, n), persistent=False)

    def materialise(self) -> "LocalResponseNorm":
        """The same layer with its constant computed, after construction on the meta device."""
        with torch.device("cpu"):
            return LocalResponseNorm(self.maps, self.towers, self.k, self.n, self.alpha, self.beta)

    def fuse(self, *, wanted: bool = True) -> None:
        """Use compiled loops from now on, for training, or no longer: they are slow the first time.

        Not for calls from several threads at once, which would share one buffer, nor for maps of
        ever changing sizes, for each of which the loops are compiled anew.
        """
        loops = Loops(self.towers, self.k, self.n, self.alpha, self.beta)
        self.loops = loops if wanted else None

    def forward(self, a: Tensor) -> Tensor:
        """Normalise [N, maps, H, W]; the result lies in memory as `a` does."""
        if self.loops is not None:
            return self.loops.normalise(a)
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

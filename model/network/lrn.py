"""Local response normalisation (§3.3): b = a / (k + α Σ a²)^β, summed over n adjacent maps.

There are three implementations. The plain one computes the sum as a 1×1 convolution with a constant
banded matrix, one band for each tower, so that no neighbourhood crosses from one GPU's maps to
the other's. Its gradient is written out by hand, because it needs only a, the sum and one more
banded convolution.

All compute in float32 whatever the dtype of a: in bf16 the terms and their sum would be off by up
to 1.2 %, more than the network's other roundings.

The cost of LRN is passes over memory. On a CPU with a C compiler, training makes one pass of it and
the layers around it (model/network/cpu/normalisation.py). On a GPU torch.compile compiles the whole
network, and `expand` writes the sum as additions that it turns into one loop, with all the rest and
the neighbouring layers: a is read once from the GPU's memory, and nothing but b is written.
"""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class LocalResponseNorm(nn.Module):
    """LRN of `maps` maps that are split over `towers` GPUs.

    Takes and returns [N, maps, H, W] of any floating dtype. α multiplies the plain sum, as in the
    paper; torch's own LocalResponseNorm divides it by n.
    """

    def __init__(self, maps: int, towers: int, k: float, n: int, alpha: float, beta: float) -> None:
        super().__init__()
        self.maps, self.towers, self.k, self.n = maps, towers, k, n
        self.alpha, self.beta = alpha, beta
        self.fused: Callable[[Tensor], Tensor] | None = None
        """What does the work of this layer and of its neighbours instead."""
        self.expanded = False
        # Not part of the weights: it follows from the configuration. A network built on the meta
        # device, to be given its weights later, has it at once.
        with torch.device("cpu"):
            self.register_buffer("band", build_band(maps, towers, n), persistent=False)

    def expand(self, *, enabled: bool = True) -> None:
        """Switch the sum written as additions on, for a network compiled as a whole, or off."""
        self.expanded = enabled

    def forward(self, a: Tensor) -> Tensor:
        """Normalise [N, maps, H, W]; the result has the memory format of `a`."""
        return self.normalise(a) if self.fused is None else self.fused(a)

    def normalise(self, a: Tensor) -> Tensor:
        """Do this layer's own work."""
        if self.expanded:
            return normalise_by_additions(a, self.towers, self.k, self.n, self.alpha, self.beta)
        with suspend_autocast(a.device):
            b: Tensor = _Normalise.apply(a, self.band, self.towers, self.k, self.alpha, self.beta)
        return b


def build_band(maps: int, towers: int, n: int) -> Tensor:
    """Build float32 [maps, maps / towers, 1, 1]: one where map j is among the n around map i."""
    per_tower = maps // towers
    distance = (torch.arange(per_tower)[:, None] - torch.arange(per_tower)[None, :]).abs()
    band = (distance <= n // 2).float()
    return band.repeat(towers, 1)[:, :, None, None]


class _Normalise(torch.autograd.Function):
    """With t = k + α Σ a²: b = a t^-β, and da = g t^-β − 2αβ a Σ (g a t^(-β-1)).

    The sum runs over the same n maps in both directions, since the band is symmetric.
    """

    @staticmethod
    def forward(
        ctx: Any, a: Tensor, band: Tensor, towers: int, k: float, alpha: float, beta: float
    ) -> Tensor:
        exact = promote(a)
        bias = exact.new_full((len(band),), k)
        t = F.conv2d(exact * exact, alpha * band.to(exact), bias, groups=towers)
        scale = negative_power(t, beta)
        ctx.save_for_backward(a, t, scale, band)
        ctx.constants = towers, alpha, beta
        return (exact * scale).to(a.dtype)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        (g,) = grads
        a, t, scale, band = ctx.saved_tensors
        towers, alpha, beta = ctx.constants
        exact = promote(a)
        da = g * scale
        terms = (da * exact).div_(t)
        with suspend_autocast(a.device):
            sums = F.conv2d(terms, -2 * alpha * beta * band.to(terms), groups=towers)
        return da.addcmul_(exact, sums).to(a.dtype), None, None, None, None, None


def suspend_autocast(device: torch.device) -> AbstractContextManager[None]:
    """Keep autocast, where the device has it, from rounding a convolution's inputs to bf16."""
    if not torch.amp.is_autocast_available(device.type):
        return nullcontext()
    return torch.autocast(device.type, enabled=False)


def normalise_by_additions(
    a: Tensor, towers: int, k: float, n: int, alpha: float, beta: float
) -> Tensor:
    """Normalise [N, maps, H, W] in elementwise operations only, which a compiler fuses."""
    exact = torch.unflatten(promote(a), 1, (towers, -1))
    maps, reach = exact.shape[2], n // 2
    squares = F.pad(exact * exact, (0, 0, 0, 0, reach, reach))
    total = squares[:, :, :maps]
    for shift in range(1, n):
        total = total + squares[:, :, shift : shift + maps]
    b: Tensor = exact * negative_power(k + alpha * total, beta)
    channels_last = a.is_contiguous(memory_format=torch.channels_last)
    form = torch.channels_last if channels_last else torch.contiguous_format
    return b.flatten(1, 2).to(a.dtype).contiguous(memory_format=form)


def exact_dtype(a: Tensor) -> torch.dtype:
    """Return the dtype to compute in: float32, or float64 where `a` has it."""
    return torch.promote_types(a.dtype, torch.float32)


def promote(a: Tensor) -> Tensor:
    """Convert to the dtype to compute in."""
    return a.to(exact_dtype(a))


def negative_power(t: Tensor, beta: float) -> Tensor:
    """Compute t^-β elementwise; for the paper's β = ¾ by two square roots, much cheaper."""
    if beta == 0.75:
        root = t.rsqrt()
        return root * root.sqrt()
    return t.pow(-beta)

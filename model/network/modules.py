"""The modules that the layers of model/network/layers.py become, with those that torch lacks."""

from collections.abc import Callable
from functools import singledispatch

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from model.network.counter_rng import bernoulli
from model.network.layers import (
    Activation,
    AveragePool,
    Border,
    Conv,
    Dense,
    Drop,
    Flatten,
    Layer,
    Local,
    Lrn,
    MapNorm,
    Pool,
    Shape,
)
from model.network.lrn import LocalResponseNorm


@singledispatch
def build_module(layer: Layer, shape: Shape, towers: int) -> nn.Module:
    """Build a layer's module for an input of this shape.

    towers: how many there are in this process: two for a whole network, one when each tower has a
    process of its own. Other kinds of layers register their own way (model/network/towers.py).
    """
    raise TypeError(f"{layer.name}: there is no module for a {type(layer).__name__}")


@build_module.register
def build_border(layer: Border, shape: Shape, towers: int) -> nn.Module:
    """Build padding at the bottom and right."""
    return nn.ZeroPad2d((0, layer.pixels, 0, layer.pixels))


@build_module.register
def build_conv(layer: Conv, shape: Shape, towers: int) -> nn.Module:
    """Build a convolution, grouped by tower where its kernels see only their own GPU's maps."""
    groups = towers if layer.grouped else 1
    module = StridedConv if layer.stride > 1 else nn.Conv2d
    return module(shape.maps, layer.maps, layer.kernel, layer.stride, layer.pad, groups=groups)


@build_module.register
def build_local(layer: Local, shape: Shape, towers: int) -> nn.Module:
    """Build a convolution with unshared kernels."""
    return LocallyConnected(shape, layer.maps, layer.kernel, layer.pad)


@build_module.register
def build_dense(layer: Dense, shape: Shape, towers: int) -> nn.Module:
    """Build a linear layer."""
    return DenseLayer(shape.maps * shape.side**2, layer.neurons)


@build_module.register
def build_flatten(layer: Flatten, shape: Shape, towers: int) -> nn.Module:
    """[N, C, H, W] → [N, C · H · W]."""
    return nn.Flatten()


@build_module.register
def build_activation(layer: Activation, shape: Shape, towers: int) -> nn.Module:
    """Build ReLU, which works in place, or tanh."""
    return nn.ReLU(inplace=True) if layer.kind == "relu" else nn.Tanh()


@build_module.register
def build_lrn(layer: Lrn, shape: Shape, towers: int) -> nn.Module:
    """Build the normalisation, within each tower's maps unless `across`."""
    groups = 1 if layer.across else towers
    return LocalResponseNorm(shape.maps, groups, layer.k, layer.n, layer.alpha, layer.beta)


@build_module.register
def build_map_norm(layer: MapNorm, shape: Shape, towers: int) -> nn.Module:
    """Build the normalisation within each map."""
    return WithinMapNorm(layer.k, layer.n, layer.alpha, layer.beta)


@build_module.register
def build_pool(layer: Pool, shape: Shape, towers: int) -> nn.Module:
    """Build max or average pooling."""
    pooling = nn.MaxPool2d if layer.kind == "max" else nn.AvgPool2d
    return pooling(layer.size, layer.stride, ceil_mode=layer.ceil)


@build_module.register
def build_average_pool(layer: AveragePool, shape: Shape, towers: int) -> nn.Module:
    """Build average pooling to a side."""
    return nn.AdaptiveAvgPool2d(layer.side)


@build_module.register
def build_drop(layer: Drop, shape: Shape, towers: int) -> nn.Module:
    """Build dropout; the layer's name makes its random numbers differ from other layers'."""
    salt, first = sum(layer.name.encode()), layer.tower * shape.maps
    return Dropout(layer.p, inverted=layer.inverted, salt=salt, first=first)


def computes_in_bf16(x: Tensor) -> bool:
    """Whether a CPU's layers, given this input, compute in bfloat16 by autocast."""
    if x.device.type != "cpu" or not torch.is_autocast_enabled("cpu"):
        return False
    return torch.get_autocast_dtype("cpu") == torch.bfloat16


class StridedConv(nn.Conv2d):
    """A convolution with a stride, and what computes it faster, if anything does.

    folded: set by model/network/cpu/folding.py.
    """

    folded: Callable[[Tensor], Tensor] | None = None

    def forward(self, x: Tensor) -> Tensor:
        """[N, C, H, W] → [N, maps, H', W']."""
        return self.convolve(x) if self.folded is None else self.folded(x)

    def convolve(self, x: Tensor) -> Tensor:
        """Compute it as torch does."""
        return super().forward(x)


class DenseLayer(nn.Linear):
    """A fully connected layer, and what computes it in bfloat16 with a copy of its weights.

    rounded: set by model/network/cpu/rounded_weights.py.
    """

    rounded: Callable[[Tensor], Tensor] | None = None

    def forward(self, x: Tensor) -> Tensor:
        """[N, in] → [N, out]."""
        if self.rounded is None or not computes_in_bf16(x):
            return super().forward(x)
        return self.rounded(x)


class Dropout(nn.Module):
    """The paper's dropout (§4.2): zero a neuron with probability p; at test, multiply by 1 − p.

    torch's own divides by 1 − p in training instead, which makes a different network of the same
    weights, learning rate and initial values; `inverted` does the same.

    salt:  added to the keys, so that layers draw different numbers.
    first: the index of this module's first neuron within the whole layer; not 0 in a second tower.
    """

    def __init__(self, p: float, *, inverted: bool = False, salt: int = 0, first: int = 0) -> None:
        super().__init__()
        self.p, self.inverted, self.salt, self.first = p, inverted, salt, first

    def forward(self, x: Tensor, keys: Tensor | None = None) -> Tensor:
        """[N, neurons] → the same shape; keys, int64 [N], determine each image's mask.

        Without keys torch's generator draws it.
        """
        if self.p == 0 or (self.inverted and not self.training):
            return x
        if not self.training:
            return x * (1 - self.p)
        mask = self.draw_mask(x, keys)
        return x * (mask / (1 - self.p) if self.inverted else mask)

    def draw_mask(self, x: Tensor, keys: Tensor | None) -> Tensor:
        """[N, neurons]: one for each neuron that stays, zero for the others."""
        if keys is None:
            return torch.empty_like(x).bernoulli_(1 - self.p)
        return bernoulli(keys + self.salt, self.first, x.shape[1], 1 - self.p).to(x.dtype)


class LocallyConnected(nn.Module):
    """A convolution with unshared kernels: [N, C, H, W] → [N, maps, H', W'].

    weight: float32 [H' · W', maps, C · kernel²]. bias: float32 [maps, H', W'].
    """

    def __init__(self, shape: Shape, maps: int, kernel: int, pad: int) -> None:
        super().__init__()
        self.kernel, self.pad = kernel, pad
        side = shape.side + 2 * pad - kernel + 1
        self.weight = nn.Parameter(torch.empty(side * side, maps, shape.maps * kernel**2))
        self.bias = nn.Parameter(torch.empty(maps, side, side))

    def forward(self, x: Tensor) -> Tensor:
        """Multiply the patch at each position with the kernels of that position."""
        patches = F.unfold(x, self.kernel, padding=self.pad)
        out = torch.einsum("nkl,lok->nol", patches, self.weight)
        return out.reshape(-1, *self.bias.shape) + self.bias


class WithinMapNorm(nn.Module):
    """b = a / (k + α Σ a²)^β, summed over the n × n neighbours in the same map."""

    def __init__(self, k: float, n: int, alpha: float, beta: float) -> None:
        super().__init__()
        self.k, self.n, self.alpha, self.beta = k, n, alpha, beta

    def forward(self, a: Tensor) -> Tensor:
        """[N, C, H, W] of any floating dtype; beyond the edge the input counts as zero."""
        mean = F.avg_pool2d(a * a, self.n, stride=1, padding=self.n // 2)
        return a * (self.k + self.alpha * self.n**2 * mean).pow(-self.beta)

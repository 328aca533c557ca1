"""The words that the networks are written in: one small description a layer, and what it builds.

A network is a list of these. `build` turns a description into a module, given the shape that
comes in and the number of towers that live in this process: two when the whole network does, one
when each tower has a process of its own (model/towers.py).
"""

from dataclasses import dataclass
from typing import Literal, NamedTuple, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from model.counter_rng import bernoulli
from model.lrn import LocalResponseNorm


class Shape(NamedTuple):
    """What goes from layer to layer for one image: maps of side × side; neurons have side 1."""

    maps: int
    side: int


class Layer(Protocol):
    """A description of one layer; its name is that of the module, and of its tensors in a file."""

    @property
    def name(self) -> str: ...

    def build(self, shape: Shape, towers: int) -> tuple[nn.Module, Shape]:
        """Give the module for input of this shape, and the shape that comes out."""
        ...


@dataclass(frozen=True)
class Border:
    """Zero pixels at the bottom and right, none at the top and left."""

    name: str
    pixels: int

    def build(self, shape: Shape, towers: int) -> tuple[nn.Module, Shape]:
        """Widen the input."""
        return nn.ZeroPad2d((0, self.pixels, 0, self.pixels)), shape._replace(
            side=shape.side + self.pixels
        )


@dataclass(frozen=True)
class Conv:
    """A convolutional layer.

    grouped: whether its kernels see only the maps on their own GPU (§3.2), not those on both.
    sigma:   the standard deviation of its initial weights; None keeps torch's initialisation.
    """

    name: str
    maps: int
    kernel: int
    stride: int = 1
    pad: int = 0
    grouped: bool = False
    sigma: float | None = 0.01
    bias: float = 0.0

    def build(self, shape: Shape, towers: int) -> tuple[nn.Module, Shape]:
        """Give a convolution, grouped by tower where its kernels see only their own GPU's maps."""
        groups = towers if self.grouped else 1
        module = nn.Conv2d(shape.maps, self.maps, self.kernel, self.stride, self.pad, groups=groups)
        side = (shape.side + 2 * self.pad - self.kernel) // self.stride + 1
        return module, Shape(self.maps, side)


@dataclass(frozen=True)
class Local:
    """A locally connected layer: as a convolution, but each place has kernels of its own."""

    name: str
    maps: int
    kernel: int
    pad: int
    sigma: float | None
    bias: float = 0.0

    def build(self, shape: Shape, towers: int) -> tuple[nn.Module, Shape]:
        """Give the module; the side stays when the padding is half the kernel."""
        side = shape.side + 2 * self.pad - self.kernel + 1
        return LocallyConnected(shape, self.maps, self.kernel, self.pad), Shape(self.maps, side)


@dataclass(frozen=True)
class Dense:
    """A fully connected layer; the last one is the softmax's."""

    name: str
    neurons: int
    sigma: float | None = 0.01
    bias: float = 0.0

    def build(self, shape: Shape, towers: int) -> tuple[nn.Module, Shape]:
        """Give a linear layer."""
        return nn.Linear(shape.maps * shape.side**2, self.neurons), Shape(self.neurons, 1)


@dataclass(frozen=True)
class Flatten:
    """Maps become neurons."""

    name: str

    def build(self, shape: Shape, towers: int) -> tuple[nn.Module, Shape]:
        """[N, C, H, W] → [N, C · H · W]."""
        return nn.Flatten(), Shape(shape.maps * shape.side**2, 1)


@dataclass(frozen=True)
class Activation:
    """The neurons' nonlinearity (§3.1)."""

    name: str
    kind: Literal["relu", "tanh"] = "relu"

    def build(self, shape: Shape, towers: int) -> tuple[nn.Module, Shape]:
        """Give ReLU, in place, or tanh."""
        return (nn.ReLU(inplace=True) if self.kind == "relu" else nn.Tanh()), shape


@dataclass(frozen=True)
class Lrn:
    """Local response normalisation (§3.3); `across` lets its neighbourhood cross the towers."""

    name: str
    k: float
    n: int
    alpha: float
    beta: float
    across: bool = False

    def build(self, shape: Shape, towers: int) -> tuple[nn.Module, Shape]:
        """Give the normalisation within each tower's maps."""
        groups = 1 if self.across else towers
        return LocalResponseNorm(shape.maps, groups, self.k, self.n, self.alpha, self.beta), shape


@dataclass(frozen=True)
class MapNorm:
    """Normalisation by the neighbours within the same map, as the 2012 source has after conv2."""

    name: str
    k: float
    n: int
    alpha: float
    beta: float

    def build(self, shape: Shape, towers: int) -> tuple[nn.Module, Shape]:
        """Give the normalisation."""
        return WithinMapNorm(self.k, self.n, self.alpha, self.beta), shape


@dataclass(frozen=True)
class Pool:
    """Max pooling over size × size neurons, stride apart (§3.4).

    ceil: the last window may hang over the edge, as in the 2012 source, where it must.
    """

    name: str
    size: int = 3
    stride: int = 2
    ceil: bool = False

    def build(self, shape: Shape, towers: int) -> tuple[nn.Module, Shape]:
        """Give the pooling."""
        steps = shape.side - self.size + (self.stride - 1 if self.ceil else 0)
        module = nn.MaxPool2d(self.size, self.stride, ceil_mode=self.ceil)
        return module, shape._replace(side=steps // self.stride + 1)


@dataclass(frozen=True)
class AveragePool:
    """Average pooling to side × side, which leaves maps of that side as they are."""

    name: str
    side: int

    def build(self, shape: Shape, towers: int) -> tuple[nn.Module, Shape]:
        """Give the pooling."""
        return nn.AdaptiveAvgPool2d(self.side), shape._replace(side=self.side)


@dataclass(frozen=True)
class Drop:
    """Dropout (§4.2). `inverted`: divide by 1 − p in training instead of multiplying at test.

    tower: which of the towers this is a part of, where each has a process of its own.
    """

    name: str
    p: float
    inverted: bool = False
    tower: int = 0

    def build(self, shape: Shape, towers: int) -> tuple[nn.Module, Shape]:
        """Give the module, its randomness told apart from other layers' by its name."""
        salt, first = sum(self.name.encode()), self.tower * shape.maps
        return Dropout(self.p, inverted=self.inverted, salt=salt, first=first), shape


class Dropout(nn.Module):
    """The paper's dropout (§4.2): zero a neuron with probability p; at test, multiply by 1 − p.

    torch's own divides by 1 − p in training instead, which is another network for the same
    weights, learning rate and initial values; `inverted` does that.

    first: the number of this module's first neuron within the whole layer, for a tower.
    """

    def __init__(self, p: float, *, inverted: bool = False, salt: int = 0, first: int = 0) -> None:
        super().__init__()
        self.p, self.inverted, self.salt, self.first = p, inverted, salt, first

    def forward(self, x: Tensor, keys: Tensor | None = None) -> Tensor:
        """[N, neurons]; keys, int64 [N], names each image's draw; without, torch draws."""
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
    """Kernels that are not shared between places: [N, C, H, W] → [N, maps, H', W'].

    weight: float32 [H' · W', maps, C · kernel²]. bias: float32 [maps, H', W'].
    """

    def __init__(self, shape: Shape, maps: int, kernel: int, pad: int) -> None:
        super().__init__()
        self.kernel, self.pad = kernel, pad
        side = shape.side + 2 * pad - kernel + 1
        self.weight = nn.Parameter(torch.empty(side * side, maps, shape.maps * kernel**2))
        self.bias = nn.Parameter(torch.empty(maps, side, side))

    def forward(self, x: Tensor) -> Tensor:
        """Multiply each place's patch with that place's kernels."""
        patches = F.unfold(x, self.kernel, padding=self.pad)
        out = torch.einsum("nkl,lok->nol", patches, self.weight)
        return out.reshape(len(x), *self.bias.shape) + self.bias


class WithinMapNorm(nn.Module):
    """b = a / (k + α Σ a²)^β, the sum over the n × n neighbours in the same map."""

    def __init__(self, k: float, n: int, alpha: float, beta: float) -> None:
        super().__init__()
        self.k, self.n, self.alpha, self.beta = k, n, alpha, beta

    def forward(self, a: Tensor) -> Tensor:
        """[N, C, H, W] of any floating dtype; places beyond the edge count as zero."""
        mean = F.avg_pool2d(a * a, self.n, stride=1, padding=self.n // 2)
        return a * (self.k + self.alpha * self.n**2 * mean).pow(-self.beta)

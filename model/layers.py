"""The layers that networks are described with, and the modules that they build.

A network is a list of descriptions. `build` turns one into a module, given the input's shape and
the number of towers in this process: two for a whole network, one when each tower has a process
of its own (model/towers.py).
"""

from dataclasses import dataclass
from typing import Literal, NamedTuple, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from model.counter_rng import bernoulli
from model.lrn import LocalResponseNorm


class Shape(NamedTuple):
    """The shape of one image's activations: maps of side × side; neurons have side 1."""

    maps: int
    side: int


class Layer(Protocol):
    """A description of one layer; its module, and its tensors in a file, have the same name."""

    @property
    def name(self) -> str: ...

    def build(self, shape: Shape, towers: int) -> tuple[nn.Module, Shape]:
        """Build the module for an input of this shape; also return the shape of its output."""
        ...


@dataclass(frozen=True)
class Border:
    """Zero padding at the bottom and right only."""

    name: str
    pixels: int

    def build(self, shape: Shape, towers: int) -> tuple[nn.Module, Shape]:
        """Build the padding."""
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
        """Build a convolution, grouped by tower where its kernels see only their own GPU's maps."""
        groups = towers if self.grouped else 1
        module = nn.Conv2d(shape.maps, self.maps, self.kernel, self.stride, self.pad, groups=groups)
        side = (shape.side + 2 * self.pad - self.kernel) // self.stride + 1
        return module, Shape(self.maps, side)


@dataclass(frozen=True)
class Local:
    """A locally connected layer: a convolution with separate kernels for each position."""

    name: str
    maps: int
    kernel: int
    pad: int
    sigma: float | None
    bias: float = 0.0

    def build(self, shape: Shape, towers: int) -> tuple[nn.Module, Shape]:
        """Build the module; the side stays the same if the padding is half the kernel."""
        side = shape.side + 2 * self.pad - self.kernel + 1
        return LocallyConnected(shape, self.maps, self.kernel, self.pad), Shape(self.maps, side)


@dataclass(frozen=True)
class Dense:
    """A fully connected layer; the last one feeds the softmax."""

    name: str
    neurons: int
    sigma: float | None = 0.01
    bias: float = 0.0

    def build(self, shape: Shape, towers: int) -> tuple[nn.Module, Shape]:
        """Build a linear layer."""
        return nn.Linear(shape.maps * shape.side**2, self.neurons), Shape(self.neurons, 1)


@dataclass(frozen=True)
class Flatten:
    """Maps turned into neurons."""

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
        """Build ReLU, which works in place, or tanh."""
        return (nn.ReLU(inplace=True) if self.kind == "relu" else nn.Tanh()), shape


@dataclass(frozen=True)
class Lrn:
    """Local response normalisation (§3.3); `across` lets its neighbourhood span the towers."""

    name: str
    k: float
    n: int
    alpha: float
    beta: float
    across: bool = False

    def build(self, shape: Shape, towers: int) -> tuple[nn.Module, Shape]:
        """Build the normalisation, within each tower's maps unless `across`."""
        groups = 1 if self.across else towers
        return LocalResponseNorm(shape.maps, groups, self.k, self.n, self.alpha, self.beta), shape


@dataclass(frozen=True)
class MapNorm:
    """Normalisation over neighbours in the same map, which the 2012 source has after conv2."""

    name: str
    k: float
    n: int
    alpha: float
    beta: float

    def build(self, shape: Shape, towers: int) -> tuple[nn.Module, Shape]:
        """Build the normalisation."""
        return WithinMapNorm(self.k, self.n, self.alpha, self.beta), shape


@dataclass(frozen=True)
class Pool:
    """Pooling over windows of size × size, `stride` apart (§3.4).

    ceil: whether the last window may extend beyond the edge, as in the 2012 source.
    kind: whether it takes the largest value or the mean of those within the edges.
    """

    name: str
    size: int = 3
    stride: int = 2
    ceil: bool = False
    kind: Literal["max", "average"] = "max"

    def build(self, shape: Shape, towers: int) -> tuple[nn.Module, Shape]:
        """Build the pooling."""
        steps = shape.side - self.size + (self.stride - 1 if self.ceil else 0)
        pooling = nn.MaxPool2d if self.kind == "max" else nn.AvgPool2d
        module = pooling(self.size, self.stride, ceil_mode=self.ceil)
        return module, shape._replace(side=steps // self.stride + 1)


@dataclass(frozen=True)
class AveragePool:
    """Average pooling to side × side; maps of that side stay as they are."""

    name: str
    side: int

    def build(self, shape: Shape, towers: int) -> tuple[nn.Module, Shape]:
        """Build the pooling."""
        return nn.AdaptiveAvgPool2d(self.side), shape._replace(side=self.side)


@dataclass(frozen=True)
class Drop:
    """Dropout (§4.2).

    inverted: divide by 1 − p in training instead of multiplying by it at test time.
    tower:    which tower this belongs to, if each has a process of its own.
    """

    name: str
    p: float
    inverted: bool = False
    tower: int = 0

    def build(self, shape: Shape, towers: int) -> tuple[nn.Module, Shape]:
        """Build the module; its name makes its random numbers differ from other layers'."""
        salt, first = sum(self.name.encode()), self.tower * shape.maps
        return Dropout(self.p, inverted=self.inverted, salt=salt, first=first), shape


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

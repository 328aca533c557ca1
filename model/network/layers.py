"""The layers that networks are described with.

A network is a list of descriptions. model/network/modules.py turns them into modules; the shapes of
their outputs follow from the descriptions alone, so that drawing a network needs no torch.
"""

from dataclasses import dataclass
from typing import Literal, NamedTuple, Protocol


class Shape(NamedTuple):
    """The shape of one image's activations: maps of side × side; neurons have side 1."""

    maps: int
    side: int


class Layer(Protocol):
    """A description of one layer; its module, and its tensors in a file, have the same name."""

    @property
    def name(self) -> str: ...

    def output_shape(self, shape: Shape) -> Shape:
        """Return the shape of its output, for an input of this shape."""
        ...


@dataclass(frozen=True)
class Border:
    """Zero padding at the bottom and right only."""

    name: str
    pixels: int

    def output_shape(self, shape: Shape) -> Shape:
        """Return the padded shape."""
        return shape._replace(side=shape.side + self.pixels)


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

    def output_shape(self, shape: Shape) -> Shape:
        """Return one position for each place of a kernel."""
        side = (shape.side + 2 * self.pad - self.kernel) // self.stride + 1
        return Shape(self.maps, side)


@dataclass(frozen=True)
class Local:
    """A locally connected layer: a convolution with separate kernels for each position."""

    name: str
    maps: int
    kernel: int
    pad: int
    sigma: float | None
    bias: float = 0.0

    def output_shape(self, shape: Shape) -> Shape:
        """Return one position for each kernel; the side stays if the padding is half of it."""
        return Shape(self.maps, shape.side + 2 * self.pad - self.kernel + 1)


@dataclass(frozen=True)
class Dense:
    """A fully connected layer; the last one feeds the softmax."""

    name: str
    neurons: int
    sigma: float | None = 0.01
    bias: float = 0.0

    def output_shape(self, shape: Shape) -> Shape:
        """Return its neurons."""
        return Shape(self.neurons, 1)


@dataclass(frozen=True)
class Flatten:
    """Maps turned into neurons."""

    name: str

    def output_shape(self, shape: Shape) -> Shape:
        """[C, H, W] → [C · H · W]."""
        return Shape(shape.maps * shape.side**2, 1)


@dataclass(frozen=True)
class Activation:
    """The neurons' nonlinearity (§3.1)."""

    name: str
    kind: Literal["relu", "tanh"] = "relu"

    def output_shape(self, shape: Shape) -> Shape:
        """Return the same shape."""
        return shape


@dataclass(frozen=True)
class Lrn:
    """Local response normalisation (§3.3); `across` lets its neighbourhood span the towers."""

    name: str
    k: float
    n: int
    alpha: float
    beta: float
    across: bool = False

    def output_shape(self, shape: Shape) -> Shape:
        """Return the same shape."""
        return shape


@dataclass(frozen=True)
class MapNorm:
    """Normalisation over neighbours in the same map, which the 2012 source has after conv2."""

    name: str
    k: float
    n: int
    alpha: float
    beta: float

    def output_shape(self, shape: Shape) -> Shape:
        """Return the same shape."""
        return shape


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

    def output_shape(self, shape: Shape) -> Shape:
        """Return one position for each window."""
        steps = shape.side - self.size + (self.stride - 1 if self.ceil else 0)
        return shape._replace(side=steps // self.stride + 1)


@dataclass(frozen=True)
class AveragePool:
    """Average pooling to side × side; maps of that side stay as they are."""

    name: str
    side: int

    def output_shape(self, shape: Shape) -> Shape:
        """Return the same maps at its side."""
        return shape._replace(side=self.side)


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

    def output_shape(self, shape: Shape) -> Shape:
        """Return the same shape."""
        return shape

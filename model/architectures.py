"""The nets of others that people have weights for, and the four-layer nets for CIFAR-10."""

from dataclasses import replace
from typing import TYPE_CHECKING, Literal

from model.layers import (
    Activation,
    Average,
    Conv,
    Dense,
    Drop,
    Flatten,
    Layer,
    Local,
    Lrn,
    Pool,
)

if TYPE_CHECKING:
    from model.alexnet import AlexNetConfig


def caffe_alexnet(c: "AlexNetConfig") -> list[Layer]:
    """Caffe's bvlc_alexnet: 227 pixels, LRN across all maps, biases of 0.1."""
    return caffe(c, bias=0.1, pool_first=False)


def caffenet(c: "AlexNetConfig") -> list[Layer]:
    """Caffe's bvlc_reference_caffenet: pooling before LRN, biases of 1."""
    return caffe(c, bias=1.0, pool_first=True)


def caffe(c: "AlexNetConfig", bias: float, *, pool_first: bool) -> list[Layer]:
    """The layers that both of Caffe's nets have, by their train_val.prototxt."""
    z = 3 if c.overlapping else 2

    def rest(number: int) -> list[Layer]:
        lrn = Lrn(f"lrn{number}", c.lrn_k, c.lrn_n, c.lrn_alpha, c.lrn_beta, across=True)
        pool = Pool(f"pool{number}", z, ceil=True)
        order: list[Layer] = [pool, lrn] if pool_first else [lrn, pool]
        return [Activation(f"relu{number}", c.activation), *order]

    return [
        Conv("conv1", 96, kernel=11, stride=4),
        *rest(1),
        Conv("conv2", 256, kernel=5, pad=2, sees="own", bias=bias),
        *rest(2),
        Conv("conv3", 384, kernel=3, pad=1),
        Activation("relu3", c.activation),
        Conv("conv4", 384, kernel=3, pad=1, sees="own", bias=bias),
        Activation("relu4", c.activation),
        Conv("conv5", 256, kernel=3, pad=1, sees="own", bias=bias),
        Activation("relu5", c.activation),
        Pool("pool5", z, ceil=True),
        Flatten("flatten"),
        Dense("fc6", 4096, sigma=0.005, bias=bias),
        Activation("relu6", c.activation),
        Drop("drop6", c.dropout, inverted=True),
        Dense("fc7", 4096, sigma=0.005, bias=bias),
        Activation("relu7", c.activation),
        Drop("drop7", c.dropout, inverted=True),
        Dense("fc8", c.classes),
    ]


def torchvision(c: "AlexNetConfig") -> list[Layer]:
    """torchvision's alexnet, after *One weird trick*: one tower, no LRN, dropout before fc6."""
    z = 3 if c.overlapping else 2
    maps = ((64, 11, 4, 2), (192, 5, 1, 2), (384, 3, 1, 1), (256, 3, 1, 1), (256, 3, 1, 1))
    found: list[Layer] = []
    for number, (count, kernel, stride, pad) in enumerate(maps, start=1):
        found.append(Conv(f"conv{number}", count, kernel, stride, pad, sigma=None))
        found.append(Activation(f"relu{number}", c.activation))
        if number in (1, 2, 5):
            found.append(Pool(f"pool{number}", z))
    return [
        *found,
        Average("average", 6),
        Flatten("flatten"),
        Drop("drop6", c.dropout, inverted=True),
        Dense("fc6", 4096, sigma=None),
        Activation("relu6", c.activation),
        Drop("drop7", c.dropout, inverted=True),
        Dense("fc7", 4096, sigma=None),
        Activation("relu7", c.activation),
        Dense("fc8", c.classes, sigma=None),
    ]


def cifar(c: "AlexNetConfig") -> list[Layer]:
    """Two convolutional and two locally connected layers for 32×32 or 24×24 pixels (§3.1, §3.3).

    Without LRN the net that the authors published as "13 %", with it the one as "11 %", whose
    first locally connected layer has twice the maps.
    """
    z = 3 if c.overlapping else 2
    lrn1, lrn2 = (Lrn(f"lrn{i}", c.lrn_k, c.lrn_n, c.lrn_alpha, c.lrn_beta) for i in (1, 2))
    return [
        Conv("conv1", 64, kernel=5, pad=2, sigma=1e-4),
        Activation("relu1", c.activation),
        Pool("pool1", z, ceil=True),
        lrn1,
        Conv("conv2", 64, kernel=5, pad=2, sigma=0.01),
        Activation("relu2", c.activation),
        lrn2,
        Pool("pool2", z, ceil=True),
        Local("local3", 64 if c.lrn else 32, kernel=3, pad=1, sigma=0.04),
        Activation("relu3", c.activation),
        Local("local4", 32, kernel=3, pad=1, sigma=0.04),
        Activation("relu4", c.activation),
        Flatten("flatten"),
        Dense("fc10", c.classes),
    ]


def with_maps(layer: Conv, maps: int) -> Conv:
    """The same layer with another number of maps."""
    return replace(layer, maps=maps)


def with_sight(layer: Conv, sees: Literal["own", "both"]) -> Conv:
    """The same layer seeing only its own GPU's maps, or both GPUs'."""
    return replace(layer, sees=sees)


def with_sigma(layer: Layer, sigma: float) -> Layer:
    """The same convolutional layer with other initial weights."""
    return replace(layer, sigma=sigma) if isinstance(layer, Conv) else layer

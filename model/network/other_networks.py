"""The layers of other networks: Caffe's, torchvision's, those for CIFAR-10, and defined ones."""

from collections.abc import Callable, Mapping
from dataclasses import replace

from model.network.config import AlexNetConfig
from model.network.layers import (
    Activation,
    AveragePool,
    Conv,
    Dense,
    Drop,
    Flatten,
    Layer,
    Local,
    Lrn,
    MapNorm,
    Pool,
)


def caffe_alexnet_layers(c: AlexNetConfig) -> list[Layer]:
    """Caffe's bvlc_alexnet: 227 pixels, LRN across all maps, biases of 0.1."""
    return caffe_layers(c, bias=0.1, pool_first=False)


def caffenet_layers(c: AlexNetConfig) -> list[Layer]:
    """Caffe's bvlc_reference_caffenet: pooling before LRN, biases of 1."""
    return caffe_layers(c, bias=1.0, pool_first=True)


def caffe_layers(c: AlexNetConfig, bias: float, *, pool_first: bool) -> list[Layer]:
    """The layers that both of Caffe's nets have, by their train_val.prototxt."""
    z = 3 if c.overlapping else 2

    def after_conv(number: int) -> list[Layer]:
        lrn = Lrn(f"lrn{number}", c.lrn_k, c.lrn_n, c.lrn_alpha, c.lrn_beta, across=True)
        pool = Pool(f"pool{number}", z, ceil=True)
        order: list[Layer] = [pool, lrn] if pool_first else [lrn, pool]
        return [Activation(f"relu{number}", c.activation), *order]

    return [
        Conv("conv1", 96, kernel=11, stride=4),
        *after_conv(1),
        Conv("conv2", 256, kernel=5, pad=2, grouped=True, bias=bias),
        *after_conv(2),
        Conv("conv3", 384, kernel=3, pad=1),
        Activation("relu3", c.activation),
        Conv("conv4", 384, kernel=3, pad=1, grouped=True, bias=bias),
        Activation("relu4", c.activation),
        Conv("conv5", 256, kernel=3, pad=1, grouped=True, bias=bias),
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


def torchvision_layers(c: AlexNetConfig) -> list[Layer]:
    """torchvision's alexnet, after *One weird trick*: one tower, no LRN, dropout before fc6."""
    z = 3 if c.overlapping else 2
    maps = ((64, 11, 4, 2), (192, 5, 1, 2), (384, 3, 1, 1), (256, 3, 1, 1), (256, 3, 1, 1))
    layers: list[Layer] = []
    for number, (count, kernel, stride, pad) in enumerate(maps, start=1):
        layers.append(Conv(f"conv{number}", count, kernel, stride, pad, sigma=None))
        layers.append(Activation(f"relu{number}", c.activation))
        if number in (1, 2, 5):
            layers.append(Pool(f"pool{number}", z))
    return [
        *layers,
        AveragePool("average", 6),
        Flatten("flatten"),
        Drop("drop6", c.dropout, inverted=True),
        Dense("fc6", 4096, sigma=None),
        Activation("relu6", c.activation),
        Drop("drop7", c.dropout, inverted=True),
        Dense("fc7", 4096, sigma=None),
        Activation("relu7", c.activation),
        Dense("fc8", c.classes, sigma=None),
    ]


def cifar_layers(c: AlexNetConfig) -> list[Layer]:
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


def cifar_18pct_layers(c: AlexNetConfig) -> list[Layer]:
    """Three convolutional layers for 32×32 pixels, as cuda-convnet's definition "18 %" has them.

    Normalisation is within each map, over 3 × 3 neighbours; the definition's scale of 5e-5 is
    divided by their number, as in network 145.
    """
    norms = [MapNorm(f"mapnorm{i}", k=1, n=3, alpha=5e-5 / 9, beta=0.75) for i in (1, 2)]
    return [
        Conv("conv1", 32, kernel=5, pad=2, sigma=1e-4),
        Pool("pool1", ceil=True),
        Activation("relu1", c.activation),
        norms[0],
        Conv("conv2", 32, kernel=5, pad=2),
        Activation("relu2", c.activation),
        Pool("pool2", ceil=True, kind="average"),
        norms[1],
        Conv("conv3", 64, kernel=5, pad=2),
        Activation("relu3", c.activation),
        Pool("pool3", ceil=True, kind="average"),
        Flatten("flatten"),
        Dense("fc10", c.classes),
    ]


def cifar_80sec_layers(c: AlexNetConfig) -> list[Layer]:
    """The layers of cuda-convnet's definition "80sec": as in "18 %" without normalisation, and 64
    neurons before the outputs.
    """
    convolutional = [
        layer for layer in cifar_18pct_layers(c) if not isinstance(layer, MapNorm | Dense)
    ]
    return [
        *convolutional,
        Dense("fc64", 64, sigma=0.1),
        Activation("relu4", c.activation),
        Dense("fc10", c.classes, sigma=0.1),
    ]


def defined_layers(c: AlexNetConfig) -> list[Layer]:
    """The layers that the configuration lists, with its number of classes and its dropout."""
    layers = [
        replace(layer, p=c.dropout) if isinstance(layer, Drop) else layer for layer in c.layers
    ]
    last = layers[-1]
    assert isinstance(last, Dense)
    return [*layers[:-1], replace(last, neurons=c.classes)]


OTHERS: Mapping[str, Callable[[AlexNetConfig], list[Layer]]] = {
    "caffe-alexnet": caffe_alexnet_layers,
    "caffenet": caffenet_layers,
    "torchvision": torchvision_layers,
    "cifar": cifar_layers,
    "cifar-18pct": cifar_18pct_layers,
    "cifar-80sec": cifar_80sec_layers,
    "defined": defined_layers,
}
"""What lists the layers of each network that is not near the paper's, by `net`."""

"""The paper's layers, one by one, and those of every other configuration.

Section numbers are the paper's.
"""

from collections.abc import Sequence
from dataclasses import replace

from model.network import architectures, other_networks
from model.network.config import FEATURES, AlexNetConfig, ConfigError
from model.network.layers import (
    Activation,
    Border,
    Conv,
    Dense,
    Drop,
    Flatten,
    Layer,
    Lrn,
    MapNorm,
    Pool,
    Shape,
)


def paper_layers(c: AlexNetConfig) -> list[Layer]:
    """The paper's five convolutional and three fully connected layers (§3.5, Figure 2)."""
    z = 3 if c.overlapping else 2
    # 55 windows of 11 with stride 4 need 227 pixels. The paper is silent on the border; the
    # 2012 source leaves three zero pixels at the bottom and right, none at the top and left.
    return [
        Border("border", 3),
        Conv("conv1", 96, kernel=11, stride=4),
        Activation("relu1", c.activation),
        Lrn("lrn1", c.lrn_k, c.lrn_n, c.lrn_alpha, c.lrn_beta),
        Pool("pool1", z),
        Conv("conv2", 256, kernel=5, pad=2, grouped=True, bias=1),
        Activation("relu2", c.activation),
        Lrn("lrn2", c.lrn_k, c.lrn_n, c.lrn_alpha, c.lrn_beta),
        Pool("pool2", z),
        Conv("conv3", 384, kernel=3, pad=1),
        Activation("relu3", c.activation),
        Conv("conv4", 384, kernel=3, pad=1, grouped=True, bias=1),
        Activation("relu4", c.activation),
        Conv("conv5", 256, kernel=3, pad=1, grouped=True, bias=1),
        Activation("relu5", c.activation),
        Pool("pool5", z),
        *(conv6_layers(c) if c.conv6 else []),
        Flatten("flatten"),
        Dense("fc6", 4096, bias=1),
        Activation("relu6", c.activation),
        Drop("drop6", c.dropout),
        Dense("fc7", FEATURES, bias=1),
        Activation("relu7", c.activation),
        Drop("drop7", c.dropout),
        *(bottleneck_layers(c) if c.bottleneck else []),
        Dense("fc8", c.classes),
    ]


def bottleneck_layers(c: AlexNetConfig) -> list[Layer]:
    """Two linear layers before the outputs, as in the source's network for 22,000 classes."""
    return [Dense("linear1", c.bottleneck), Dense("linear2", c.bottleneck)]


def conv6_layers(c: AlexNetConfig) -> list[Layer]:
    """The sixth convolutional layer of §6; its size and bias are the 2012 source's."""
    return [
        Conv("conv6", 256, kernel=3, pad=1, bias=1),
        Activation("relu_conv6", c.activation),
    ]


def list_layers(c: AlexNetConfig) -> list[Layer]:
    """List the network's layers, from the pixels to fc8."""
    layers = list_architecture(c)
    if not c.lrn:
        layers = [layer for layer in layers if not isinstance(layer, Lrn | MapNorm)]
    elif c.lrn_alpha_factors:
        layers = scale_lrn_alphas(layers, c.lrn_alpha_factors)
    return architectures.remove_layer(c.without, layers) if c.without else layers


def list_architecture(c: AlexNetConfig) -> list[Layer]:
    """List the layers of the network's architecture, whatever the other options leave out."""
    if c.net in other_networks.OTHERS:
        return other_networks.OTHERS[c.net](c)
    layers = paper_layers(c)
    return architectures.PAPERS_KIN[c.net](layers) if c.net != "paper" else layers


def count_features(c: AlexNetConfig) -> int:
    """Count the neurons of the last hidden layer, the features that images are compared by."""
    layers, shape = list_layers(c), Shape(3, c.crop)
    hidden = max(i for i, layer in enumerate(layers) if isinstance(layer, Activation | Flatten))
    for layer in layers[: hidden + 1]:
        shape = layer.output_shape(shape)
    return shape.maps * shape.side**2


def scale_lrn_alphas(layers: list[Layer], factors: Sequence[float]) -> list[Layer]:
    """Multiply each normalisation layer's α by its factor. Raises ConfigError."""
    norms = [layer for layer in layers if isinstance(layer, Lrn | MapNorm)]
    if len(factors) != len(norms):
        raise ConfigError(
            f"AlexNetConfig.lrn_alpha_factors has {len(factors)} numbers for {len(norms)} layers"
        )
    scaled = {
        norm.name: replace(norm, alpha=norm.alpha * factor)
        for norm, factor in zip(norms, factors, strict=True)
    }
    return [scaled.get(layer.name, layer) for layer in layers]

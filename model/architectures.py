"""The other networks of the family: their layers, and every variant by name.

The paper's own ablations, the network as it was run in 2012, the nets that others published
weights for, and the four-layer nets for CIFAR-10.
"""

from dataclasses import dataclass, replace

from model.config import AlexNetConfig
from model.layers import (
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


@dataclass(frozen=True)
class Variant:
    """A network's configuration, its number of parameters, and a short description."""

    config: AlexNetConfig
    parameters: int
    description: str


PAPER = AlexNetConfig()
CAFFE = AlexNetConfig(net="caffe-alexnet", crop=227, lrn_k=1.0, lrn_alpha=1e-4 / 5)
CIFAR = AlexNetConfig(
    net="cifar",
    classes=10,
    side=32,
    crop=32,
    lrn=False,
    lrn_k=1.0,
    lrn_n=9,
    lrn_alpha=0.001 / 9,
    dropout=0.0,
)

VARIANTS = {
    "paper": Variant(PAPER, 60_965_224, "the paper's network (§3)"),
    "original": Variant(
        replace(PAPER, net="original", lrn_alpha=1e-4 / 5),
        60_965_224,
        "the same as it was run in 2012: order of ReLU, LRN and pooling, a second normalisation "
        "after conv2, α divided by n, σ of 0.03 in conv3 to conv5",
    ),
    "one-gpu": Variant(
        replace(PAPER, net="one-gpu"), 59_798_312, "conv1 to conv4 halved, the rest whole (§3.2)"
    ),
    "separate-towers": Variant(
        replace(PAPER, net="separate-towers"),
        60_522_856,
        "towers that exchange nothing before fc6 (network 150 of the published source)",
    ),
    "no-lrn": Variant(replace(PAPER, lrn=False), 60_965_224, "without normalisation (§3.3)"),
    "no-overlap": Variant(
        replace(PAPER, overlapping=False), 60_965_224, "pooling with z = 2, s = 2 (§3.4)"
    ),
    "tanh": Variant(replace(PAPER, activation="tanh"), 60_965_224, "tanh for ReLU (§3.1)"),
    "no-dropout": Variant(replace(PAPER, dropout=0.0), 60_965_224, "without dropout (§4.2)"),
    "no-conv3": Variant(replace(PAPER, without="conv3"), 60_301_288, "without conv3 (§7)"),
    "no-conv4": Variant(replace(PAPER, without="conv4"), 60_301_288, "without conv4 (§7)"),
    "no-conv5": Variant(replace(PAPER, without="conv5"), 79_396_968, "without conv5 (§7)"),
    "conv6": Variant(
        replace(PAPER, conv6=True), 61_555_304, "a sixth convolutional layer after pool5 (§6)"
    ),
    "cifar": Variant(
        CIFAR, 1_901_386, "four layers for CIFAR-10, 32×32 pixels, no normalisation (§3.1)"
    ),
    "cifar-tanh": Variant(
        replace(CIFAR, activation="tanh"), 1_901_386, "the same with tanh (Figure 1)"
    ),
    "cifar-lrn": Variant(
        replace(CIFAR, lrn=True), 3_672_906, "four layers for CIFAR-10 with normalisation (§3.3)"
    ),
    "cifar-lrn-tanh": Variant(
        replace(CIFAR, lrn=True, activation="tanh"), 3_672_906, "the same with tanh"
    ),
    "cifar-24": Variant(replace(CIFAR, crop=24), 1_116_490, "cifar on crops of 24×24"),
    "cifar-24-tanh": Variant(
        replace(CIFAR, activation="tanh", crop=24), 1_116_490, "the same with tanh"
    ),
    "cifar-lrn-24": Variant(
        replace(CIFAR, lrn=True, crop=24), 2_112_970, "cifar-lrn on crops of 24×24"
    ),
    "cifar-lrn-24-tanh": Variant(
        replace(CIFAR, lrn=True, activation="tanh", crop=24), 2_112_970, "the same with tanh"
    ),
    "caffe-alexnet": Variant(CAFFE, 60_965_224, "Caffe's bvlc_alexnet"),
    "caffenet": Variant(
        replace(CAFFE, net="caffenet"), 60_965_224, "Caffe's bvlc_reference_caffenet"
    ),
    "torchvision": Variant(
        replace(PAPER, net="torchvision", lrn=False), 61_100_840, "torchvision's alexnet"
    ),
}


TRAINING_FIELDS = (
    *("classes", "dropout", "init", "resize", "input_scale", "channel_scales"),
    "lrn_alpha_factors",
)
"""Fields of a configuration in which networks of one variant differ."""


def find_variant(config: AlexNetConfig) -> Variant | None:
    """Find the variant that a trained network belongs to; None if it is none of them."""
    own = {name: getattr(config, name) for name in TRAINING_FIELDS}
    known = VARIANTS.values()
    return next((v for v in known if replace(v.config, **own) == config), None)


def original_layers(paper: list[Layer]) -> list[Layer]:
    """The layers as they were run in 2012: network 145 of the published source."""
    by_name = {layer.name: layer for layer in paper}
    first = ["border", "conv1", "lrn1", "pool1", "relu1"]
    layers = [by_name[name] for name in first]
    layers += [layer for layer in paper if layer.name not in first]
    mapnorm2 = MapNorm("mapnorm2", k=1, n=5, alpha=0.001 / 25, beta=0.75)
    layers.insert(layers.index(by_name["lrn2"]) + 1, mapnorm2)
    relu5, pool5 = (layers.index(by_name[name]) for name in ("relu5", "pool5"))
    layers[relu5], layers[pool5] = layers[pool5], layers[relu5]
    middle = ("conv3", "conv4", "conv5", "conv6")
    return [
        replace(layer, sigma=0.03) if isinstance(layer, Conv) and layer.name in middle else layer
        for layer in layers
    ]


def one_gpu_layers(paper: list[Layer]) -> list[Layer]:
    """The one-GPU net that §3.2 compares with: conv1–conv4 halved, the other layers whole."""
    halved = ("conv1", "conv2", "conv3", "conv4")
    return [
        replace(layer, maps=layer.maps // 2)
        if isinstance(layer, Conv) and layer.name in halved
        else layer
        for layer in paper
    ]


def separate_towers_layers(paper: list[Layer]) -> list[Layer]:
    """The paper's layers with every convolution after conv1 on its own GPU's maps only.

    Network 150 of the 2012 source, which reached 41.83 and 19.33 % on ILSVRC-2012, where the
    paper's network reached 40.66 and 18.21 %.
    """
    return [
        replace(layer, grouped=True) if isinstance(layer, Conv) and layer.name != "conv1" else layer
        for layer in paper
    ]


def remove_layer(name: str, layers: list[Layer]) -> list[Layer]:
    """Remove a convolutional layer and its nonlinearity.

    If that layer saw both GPUs' maps, the next one does in its place: the comparison is about
    depth, not about whether the towers exchange their maps.
    """
    removed = next(layer for layer in layers if layer.name == name)
    assert isinstance(removed, Conv)
    rest = [layer for layer in layers if layer.name not in (name, f"relu{name[-1]}")]
    follower = layers[layers.index(removed) + 2]
    if isinstance(follower, Conv) and not removed.grouped:
        rest[rest.index(follower)] = replace(follower, grouped=False)
    return rest


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

"""The other networks of the family: their layers, and every variant by name.

The paper's own ablations, the network as it was run in 2012, the nets that others published
weights for, and the four-layer nets for CIFAR-10.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from model.network.config import AlexNetConfig
from model.network.layers import (
    Conv,
    Layer,
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
ORIGINAL = replace(PAPER, net="original", lrn_alpha=1e-4 / 5)
CIFAR = AlexNetConfig(
    net="cifar",
    test_crops="nine",
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
        ORIGINAL,
        60_965_224,
        "the same as it was run in 2012, network 145 of the published source: order of ReLU, LRN "
        "and pooling, a second normalisation after conv2, α divided by n, σ of 0.03 in conv3 to "
        "conv5",
    ),
    "one-gpu": Variant(
        replace(PAPER, net="one-gpu"),
        59_798_312,
        "conv1 to conv4 halved, the rest whole (§3.2): network 145-half of the published source, "
        "in the paper's form",
    ),
    "separate-towers": Variant(
        replace(PAPER, net="separate-towers"),
        60_522_856,
        "towers that exchange nothing before fc6: network 150 of the published source, in the "
        "paper's form",
    ),
    "no-lrn": Variant(replace(PAPER, lrn=False), 60_965_224, "without normalisation (§3.3)"),
    "no-overlap": Variant(
        replace(PAPER, overlapping=False), 60_965_224, "pooling with z = 2, s = 2 (§3.4)"
    ),
    "original-147": Variant(
        replace(ORIGINAL, net="original-147", overlapping=False),
        60_965_224,
        "no-overlap as run: network 147, whose last windows hang over the edge, and which pads "
        "conv2 by 1 and conv5 by 0",
    ),
    "original-148": Variant(
        replace(ORIGINAL, lrn=False),
        60_965_224,
        "no-lrn as run: network 148, which differs from it in σ of 0.03 in conv3 to conv5",
    ),
    "original-150": Variant(
        replace(ORIGINAL, net="original-150"),
        60_522_856,
        "separate-towers as run: network 150, which differs from it as original from paper",
    ),
    "original-167": Variant(
        replace(ORIGINAL, net="original-167"),
        60_965_224,
        "network 167, original without the normalisation across maps after conv2",
    ),
    "tanh": Variant(replace(PAPER, activation="tanh"), 60_965_224, "tanh for ReLU (§3.1)"),
    "no-dropout": Variant(replace(PAPER, dropout=0.0), 60_965_224, "without dropout (§4.2)"),
    "no-conv1": Variant(
        replace(PAPER, without="conv1"),
        60_642_280,
        "without conv1 (§7): conv2 sees the image, with conv1's stride of 4",
    ),
    "no-conv2": Variant(
        replace(PAPER, without="conv2"),
        60_104_808,
        "without conv2 (§7): conv3 sees conv1's maps, pooled twice",
    ),
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
    "cifar-18pct": Variant(
        replace(CIFAR, net="cifar-18pct", lrn=True),
        89_578,
        "three layers for CIFAR-10 with normalisation within maps, published as 18 %",
    ),
    "cifar-80sec": Variant(
        replace(CIFAR, net="cifar-80sec"),
        145_578,
        "three layers for CIFAR-10 without normalisation, published as 26 % in 80 seconds",
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
    *("lrn_alpha_factors", "test_crops"),
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


def original_147_layers(paper: list[Layer]) -> list[Layer]:
    """Network 147 of the 2012 source: pooling with z = 2, s = 2, as it was run.

    Its last windows may hang over the edge, conv2 is padded by 1 and conv5 by 0, so that the maps'
    sides are 55, 28, 26, 13, 13, 13, 11 and 6.
    """
    pads = {"conv2": 1, "conv5": 0}
    layers = [
        replace(one, ceil=True) if isinstance(one, Pool) else one for one in original_layers(paper)
    ]
    return [
        replace(one, pad=pads[one.name]) if isinstance(one, Conv) and one.name in pads else one
        for one in layers
    ]


def original_150_layers(paper: list[Layer]) -> list[Layer]:
    """Network 150 of the 2012 source as it was run: network 145 with separate towers."""
    return separate_towers_layers(original_layers(paper))


def original_167_layers(paper: list[Layer]) -> list[Layer]:
    """Network 167 of the 2012 source: without the normalisation across maps after conv2.

    It reached 40.49 and 18.12 % on ILSVRC-2012, where network 145 reached 40.66 and 18.21 %, and
    its learning rate fell exponentially (`--schedule exponential`).
    """
    return [layer for layer in original_layers(paper) if layer.name != "lrn2"]


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
    """Remove a convolutional layer, its nonlinearity and its normalisation.

    If that layer saw both GPUs' maps, or the image, the next one does in its place: the comparison
    is about depth, not about whether the towers exchange their maps. Every pooling layer stays, so
    that the layers after it have maps of the same size.
    """
    if name == "conv1":
        return remove_conv1(layers)
    if name == "conv2":
        return [one for one in layers if one.name not in ("conv2", "relu2", "lrn2", "mapnorm2")]
    removed = next(layer for layer in layers if layer.name == name)
    assert isinstance(removed, Conv)
    rest = [layer for layer in layers if layer.name not in (name, f"relu{name[-1]}")]
    follower = layers[layers.index(removed) + 2]
    if isinstance(follower, Conv) and not removed.grouped:
        rest[rest.index(follower)] = replace(follower, grouped=False)
    return rest


def remove_conv1(layers: list[Layer]) -> list[Layer]:
    """Remove conv1: conv2's kernels of 5 × 5 see the image's three colours instead of its maps.

    With conv1's stride of 4 their maps have 56 × 56 positions, which pool1 and pool2, both after
    conv2, make 27 × 27 and 13 × 13, as in the whole network.
    """
    gone = ("border", "conv1", "relu1", "lrn1", "pool1")
    first, pool1 = (next(one for one in layers if one.name == n) for n in ("conv1", "pool1"))
    assert isinstance(first, Conv)
    rest = [
        replace(one, stride=first.stride, grouped=False)
        if isinstance(one, Conv) and one.name == "conv2"
        else one
        for one in layers
        if one.name not in gone
    ]
    pool2 = next(number for number, one in enumerate(rest) if one.name == "pool2")
    return [*rest[:pool2], pool1, *rest[pool2:]]


PAPERS_KIN: Mapping[str, Callable[[list[Layer]], list[Layer]]] = {
    "original": original_layers,
    "original-147": original_147_layers,
    "original-150": original_150_layers,
    "original-167": original_167_layers,
    "one-gpu": one_gpu_layers,
    "separate-towers": separate_towers_layers,
}
"""What makes the layers of each network near the paper's out of the paper's, by `net`."""

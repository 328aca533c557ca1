"""Every network of the family by name, and what each costs: parameters, multiplications."""

from dataclasses import dataclass, replace

import torch
from torch import nn

from model.alexnet import AlexNetConfig, layers
from model.layers import Conv, LocallyConnected, Shape

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


@dataclass(frozen=True)
class Variant:
    """A network's configuration, its number of parameters, and what it is."""

    config: AlexNetConfig
    parameters: int
    what: str


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


def multiplications(config: AlexNetConfig) -> int:
    """Multiply-adds of one forward pass of one image, in the layers that have weights.

    A backward pass takes as many again for the weights and, but for conv1, for the activations.
    """
    shape, total = Shape(3, config.crop), 0
    with torch.device("meta"):
        for layer in layers(config):
            module, shape = layer.build(shape, config.towers)
            if isinstance(module, nn.Conv2d | nn.Linear | LocallyConnected):
                # A convolution's weights work at every place; the others' at one each.
                places = shape.side**2 if isinstance(layer, Conv) else 1
                total += places * module.weight.numel()
    return total

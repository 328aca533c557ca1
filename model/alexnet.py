"""AlexNet, the network of *ImageNet Classification with Deep Convolutional Neural Networks* (2012).

The paper splits the network over two GPUs. Here both halves, the towers, live in one process:
a layer that sees only its own GPU is a grouped convolution with two groups, so that no kernel
and no normalisation reaches across. The first half of every layer's maps is GPU 1's.
`towers.py` gives each half a process of its own; `variants.py` names the other networks of the
family.

Section numbers are the paper's.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn

from model import architectures
from model.layers import (
    Activation,
    Border,
    Conv,
    Dense,
    Drop,
    Dropout,
    Flatten,
    Layer,
    Local,
    LocallyConnected,
    Lrn,
    MapNorm,
    Pool,
    Shape,
)
from model.lrn import LocalResponseNorm

TOWERS = 2
FEATURES = 4096
Net = Literal["paper", "original", "one-gpu", "caffe-alexnet", "caffenet", "torchvision", "cifar"]


class ConfigError(ValueError):
    """A network configuration that cannot be built."""


@dataclass(frozen=True, kw_only=True)
class AlexNetConfig:
    """What the network is made of. The defaults are the paper's."""

    classes: int = 1000
    """Outputs of fc8, one a class (§3.5)."""
    net: Net = "paper"
    """Which list of layers: the paper's (§3.5), the same as it was run in 2012, that of one GPU
    (§3.2), Caffe's two, torchvision's, or the four-layer nets for CIFAR-10 (§3.1, §3.3)."""
    activation: Literal["relu", "tanh"] = "relu"
    """The neurons' nonlinearity (§3.1)."""
    lrn: bool = True
    """Whether responses are normalised (§3.3)."""
    overlapping: bool = True
    """Whether pooling windows overlap: z = 3, s = 2; else z = 2, s = 2 (§3.4)."""
    without: Literal["", "conv3", "conv4", "conv5"] = ""
    """A middle layer that is left out (§7)."""
    conv6: bool = False
    """Whether a sixth convolutional layer follows the last pooling layer (§6)."""
    side: int = 256
    """Pixels of the square that a photograph is brought to (§2)."""
    crop: int = 224
    """Pixels of the square that the network sees (§4.1)."""
    lrn_k: float = 2.0
    """k of the response normalisation (§3.3)."""
    lrn_n: int = 5
    """n: how many adjacent maps it sums over (§3.3)."""
    lrn_alpha: float = 1e-4
    """α: multiplies the plain sum of squares (§3.3)."""
    lrn_beta: float = 0.75
    """β: its exponent (§3.3)."""
    dropout: float = 0.5
    """Probability that a neuron of fc6 or fc7 is set to zero in training (§4.2)."""
    init: Literal["paper", "he"] = "paper"
    """Initial weights: the paper's N(0, 0.01²) with its biases of one (§5), or what the authors
    of another net say of theirs; or He's for ReLU."""
    input_scale: float = 1.0
    """The mean-free pixel values, in grey levels of 0–255, are divided by this (§2: one)."""

    def __post_init__(self) -> None:
        checks = {
            "classes": self.classes >= 1,
            "net": self.net in LISTS,
            "activation": self.activation in ("relu", "tanh"),
            "without": self.without in ("", "conv3", "conv4", "conv5"),
            "side": self.side >= self.crop,
            "crop": self.crop >= (8 if self.net == "cifar" else 67),  # less leaves pool5 nothing
            "lrn_n": self.lrn_n >= 1 and self.lrn_n % 2 == 1,
            "lrn_k": self.lrn_k > 0,
            "lrn_alpha": self.lrn_alpha >= 0,
            "dropout": 0 <= self.dropout < 1,
            "init": self.init in ("paper", "he"),
            "input_scale": self.input_scale > 0,
        }
        for name, good in checks.items():
            if not good:
                raise ConfigError(f"AlexNetConfig.{name} cannot be {getattr(self, name)!r}")
        if (self.without or self.conv6) and self.net not in ("paper", "original", "one-gpu"):
            raise ConfigError(f"without and conv6 are of the paper's nets, not of {self.net}")

    @property
    def towers(self) -> int:
        """How many towers the network has: two, or one in nets of one GPU."""
        return 1 if self.net in ("one-gpu", "torchvision", "cifar") else TOWERS


class Output(NamedTuple):
    """What one forward pass gives.

    logits: float32 [N, classes], fc8 before the softmax.
    fc7:    float32 [N, 4096], the last hidden layer after its ReLU and before dropout: the
            retrieval feature of §6.1. Without the test-time factor of one half, which would
            scale every distance alike. (2048 or 1152 numbers in the nets for CIFAR-10.)
    """

    logits: Tensor
    fc7: Tensor


def paper(c: AlexNetConfig) -> list[Layer]:
    """Five convolutional and three fully connected layers (§3.5, Figure 2)."""
    z = 3 if c.overlapping else 2
    # 55 windows of 11 with stride 4 need 227 pixels. The paper is silent on the border; the
    # 2012 source leaves three zero pixels at the bottom and right, none at the top and left.
    return [
        Border("border", 3),
        Conv("conv1", 96, kernel=11, stride=4),
        Activation("relu1", c.activation),
        Lrn("lrn1", c.lrn_k, c.lrn_n, c.lrn_alpha, c.lrn_beta),
        Pool("pool1", z),
        Conv("conv2", 256, kernel=5, pad=2, sees="own", bias=1),
        Activation("relu2", c.activation),
        Lrn("lrn2", c.lrn_k, c.lrn_n, c.lrn_alpha, c.lrn_beta),
        Pool("pool2", z),
        Conv("conv3", 384, kernel=3, pad=1, sees="both"),
        Activation("relu3", c.activation),
        Conv("conv4", 384, kernel=3, pad=1, sees="own", bias=1),
        Activation("relu4", c.activation),
        Conv("conv5", 256, kernel=3, pad=1, sees="own", bias=1),
        Activation("relu5", c.activation),
        Pool("pool5", z),
        *(sixth(c) if c.conv6 else []),
        Flatten("flatten"),
        Dense("fc6", 4096, bias=1),
        Activation("relu6", c.activation),
        Drop("drop6", c.dropout),
        Dense("fc7", FEATURES, bias=1),
        Activation("relu7", c.activation),
        Drop("drop7", c.dropout),
        Dense("fc8", c.classes),
    ]


def sixth(c: AlexNetConfig) -> list[Layer]:
    """The sixth convolutional layer of §6; its size and bias are the 2012 source's."""
    return [
        Conv("conv6", 256, kernel=3, pad=1, sees="both", bias=1),
        Activation("relu_conv6", c.activation),
    ]


def original(c: AlexNetConfig) -> list[Layer]:
    """The paper's network as it was run in 2012: network 145 of the published source."""
    middle = {"conv3", "conv4", "conv5", "conv6"}
    first = ["border", "conv1", "lrn1", "pool1", "relu1"]
    named = {layer.name: layer for layer in paper(c)}
    rest = [layer for name, layer in named.items() if name not in first]
    after = rest.index(named["lrn2"]) + 1
    rest.insert(after, MapNorm("mapnorm2", k=1, n=5, alpha=0.001 / 25, beta=0.75))
    relu5, pool5 = (rest.index(named[name]) for name in ("relu5", "pool5"))
    rest[relu5], rest[pool5] = rest[pool5], rest[relu5]
    layers = [*(named[name] for name in first), *rest]
    return [
        architectures.with_sigma(layer, 0.03) if layer.name in middle else layer for layer in layers
    ]


def one_gpu(c: AlexNetConfig) -> list[Layer]:
    """The net of one GPU that §3.2 compares with: conv1–conv4 halved, the rest whole."""
    return [
        architectures.with_maps(layer, layer.maps // 2)
        if isinstance(layer, Conv) and layer.name in ("conv1", "conv2", "conv3", "conv4")
        else layer
        for layer in paper(c)
    ]


LISTS = {
    "paper": paper,
    "original": original,
    "one-gpu": one_gpu,
    "caffe-alexnet": architectures.caffe_alexnet,
    "caffenet": architectures.caffenet,
    "torchvision": architectures.torchvision,
    "cifar": architectures.cifar,
}


def layers(c: AlexNetConfig) -> list[Layer]:
    """The network's layers, from the pixels to fc8."""
    found = LISTS[c.net](c)
    if not c.lrn:
        found = [layer for layer in found if not isinstance(layer, Lrn | MapNorm)]
    return leave_out(c.without, found) if c.without else found


def leave_out(name: str, whole: list[Layer]) -> list[Layer]:
    """The list without a convolutional layer and its nonlinearity.

    Where the layer left out was the one that saw both GPUs, the next one does in its place: what
    is compared is the depth, not whether the towers meet.
    """
    gone = next(layer for layer in whole if layer.name == name)
    assert isinstance(gone, Conv)
    kept = [layer for layer in whole if layer.name not in (name, f"relu{name[-1]}")]
    follower = whole[whole.index(gone) + 2]
    if gone.sees == "both" and isinstance(follower, Conv):
        kept[kept.index(follower)] = architectures.with_sight(follower, "both")
    return kept


class AlexNet(nn.Module):
    """The network of a configuration, its modules under the names of their layers."""

    conv1: nn.Conv2d

    def __init__(self, config: AlexNetConfig | None = None) -> None:
        super().__init__()
        self.config = config or AlexNetConfig()
        self.layers = layers(self.config)
        self.assemble(self.layers, self.config.towers)
        if self.conv1.weight.device.type != "meta":
            self.initialise()

    def assemble(self, found: list[Layer], towers: int) -> None:
        """Build the modules one after another, each for the shape that the last one gives."""
        shape = Shape(3, self.config.crop)
        for layer in found:
            module, shape = layer.build(shape, towers)
            self.add_module(layer.name, module)
        hidden = [layer.name for layer in found if isinstance(layer, Activation | Flatten)]
        self.last_hidden = hidden[-1]

    def forward(self, x: Tensor, keys: Tensor | None = None) -> Output:
        """Run float32 [N, 3, 224, 224], pixels minus the mean image, through both towers.

        keys, int64 [N], addresses each image's dropout (model/counter_rng.py); without them
        torch's own generator draws.
        """
        return self.run(x, self.named_children(), keys)

    def run(
        self, x: Tensor, modules: Iterable[tuple[str, nn.Module]], keys: Tensor | None = None
    ) -> Output:
        """Run what comes out before these modules, the network's last, through them."""
        fc7 = x
        for name, module in modules:
            x = module(x, keys) if isinstance(module, Dropout) else module(x)
            if name == self.last_hidden:
                fc7 = x
        return Output(x, fc7)

    @torch.no_grad()
    def initialise(self) -> None:
        """Draw the initial weights from torch's global generator (§5)."""
        for layer in self.layers:
            if isinstance(layer, Conv | Dense | Local):
                self.draw(layer, last=layer is self.layers[-1])

    def draw(self, layer: Conv | Dense | Local, *, last: bool) -> None:
        """Draw one layer's weights and set its biases."""
        module = self.get_submodule(layer.name)
        assert isinstance(module, nn.Conv2d | nn.Linear | LocallyConnected)
        assert module.bias is not None
        if self.config.init == "he" and not last:
            # DEVIATION: the small-data preset starts from He's weights and zero biases because
            # from N(0, 0.01²) the loss stays at ln(classes) for hundreds of steps.
            own = module.weight
            kernels = own.flatten(0, 1) if isinstance(module, LocallyConnected) else own
            nn.init.kaiming_normal_(kernels, nonlinearity="relu")
        elif layer.sigma is not None:
            module.weight.normal_(0, layer.sigma)
        if layer.sigma is not None or self.config.init == "he":
            module.bias.fill_(layer.bias if self.config.init == "paper" else 0.0)

    def materialise(self) -> None:
        """Compute the constants, after construction on the meta device."""
        for name, module in self.named_children():
            if isinstance(module, LocalResponseNorm):
                self.add_module(name, module.materialise())

"""AlexNet, the network of *ImageNet Classification with Deep Convolutional Neural Networks* (2012).

The paper splits the network over two GPUs. Here both halves, the towers, live in one process:
a layer that sees only its own GPU is a grouped convolution with two groups, so that no kernel
and no normalisation reaches across. The first half of every layer's maps is GPU 1's.

Section numbers are the paper's.
"""

from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from model.lrn import LocalResponseNorm

TOWERS = 2
INPUT = 224
FEATURES = 4096
CONVS = ("conv1", "conv2", "conv3", "conv4", "conv5")
LAYERS = (*CONVS, "fc6", "fc7", "fc8")


class ConfigError(ValueError):
    """A network configuration that cannot be built."""


@dataclass(frozen=True, kw_only=True)
class AlexNetConfig:
    """What the network is made of. The defaults are the paper's."""

    classes: int = 1000
    """Outputs of fc8, one a class (§3.5)."""
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
    """Initial weights: the paper's N(0, 0.01²) with its biases of one (§5), or He's for ReLU."""
    input_scale: float = 1.0
    """The mean-free pixel values, in grey levels of 0–255, are divided by this (§2: one)."""

    def __post_init__(self) -> None:
        checks = {
            "classes": self.classes >= 1,
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


class Output(NamedTuple):
    """What one forward pass gives.

    logits: float32 [N, classes], fc8 before the softmax.
    fc7:    float32 [N, 4096], the last hidden layer after its ReLU and before dropout: the
            retrieval feature of §6.1. Without the test-time factor of one half, which would
            scale every distance alike.
    """

    logits: Tensor
    fc7: Tensor


class AlexNet(nn.Module):
    """Five convolutional and three fully connected layers (§3.5, Figure 2)."""

    def __init__(self, config: AlexNetConfig | None = None) -> None:
        super().__init__()
        self.config = config = config or AlexNetConfig()
        self.conv1 = nn.Conv2d(3, 96, 11, stride=4)
        self.conv2 = nn.Conv2d(96, 256, 5, padding=2, groups=TOWERS)
        self.conv3 = nn.Conv2d(256, 384, 3, padding=1)
        self.conv4 = nn.Conv2d(384, 384, 3, padding=1, groups=TOWERS)
        self.conv5 = nn.Conv2d(384, 256, 3, padding=1, groups=TOWERS)
        self.fc6 = nn.Linear(256 * 6 * 6, 4096)
        self.fc7 = nn.Linear(4096, FEATURES)
        self.fc8 = nn.Linear(FEATURES, config.classes)
        lrn = (config.lrn_k, config.lrn_n, config.lrn_alpha, config.lrn_beta)
        self.lrn1 = LocalResponseNorm(96, TOWERS, *lrn)
        self.lrn2 = LocalResponseNorm(256, TOWERS, *lrn)
        self.pool = nn.MaxPool2d(3, stride=2)
        self.dropout = Dropout(config.dropout)
        self.initialise()

    def forward(self, x: Tensor) -> Output:
        """Run float32 [N, 3, 224, 224], pixels minus the mean image, through both towers."""
        x = self.convolve(x)
        x = self.dropout(F.relu(self.fc6(x.flatten(1))))
        fc7 = F.relu(self.fc7(x))
        return Output(self.fc8(self.dropout(fc7)), fc7)

    def convolve(self, x: Tensor) -> Tensor:
        """The five convolutional layers: float32 [N, 3, 224, 224] → [N, 256, 6, 6]."""
        # 55 windows of 11 with stride 4 need 227 pixels. The paper is silent on the border; the
        # 2012 source leaves three zero pixels at the bottom and right, none at the top and left.
        x = F.pad(x, (0, 3, 0, 3))
        x = self.pool(self.lrn1(F.relu(self.conv1(x), inplace=True)))
        x = self.pool(self.lrn2(F.relu(self.conv2(x), inplace=True)))
        x = F.relu(self.conv3(x), inplace=True)
        x = F.relu(self.conv4(x), inplace=True)
        pool5: Tensor = self.pool(F.relu(self.conv5(x), inplace=True))
        return pool5

    @torch.no_grad()
    def initialise(self) -> None:
        """Draw the initial weights from torch's global generator (§5)."""
        for name in LAYERS:
            layer = self.get_submodule(name)
            assert isinstance(layer, nn.Conv2d | nn.Linear)
            assert layer.bias is not None
            if self.config.init == "paper" or name == "fc8":
                layer.weight.normal_(0, 0.01)
            else:
                # DEVIATION: the small-data preset starts from He's weights and zero biases because
                # from N(0, 0.01²) the loss stays at ln(classes) for hundreds of steps.
                nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
            ones = self.config.init == "paper" and name in PAPER_BIAS_ONE
            layer.bias.fill_(1.0 if ones else 0.0)


PAPER_BIAS_ONE = ("conv2", "conv4", "conv5", "fc6", "fc7")


class Dropout(nn.Module):
    """The paper's dropout (§4.2): zero a neuron with probability p; at test, multiply by 1 − p.

    torch's own divides by 1 − p in training instead, which is another network for the same
    weights, learning rate and initial values.
    """

    def __init__(self, p: float) -> None:
        super().__init__()
        self.p = p

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            return x * (1 - self.p)
        return x * torch.empty_like(x).bernoulli_(1 - self.p)

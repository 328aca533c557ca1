"""AlexNet, the network of *ImageNet Classification with Deep Convolutional Neural Networks* (2012).

The paper splits the network over two GPUs. Here both halves, the towers, live in one process:
a layer that sees only its own GPU's maps is a grouped convolution with two groups, so neither its
kernels nor the normalisation reach across. The first half of every layer's maps is GPU 1's.
`towers.py` gives each half a process of its own; `architectures.py` has the other networks of the
family.

Section numbers are the paper's.
"""

import math
from collections.abc import Iterable
from dataclasses import replace
from statistics import NormalDist
from typing import NamedTuple

import torch
from torch import Tensor, nn

from model.network.config import PIXEL_DEVIATION, AlexNetConfig, ConfigError
from model.network.layers import (
    Activation,
    Conv,
    Dense,
    Flatten,
    Layer,
    Local,
    Lrn,
    MapNorm,
    Pool,
    Shape,
)
from model.network.modules import Dropout, LocallyConnected, build_module
from model.network.paper_layers import list_layers


def match_lrn_to_he_start(config: AlexNetConfig) -> AlexNetConfig:
    """Scale α so that α Σ a² starts out as large with He's weights as with the paper's.

    He's weights, of deviation √(2 / fan-in), on inputs of unit deviation make a² in the first
    layers smaller than the paper's N(0, 0.01²) and biases of one do on raw pixels: without this,
    normalisation would be a constant factor. The mean of a² is carried through the layers for
    both starts. Networks without normalisation, with tanh, whose output is bounded, or with
    another author's initial weights are returned as they are.
    """
    # DEVIATION: the small-data presets multiply α of the two LRN layers, by 65 and 7.4, because
    # their initial weights make Σ a² that much smaller than the paper's do.
    with torch.device("meta"):
        network = AlexNet(replace(config, lrn_alpha_factors=()))
    factors = []
    paper, he, bias = PIXEL_DEVIATION**2, 1.0, 0.0
    for layer in network.layers:
        if isinstance(layer, Conv):
            if layer.sigma is None or config.activation != "relu":
                return config
            weight = network.get_submodule(layer.name).weight
            assert isinstance(weight, Tensor)
            # Variances, until the ReLU.
            paper, he, bias = layer.sigma**2 * weight[0].numel() * paper, 2 * he, layer.bias
        elif isinstance(layer, Activation):
            paper, he, bias = mean_square_of_relu(paper, bias), mean_square_of_relu(he, 0.0), 0.0
        elif isinstance(layer, Lrn | MapNorm):
            factors.append((paper + bias**2) / he)
            paper, he = (a / layer.k ** (2 * layer.beta) for a in (paper, he))
        elif isinstance(layer, Pool) and layer.kind == "max":
            # The largest of 3 × 3 correlated responses; measured on photographs.
            paper, he = 2 * paper, 2 * he
    return replace(config, lrn_alpha_factors=tuple(factors))


def mean_square_of_relu(variance: float, mean: float) -> float:
    """Return the mean of max(0, z)² for a normally distributed z."""
    normal, deviation = NormalDist(), math.sqrt(variance)
    positive = normal.cdf(mean / deviation)
    return (variance + mean**2) * positive + mean * deviation * normal.pdf(mean / deviation)


class Output(NamedTuple):
    """The result of one forward pass.

    logits: float32 [N, classes], fc8 before the softmax.
    fc7:    float32 [N, 4096], the last hidden layer after its ReLU and before dropout: the
            retrieval feature of §6.1. It lacks the test-time factor of one half, which would
            scale every distance alike. (2048 or 1152 numbers in the nets for CIFAR-10.)
    """

    logits: Tensor
    fc7: Tensor


class AlexNet(nn.Module):
    """The network that a configuration describes; its modules have their layers' names.

    Draws initial weights from torch's global generator, except on the meta device.
    """

    def __init__(self, config: AlexNetConfig | None = None) -> None:
        super().__init__()
        self.config = config or AlexNetConfig()
        self.layers = list_layers(self.config)
        self.build_modules(self.layers, self.config.towers)
        if self.first_conv.weight.device.type != "meta":
            self.initialise()

    @property
    def first_conv(self) -> nn.Conv2d:
        """The convolutional layer that sees the image: conv1, or conv2 in a network without it."""
        first = next(layer for layer in self.layers if isinstance(layer, Conv))
        module = self.get_submodule(first.name)
        assert isinstance(module, nn.Conv2d)
        return module

    def build_modules(self, layers: list[Layer], towers: int) -> None:
        """Add the layers' modules, each built for the output shape of the one before.

        Raises ConfigError for a layer whose windows are larger than its input.
        """
        shape = Shape(3, self.config.crop)
        for layer in layers:
            module, shape = build_module(layer, shape, towers), layer.output_shape(shape)
            if shape.side < 1:
                raise ConfigError(f"{layer.name} has no room for a single window")
            self.add_module(layer.name, module)
        hidden = [layer.name for layer in layers if isinstance(layer, Activation | Flatten)]
        self.last_hidden = hidden[-1]

    def forward(self, x: Tensor, keys: Tensor | None = None) -> Output:
        """Run float32 [N, 3, 224, 224], pixels minus the mean image, through both towers.

        keys, int64 [N], determine each image's dropout (model/network/counter_rng.py); without them
        torch's own generator draws it.
        """
        return self.run_modules(x, self.named_children(), keys)

    def run_modules(
        self, x: Tensor, modules: Iterable[tuple[str, nn.Module]], keys: Tensor | None = None
    ) -> Output:
        """Run the given last modules of the network on x, the output of the modules before them."""
        fc7 = x
        for name, module in modules:
            x = module(x, keys) if isinstance(module, Dropout) else module(x)
            if name == self.last_hidden:
                fc7 = x
        return Output(x, fc7)

    @torch.no_grad()
    def initialise(self) -> None:
        """Draw the initial weights from torch's global generator and set the biases (§5)."""
        learned = [layer for layer in self.layers if isinstance(layer, Conv | Dense | Local)]
        for layer in learned:
            self.initialise_layer(layer, first=layer is learned[0], last=layer is self.layers[-1])

    def initialise_layer(self, layer: Conv | Dense | Local, *, first: bool, last: bool) -> None:
        """Draw one layer's weights and set its biases."""
        module = self.get_submodule(layer.name)
        assert isinstance(module, nn.Conv2d | nn.Linear | LocallyConnected)
        assert module.bias is not None
        if self.config.init == "he" and not last:
            # DEVIATION: the small-data preset starts from He's weights and zero biases because
            # from N(0, 0.01²) the loss stays at ln(classes) for hundreds of steps.
            weight = module.weight
            kernels = weight.flatten(0, 1) if isinstance(module, LocallyConnected) else weight
            nn.init.kaiming_normal_(kernels, nonlinearity="relu")
            if first:
                # He's rule is for inputs of unit deviation.
                weight *= self.config.input_scale / PIXEL_DEVIATION
        elif layer.sigma is not None:
            module.weight.normal_(0, layer.sigma)
        if layer.sigma is not None or self.config.init == "he":
            # Ones are there "to provide the ReLUs with positive inputs" (§5); tanh they saturate.
            as_listed = self.config.init == "paper" and self.config.activation == "relu"
            module.bias.fill_(layer.bias if as_listed else 0.0)

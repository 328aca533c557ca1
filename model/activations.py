"""What a network computes inside: the activations of every layer, in each tower (Figure 2)."""

from dataclasses import dataclass

import numpy as np

from model.config import AlexNetConfig
from model.layers import Activation, Conv, Dense, Local
from model.paper_layers import list_layers
from model.predict import Predictor
from model.receptive_field import WeightedLayer, list_weighted_layers
from model.runtime.protocol import Floats, Pixels


@dataclass(frozen=True, kw_only=True)
class LayerActivations:
    """What a layer computes, in each tower.

    towers: float32 [maps, side, side] each, or [neurons], after the activation and before
            normalisation and pooling; for the last layer one array, the labels' probabilities.
    """

    layer: WeightedLayer
    towers: tuple[Floats, ...]

    @property
    def name(self) -> str:
        """The name of the layer."""
        return self.layer.name

    @property
    def largest(self) -> float:
        """The largest absolute value in any tower."""
        return max(float(abs(tower).max()) for tower in self.towers)


@dataclass(frozen=True, kw_only=True)
class Activations:
    """What a network computes for the centre crop of one image.

    conv1:  float32 [96, 55, 55], its responses before the activation.
    layers: those with weights, from conv1 to fc8.
    """

    conv1: Floats
    layers: tuple[LayerActivations, ...]

    @property
    def probabilities(self) -> Floats:
        """The softmax of this one crop: float32 [classes]."""
        return self.layers[-1].towers[0]


def trace_activations(predictor: Predictor, square: Pixels) -> Activations:
    """Run the centre crop of uint8 [256, 256, 3] through the network, recording all layers."""
    outputs = predictor.runtime.run_layers(square)
    layers, kinds = list_weighted_layers(predictor.config), list_nonlinearities(predictor.config)
    return Activations(
        conv1=outputs[0],
        layers=tuple(
            LayerActivations(layer=layer, towers=apply_activation(layer, output, kind))
            for layer, output, kind in zip(layers, outputs, kinds, strict=True)
        ),
    )


def list_nonlinearities(config: AlexNetConfig) -> list[str]:
    """Return the nonlinearity of each layer with weights; empty where it has none."""
    found: list[str] = []
    for layer in list_layers(config):
        if isinstance(layer, Conv | Local | Dense):
            found.append("")
        elif isinstance(layer, Activation):
            found[-1] = layer.kind
    return found


def apply_activation(layer: WeightedLayer, output: Floats, activation: str) -> tuple[Floats, ...]:
    """Apply a layer's activation to its output, [maps, …], and split it between the towers."""
    if layer.kind == "labels":
        exponentials = np.exp(output - output.max())
        return (exponentials / exponentials.sum(),)
    if activation == "relu":
        output = np.maximum(output, 0)
    elif activation == "tanh":
        output = np.tanh(output)
    return tuple(np.split(output, layer.towers))

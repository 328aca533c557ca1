"""What a network computes inside: the activations of every layer, in each tower (Figure 2)."""

from dataclasses import dataclass

import numpy as np

from model.network.config import AlexNetConfig
from model.network.layers import Activation, Conv, Dense, Local
from model.network.paper_layers import list_layers
from model.network.switches import Switches
from model.predict import Predictor
from model.runtime.protocol import Floats, Pixels
from model.visualization.receptive_field import WeightedLayer, list_weighted_layers


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


@dataclass(frozen=True, kw_only=True)
class SwitchedActivations:
    """What a changed network computes for one image.

    activations: of the first sample. probabilities: float32 [samples, classes], the softmax of
    each.
    """

    activations: Activations
    probabilities: Floats


def trace_switched_activations(
    predictor: Predictor, square: Pixels, switches: Switches
) -> SwitchedActivations:
    """As `trace_activations`, with the network changed and for the crop that the switches name.

    Raises RuntimeUnavailableError if this network cannot be changed.
    """
    config = predictor.config
    outputs = predictor.runtime.run_switched(square, config, switches)
    kinds = [
        kind if not kind or switches.neurons == "as trained" else switches.neurons
        for kind in list_nonlinearities(config)
    ]
    layers = tuple(
        LayerActivations(layer=layer, towers=silence_tower(switches, layer, towers))
        for layer, output, kind in zip(list_weighted_layers(config), outputs, kinds, strict=True)
        for towers in [apply_activation(layer, output[0], kind)]
    )
    return SwitchedActivations(
        activations=Activations(conv1=outputs[0][0], layers=layers),
        probabilities=np.stack([apply_softmax(logits) for logits in outputs[-1]]),
    )


def silence_tower(
    switches: Switches, layer: WeightedLayer, towers: tuple[Floats, ...]
) -> tuple[Floats, ...]:
    """Return a layer's activations with those of the silent tower zero; not those of the labels."""
    if layer.kind == "labels":
        return towers
    return tuple(
        np.zeros_like(values) if number == switches.silent_tower and len(towers) > 1 else values
        for number, values in enumerate(towers, 1)
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
        return (apply_softmax(output),)
    if activation == "relu":
        output = np.maximum(output, 0)
    elif activation == "tanh":
        output = np.tanh(output)
    return tuple(np.split(output, layer.towers))


def apply_softmax(logits: Floats) -> Floats:
    """Return the probabilities of one image's logits: float32 [classes]."""
    exponentials = np.exp(logits - logits.max())
    probabilities: Floats = exponentials / exponentials.sum()
    return probabilities

"""The paper's networks with fewer kernels and neurons, for tests in which their number is not it.

A pass takes a hundredth of the paper's time, and weights a two-hundredth of its memory.
"""

from dataclasses import replace

from model.network.config import FEATURES, AlexNetConfig
from model.network.layers import Conv, Dense, Layer
from model.network.paper_layers import list_layers

MAPS, NEURONS = 8, 16
"""What the numbers of maps and of neurons are divided by: conv1 has 12 kernels, fc6 256 neurons."""


def narrow_network(config: AlexNetConfig, *, features: int = FEATURES // NEURONS) -> AlexNetConfig:
    """Return the same layers by the same names, narrower; the last one keeps its classes.

    features: the neurons of fc7; the index needs 4096 of them.
    """
    layers = tuple(narrow_layer(layer, features) for layer in list_layers(config))
    return replace(
        config,
        net="defined",
        layers=layers,
        # Defined networks have these in their layers.
        activation="relu",
        lrn=True,
        overlapping=True,
        without="",
        conv6=False,
        bottleneck=0,
    )


def narrow_layer(layer: Layer, features: int) -> Layer:
    """Return a layer with a fraction of its maps or neurons."""
    if isinstance(layer, Conv):
        return replace(layer, maps=layer.maps // MAPS)
    if isinstance(layer, Dense):
        neurons = features if layer.name == "fc7" else layer.neurons // NEURONS
        return replace(layer, neurons=max(neurons, 1))
    return layer

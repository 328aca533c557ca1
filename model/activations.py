"""What each layer of a trained network computes of one image, a tower at a time (Figure 2)."""

from dataclasses import dataclass

import torch
from torch import Tensor

from model.alexnet import AlexNet
from model.layers import Conv, Dense, Local
from model.predict import Floats, Pixels, Predictor, to_numpy
from model.preprocess import centre_crop
from model.receptive_field import Stage, stages


@dataclass(frozen=True, kw_only=True)
class Maps:
    """What a stage computes, in each tower.

    towers: float32 [maps, side, side] each, or [neurons], after the activation and before
    normalisation and pooling; of the last stage the probabilities of the labels, one array.
    """

    stage: Stage
    towers: tuple[Floats, ...]

    @property
    def name(self) -> str:
        """The name of the layer."""
        return self.stage.name

    @property
    def largest(self) -> float:
        """The value furthest from zero, in any tower."""
        return max(float(abs(tower).max()) for tower in self.towers)


@dataclass(frozen=True, kw_only=True)
class Activations:
    """What a network computes of the centre crop of one image.

    conv1: float32 [96, 55, 55], its response before the activation. stages: from conv1 to fc8.
    """

    conv1: Floats
    stages: tuple[Maps, ...]

    @property
    def probabilities(self) -> Floats:
        """The softmax of this one crop: float32 [classes]."""
        return self.stages[-1].towers[0]


@torch.inference_mode()
def activations(predictor: Predictor, square: Pixels) -> Activations:
    """Run the centre crop of uint8 [256, 256, 3] through the network, keeping what it computes."""
    config = predictor.network.config
    crop = centre_crop(predictor.prepare(square[None]), config.crop)
    outputs = weighted_outputs(predictor.network, crop)
    return Activations(
        conv1=to_numpy(outputs[0]),
        stages=tuple(
            Maps(stage=stage, towers=in_towers(stage, output, config.activation))
            for stage, output in zip(stages(config), outputs, strict=True)
        ),
    )


def weighted_outputs(network: AlexNet, crop: Tensor) -> list[Tensor]:
    """What each layer with weights gives for float32 [1, 3, 224, 224], before its activation."""
    x, kept = crop, []
    for layer, module in zip(network.layers, network.children(), strict=True):
        x = module(x)
        if isinstance(layer, Conv | Local | Dense):
            # A copy: the ReLU that follows works in place.
            kept.append(x[0].clone(memory_format=torch.contiguous_format))
    return kept


def in_towers(stage: Stage, output: Tensor, activation: str) -> tuple[Floats, ...]:
    """A layer's output, [maps, …], after its activation, each tower's apart."""
    if stage.kind == "labels":
        return (to_numpy(output.float().softmax(0)),)
    after = output.relu() if activation == "relu" else output.tanh()
    return tuple(to_numpy(part) for part in after.chunk(stage.towers))

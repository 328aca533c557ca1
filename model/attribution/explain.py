"""Which pixels and which tower a label's score comes from: Grad-CAM, guided backpropagation.

Everything is of the centre crop, and of the label's logit: a softmax would also say which pixels
speak for other labels.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from model.attribution.gradients import ForwardPass, compute_gradient, record_forward_pass
from model.image.preprocess import CENTRE_CROP, crop_offsets
from model.network.config import AlexNetConfig
from model.network.layers import Activation, Conv, Local
from model.network.paper_layers import list_layers
from model.predict import Predictor
from model.runtime.protocol import Floats, Pixels
from model.visualization.receptive_field import WeightedLayer, list_weighted_layers


@dataclass(frozen=True, kw_only=True)
class GradCam:
    """Grad-CAM (Selvaraju et al. 2017) on the last layer of maps: conv5.

    layer: that layer. towers: float32 [side, side] each, Σ α a over the maps of one tower, before
    the ReLU; α is the mean of the gradient over a map's positions.
    """

    layer: WeightedLayer
    towers: tuple[Floats, ...]

    @property
    def heat(self) -> Floats:
        """Grad-CAM over the maps of all towers: float32 [side, side], not negative."""
        total: Floats = np.maximum(np.sum(self.towers, axis=0), 0)
        return total


def trace_forward_pass(
    predictor: Predictor, square: Pixels, gains: Sequence[Floats] | None = None
) -> ForwardPass:
    """Run the centre crop of uint8 [256, 256, 3] and record every layer; gains: as of `Runtime`."""
    config, runtime = predictor.config, predictor.runtime
    return record_forward_pass(
        list_layers(config),
        prepare_centre_crop(square, runtime.read_mean(), config),
        runtime.run_layers(square, gains),
        runtime.read_weights(),
        gains,
        towers=config.towers,
    )


def prepare_centre_crop(square: Pixels, mean: Floats, config: AlexNetConfig) -> Floats:
    """Make the network's input of a square: uint8 [256, 256, 3] → float32 [3, 224, 224]."""
    scales = np.array(config.channel_scales or (1, 1, 1), np.float32) * config.input_scale
    centred = (square.transpose(2, 0, 1).astype(np.float32) - mean) / scales[:, None, None]
    crop: Floats = centred[(slice(None), *find_centre_crop(config))].astype(np.float32)
    return crop


def find_centre_crop(config: AlexNetConfig) -> tuple[slice, slice]:
    """Return the rows and columns of the centre crop in the square."""
    top, left = crop_offsets(config.side, config.crop)[CENTRE_CROP]
    return slice(top, top + config.crop), slice(left, left + config.crop)


def isolate_tower(config: AlexNetConfig, tower: int) -> list[Floats]:
    """Return gains that silence all towers but one, counted from 1.

    All units of a silenced tower, from conv1 to fc7, give zero: their outputs are multiplied by
    zero before the activation, whatever their inputs and biases. So where the towers meet, at
    conv3, fc6 and fc7, the other tower gets zeros from it, and fc8 reads the other's half of fc7
    and its own biases. The weights stay as both learned them together: it is not what a tower alone
    would have learned. Raises ValueError for a tower that the network does not have.
    """
    if not 1 <= tower <= config.towers:
        raise ValueError(f"there is no tower {tower} of {config.towers}")
    gains = []
    for layer in list_weighted_layers(config)[:-1]:
        gain = np.zeros((layer.towers, layer.maps), np.float32)
        gain[tower - 1] = 1
        gains.append(gain.reshape(-1))
    return gains


def compute_grad_cam(forward: ForwardPass, config: AlexNetConfig, label: int) -> GradCam:
    """Compute Grad-CAM of a label, by its index, on the last layer that has maps."""
    described = [layer for layer in list_weighted_layers(config) if layer.kind == "maps"][-1]
    stop = find_layer_after_maps(forward)
    maps, gradient = forward.inputs[stop], compute_gradient(forward, label, stop=stop)
    weighted = gradient.mean(axis=(1, 2))[:, None, None] * maps
    halves = np.split(weighted, config.towers)
    return GradCam(layer=described, towers=tuple(half.sum(axis=0) for half in halves))


def find_layer_after_maps(forward: ForwardPass) -> int:
    """Return the index of the layer whose input is the last layer of maps after its activation."""
    layers = forward.layers
    last = max(index for index, layer in enumerate(layers) if isinstance(layer, Conv | Local))
    return last + 2 if isinstance(layers[last + 1], Activation) else last + 1


def backpropagate_guided(forward: ForwardPass, label: int) -> Floats:
    """Carry a label's logit back to the pixels: float32 [3, crop, crop].

    Guided backpropagation (Springenberg et al. 2015): ReLUs hold back what is negative. It shows
    edges that excite the units behind a label, and changes little with the label (Adebayo et al.
    2018), so it says what the network sees rather than why it decided.
    """
    return compute_gradient(forward, label, guided=True)

"""A network as a graph of OpenVINO's: uint8 [N, 256, 256, 3] in, what a runtime returns out.

The ten crops share the first layers exactly as in model/image/ten_crop.py; what these share is
found there, and only the cutting is written down again in OpenVINO's operations.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import openvino as ov
from openvino import opset13 as op
from torch import Tensor, nn

from model.image.preprocess import CENTRE_CROP, crop_offsets
from model.image.ten_crop import SharedPrefix, Span, find_shared_prefix, is_border
from model.network.alexnet import AlexNet
from model.network.layers import Conv, Dense, Local
from model.runtime.openvino_layers import apply_layer, apply_layers
from model.runtime.openvino_shaping import Output, cut, integers, mirror, pad, reshape
from model.runtime.protocol import RuntimeUnavailableError


@dataclass(frozen=True)
class BuiltGraphs:
    """The graphs of a network in memory; they refer to its weights.

    mean: float32 [3, side, side].
    """

    network: AlexNet
    mean: Tensor

    def open_ten_crops(self) -> ov.Model:
        """Build the graph of the ten crops. Raises RuntimeUnavailableError."""
        return build_ten_crop_graph(self.network, self.mean)

    def open_centre_crop(self) -> ov.Model:
        """Build the graph of the centre crop. Raises RuntimeUnavailableError."""
        return build_centre_crop_graph(self.network, self.mean)

    def open_layers(self) -> ov.Model:
        """Build the graph of all layers. Raises RuntimeUnavailableError."""
        return build_layers_graph(self.network, self.mean)


def build_ten_crop_graph(network: AlexNet, mean: Tensor) -> ov.Model:
    """Build the graph of `run_ten_crops`. Raises RuntimeUnavailableError."""
    if network.config.test_crops != "ten":
        raise RuntimeUnavailableError("it is not tested on ten crops")
    pixels, x = make_input(network, mean)
    both = [x, mirror(x)]
    layers = list(network.named_children())
    prefix = find_shared_prefix(network)
    if prefix is None:
        config = network.config
        whole = (0, config.crop)
        x = cut_crops(both, whole, whole, config.side, config.crop, 3)
    else:
        modules = (module for _, module in layers[: prefix.layers])
        first = nn.Sequential(*(module for module in modules if not is_border(module)))
        x = build_crop_maps(network, first, both, prefix)
        layers = layers[prefix.layers :]
    logits, fc7 = apply_to_end(network, layers, x)
    probabilities = reshape(op.softmax(logits, 1).output(0), [-1, 10, network.config.classes])
    every = op.reshape(fc7, integers([-1, 10, count_columns(fc7)]), False)
    centre = op.gather(every, op.constant(np.int64(CENTRE_CROP)), op.constant(np.int64(1)))
    return ov.Model([probabilities, centre.output(0)], [pixels], "ten crops")


def build_centre_crop_graph(network: AlexNet, mean: Tensor) -> ov.Model:
    """Build the graph of `run_centre_crop`. Raises RuntimeUnavailableError."""
    pixels, x = make_centre_crop(network, mean)
    _, fc7 = apply_to_end(network, list(network.named_children()), x)
    return ov.Model([fc7], [pixels], "centre crop")


def build_layers_graph(network: AlexNet, mean: Tensor) -> ov.Model:
    """Build the graph of `run_layers`, one output a layer. Raises RuntimeUnavailableError."""
    pixels, x = make_centre_crop(network, mean)
    outputs = []
    for layer, module in zip(network.layers, network.children(), strict=True):
        x = apply_layer(module, x)
        if isinstance(layer, Conv | Local | Dense):
            outputs.append(x)
    return ov.Model(outputs, [pixels], "layers")


def make_centre_crop(network: AlexNet, mean: Tensor) -> tuple[ov.op.Parameter, Output]:
    """Make the input, and the network's input of the centre crop."""
    pixels, x = make_input(network, mean)
    config = network.config
    top, left = crop_offsets(config.side, config.crop)[CENTRE_CROP]
    return pixels, cut(x, (top, top + config.crop), (left, left + config.crop))


def make_input(network: AlexNet, mean: Tensor) -> tuple[ov.op.Parameter, Output]:
    """Make the input, and the network's input of it: mean-free, scaled, channels first."""
    config = network.config
    pixels = op.parameter([-1, config.side, config.side, 3], np.uint8, name="pixels")
    planes = op.convert(op.transpose(pixels, integers([0, 3, 1, 2])), "f32")
    centred = op.subtract(planes, op.constant(mean[None].numpy()))
    scales = np.array(config.channel_scales or (1, 1, 1), np.float32) * config.input_scale
    divisor = op.constant(scales.astype(np.float32)[None, :, None, None])
    return pixels, op.divide(centred, divisor).output(0)


def apply_to_end(
    network: AlexNet, layers: Sequence[tuple[str, nn.Module]], x: Output
) -> tuple[Output, Output]:
    """Apply the given last layers; return the logits and the last hidden layer, fc7."""
    fc7 = None
    for name, module in layers:
        x = apply_layer(module, x)
        if name == network.last_hidden:
            fc7 = x
    if fc7 is None:
        raise RuntimeUnavailableError("its last hidden layer is not where it is looked for")
    return x, fc7


def build_crop_maps(
    network: AlexNet, first: nn.Sequential, both: Sequence[Output], prefix: SharedPrefix
) -> Output:
    """As `model.image.ten_crop.compute_crop_maps`: the first layers' maps of all crops."""
    config = network.config
    side, crop = config.side, config.crop
    maps = apply_layers(first, op.concat(list(both), 0).output(0))
    inside = (crop - prefix.reach) // prefix.stride + 1
    edge = inside * prefix.stride
    halves = op.split(maps, op.constant(np.int64(0)), 2).outputs()
    channels = int(maps.get_partial_shape()[1].get_length())
    within = (0, inside)
    shared = cut_crops(halves, within, within, side, crop, channels, step=prefix.stride)
    if (crop + prefix.border - prefix.reach) // prefix.stride < inside:
        return shared
    seen = edge - prefix.stride + prefix.reach
    right = cut_crops(both, (0, seen), (edge, crop), side, crop, 3)
    below = cut_crops(both, (edge, crop), (0, crop), side, crop, 3)
    right = apply_layers(first, pad(right, right=prefix.border))
    below = apply_layers(first, pad(below, right=prefix.border, bottom=prefix.border))
    upper = op.concat([shared, right], 3).output(0)
    return op.concat([upper, below], 2).output(0)


def cut_crops(
    halves: Sequence[Output],
    rows: Span,
    columns: Span,
    side: int,
    crop: int,
    channels: int,
    *,
    step: int = 1,
) -> Output:
    """As `model.image.ten_crop.cut_from_crops`: the same part of every crop, [N · 10, C, …]."""
    parts = []
    for half, mirrored in zip(halves, (False, True), strict=True):
        for top, left in crop_offsets(side, crop):
            # A crop's mirror image lies as far from the other edge of the mirrored square.
            y, x = top // step, (side - crop - left if mirrored else left) // step
            part = cut(half, (y + rows[0], y + rows[1]), (x + columns[0], x + columns[1]))
            parts.append(op.unsqueeze(part, integers([1])).output(0))
    together = op.concat(parts, 1).output(0)
    return reshape(together, [-1, channels, rows[1] - rows[0], columns[1] - columns[0]])


def count_columns(x: Output) -> int:
    """Return the number of columns of [N, columns]."""
    return int(x.get_partial_shape()[1].get_length())

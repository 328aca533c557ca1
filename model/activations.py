"""What a network computes inside: every layer's activations, conv1's responses and patches.

Activations are kept for each tower separately (Figure 2). Responses are conv1's output for the
centre crop before the ReLU; a patch is what a kernel sees at one position of its map. Positions
are flat: row · width + column.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from model.alexnet import AlexNet
from model.layers import Activation, Conv, Dense, Local
from model.predict import Predictor
from model.receptive_field import WeightedLayer, list_weighted_layers
from model.runtime.protocol import Floats, Pixels
from model.runtime.torch_runtime import to_numpy
from model.ten_crop import CENTRE_CROP, centre_crop, crop_offsets

Positions = npt.NDArray[np.int64]


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


@torch.inference_mode()
def trace_activations(predictor: Predictor, square: Pixels) -> Activations:
    """Run the centre crop of uint8 [256, 256, 3] through the network, recording all layers."""
    config = predictor.network.config
    crop = centre_crop(predictor.prepare_input(square[None]), config.crop)
    outputs = run_weighted_layers(predictor.network, crop)
    return Activations(
        conv1=to_numpy(outputs[0]),
        layers=tuple(
            LayerActivations(layer=layer, towers=apply_activation(layer, output, kind))
            for layer, output, kind in zip(
                list_weighted_layers(config), outputs, list_nonlinearities(predictor), strict=True
            )
        ),
    )


def list_nonlinearities(predictor: Predictor) -> list[str]:
    """Return the nonlinearity of each layer with weights; empty where it has none."""
    found: list[str] = []
    for layer in predictor.network.layers:
        if isinstance(layer, Conv | Local | Dense):
            found.append("")
        elif isinstance(layer, Activation):
            found[-1] = layer.kind
    return found


def run_weighted_layers(network: AlexNet, crop: Tensor) -> list[Tensor]:
    """Return every weighted layer's output for float32 [1, 3, 224, 224], before activation."""
    x, outputs = crop, []
    for layer, module in zip(network.layers, network.children(), strict=True):
        x = module(x)
        if isinstance(layer, Conv | Local | Dense):
            # A copy, because the ReLU that follows works in place.
            outputs.append(x[0].clone(memory_format=torch.contiguous_format))
    return outputs


def apply_activation(layer: WeightedLayer, output: Tensor, activation: str) -> tuple[Floats, ...]:
    """Apply a layer's activation to its output, [maps, …], and split it between the towers."""
    if layer.kind == "labels":
        return (to_numpy(output.float().softmax(0)),)
    after = {"relu": Tensor.relu, "tanh": Tensor.tanh}.get(activation, Tensor.clone)(output)
    return tuple(to_numpy(part) for part in after.chunk(layer.towers))


class Conv1Responses:
    """The responses of a network's conv1 to images, and the patches its kernels see."""

    def __init__(self, predictor: Predictor) -> None:
        module, config = predictor.network.first_conv, predictor.network.config
        self.predictor, self.crop, self.side = predictor, config.crop, config.side
        self.kernel_count, self.kernel_size = module.out_channels, module.kernel_size[0]
        self.stride = module.stride[0]
        self.margin = crop_offsets(config.side, config.crop)[CENTRE_CROP][0]
        self.padding = module.padding[0] if isinstance(module.padding, tuple) else 0

    @torch.inference_mode()
    def compute_maps(self, squares: Pixels) -> Tensor:
        """Compute conv1's maps of the centre crops: uint8 [N, 256, 256, 3] → [N, 96, 55, 55]."""
        maps = centre_crop(self.predictor.prepare_input(squares), self.crop)
        for layer in self.predictor.network.children():
            maps = layer(maps)
            if isinstance(layer, nn.Conv2d):
                break
        return maps

    def find_strongest(self, square: Pixels) -> tuple[Floats, Positions]:
        """Find each kernel's strongest response: float32 [96] values, int64 [96] positions.

        square: uint8 [256, 256, 3]. Of equal responses the first counts. One image at a time is as
        fast on a CPU as many, and the last bits of the result do not depend on other images.
        """
        values, positions = self.compute_maps(square[None])[0].flatten(1).max(dim=1)
        return to_numpy(values), positions.cpu().numpy()

    @cached_property
    def map_side(self) -> int:
        """The side of conv1's maps: 55."""
        return int(self.compute_maps(np.zeros((1, self.side, self.side, 3), np.uint8)).shape[-1])

    def unravel(self, positions: Positions) -> Positions:
        """Convert flat positions to rows and columns: int64 [...] → int64 [..., 2]."""
        return np.stack(np.divmod(positions, self.map_side), axis=-1)

    def cut_patch(self, square: Pixels, position: int) -> Pixels:
        """Cut the pixels that a kernel sees at a position: uint8 [11, 11, 3].

        Beyond the crop, where the network has zeros, it holds the mean image, which becomes zero
        once the mean is subtracted.
        """
        first = self.margin - self.padding
        rows, columns = (
            first + place * self.stride + np.arange(self.kernel_size)
            for place in divmod(int(position), self.map_side)
        )
        last = self.margin + self.crop
        seen = [(self.margin <= along) & (along < last) for along in (rows, columns)]
        near = (np.minimum(np.maximum(along, 0), self.side - 1) for along in (rows, columns))
        at = np.ix_(*near)
        patch: Pixels = np.where(np.logical_and.outer(*seen)[..., None], square[at], self.mean[at])
        return patch

    @cached_property
    def mean(self) -> Pixels:
        """The mean image rounded to pixels: uint8 [256, 256, 3]."""
        rounded = np.rint(to_numpy(self.predictor.mean)).clip(0, 255).astype(np.uint8)
        return np.ascontiguousarray(rounded.transpose(1, 2, 0))

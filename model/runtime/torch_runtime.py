"""The reference: torch, in float32, on any device."""

from collections.abc import Iterator, Sequence
from functools import cached_property

import numpy as np
import torch
from torch import Tensor, nn

from model.image.preprocess import CENTRE_CROP, crop_offsets, scale_pixels, subtract_mean
from model.image.ten_crop import centre_crop, ten_crop_forward
from model.network.alexnet import AlexNet
from model.network.config import AlexNetConfig
from model.network.layers import Activation, Conv, Dense, Local, Lrn, MapNorm
from model.network.switches import Neurons, Switches, make_masks
from model.runtime.names import TORCH
from model.runtime.protocol import Floats, Peaks, Pixels, TenCropOutput


class TorchRuntime:
    """Computes with the network's own modules, whatever their layers are.

    mean: float32 [3, side, side], on the network's device.
    """

    name = TORCH

    def __init__(self, network: AlexNet, mean: Tensor) -> None:
        self.network, self.mean = network, mean

    @torch.inference_mode()
    def run_ten_crops(self, images: Pixels) -> TenCropOutput:
        """Run the ten crops of each image: uint8 [N, 256, 256, 3]."""
        crops, fc7 = ten_crop_forward(self.network, self.prepare_input(images))
        return TenCropOutput(to_numpy(crops), to_numpy(fc7[:, CENTRE_CROP]))

    @torch.inference_mode()
    def run_centre_crop(self, images: Pixels) -> Floats:
        """Compute fc7 of the centre crops: uint8 [N, 256, 256, 3] → float32 [N, 4096]."""
        crops = centre_crop(self.prepare_input(images), self.network.config.crop)
        return to_numpy(self.network(crops).fc7)

    @torch.inference_mode()
    def run_layers(self, image: Pixels, gains: Sequence[Floats] | None = None) -> list[Floats]:
        """Compute what each layer with weights gives before its activation, for the centre crop.

        uint8 [256, 256, 3] → float32 [maps, side, side] each, or [neurons]. gains: as of `Runtime`.
        """
        return [to_numpy(output[0]) for output in self.compute_layers(image[None], gains)]

    @torch.inference_mode()
    def run_logits(self, images: Pixels, gains: Sequence[Floats] | None = None) -> Floats:
        """Compute fc8 of the centre crops: uint8 [N, 256, 256, 3] → float32 [N, classes]."""
        *_, logits = self.compute_layers(images, gains)
        return to_numpy(logits)

    @torch.inference_mode()
    def find_peaks(self, images: Pixels) -> Peaks:
        """Find the largest output of each unit for the centre crops: uint8 [N, 256, 256, 3]."""
        values, places = [], []
        for output in self.compute_layers(images, None):
            value, place = output.flatten(2).max(2) if output.ndim > 2 else (output, output * 0)
            values.append(value)
            places.append(place.long())
        return Peaks(to_numpy(torch.cat(values, 1)), torch.cat(places, 1).cpu().numpy())

    def compute_layers(
        self, images: Pixels, gains: Sequence[Floats] | None = None
    ) -> Iterator[Tensor]:
        """Compute the output of each layer with weights, multiplied by its gains, for N images."""
        x = centre_crop(self.prepare_input(images), self.network.config.crop)
        left = iter(gains or ())
        for layer, module in zip(self.network.layers, self.network.children(), strict=True):
            x = module(x)
            if isinstance(layer, Conv | Local | Dense):
                if (gain := next(left, None)) is not None:
                    factors = torch.from_numpy(gain).to(x.device)
                    x = x * factors.reshape(len(gain), *(1,) * (x.ndim - 2))
                # A copy, because the ReLU that follows works in place.
                yield x.clone(memory_format=torch.contiguous_format)

    def read_weights(self) -> list[Floats]:
        """Return the weights of each layer that has any, without biases."""
        return self.weights

    def read_mean(self) -> Floats:
        """Return the mean image: float32 [3, side, side]."""
        return to_numpy(self.mean)

    @cached_property
    def weights(self) -> list[Floats]:
        """The weights; on the CPU they are the network's own memory."""
        modules = (
            module
            for layer, module in zip(self.network.layers, self.network.children(), strict=True)
            if isinstance(layer, Conv | Local | Dense)
        )
        return [to_numpy(module.get_parameter("weight").detach()) for module in modules]

    @torch.inference_mode()
    def run_switched(
        self, image: Pixels, config: AlexNetConfig, switches: Switches
    ) -> list[Floats]:
        """As `run_layers`, with the network changed: float32 [samples, maps, side, side] each."""
        x = cut_chosen_crop(self.prepare_input(image[None]), config.crop, switches.crop)
        x = x.repeat(switches.samples, 1, 1, 1)
        masks, outputs = iter(make_masks(config, switches)), []
        for layer, module in zip(self.network.layers, self.network.children(), strict=True):
            if isinstance(layer, Lrn | MapNorm) and not switches.lrn:
                continue
            if isinstance(layer, Activation):
                # A copy, because the ReLU works in place.
                x = exchange_neurons(module, switches.neurons)(x.clone())
                if (mask := next(masks)) is not None:
                    x = x * torch.from_numpy(mask).to(x.device)
                continue
            x = module(x)
            if isinstance(layer, Conv | Local | Dense):
                outputs.append(to_numpy(x.clone(memory_format=torch.contiguous_format)))
        return outputs

    def prepare_input(self, images: Pixels) -> Tensor:
        """Subtract the mean image and scale the pixels for the network, on its device.

        uint8 [N, 256, 256, 3] → float32 [N, 3, 256, 256], channels last.
        """
        pixels = torch.from_numpy(np.ascontiguousarray(images)).to(self.mean.device)
        config = self.network.config
        centred = subtract_mean(pixels, self.mean)
        return scale_pixels(centred, config.input_scale, config.channel_scales)


def cut_chosen_crop(x: Tensor, crop: int, number: int) -> Tensor:
    """Cut one of the ten crops out of [1, 3, side, side]: five places, then their mirror images."""
    offsets = crop_offsets(x.shape[-1], crop)
    top, left = offsets[number % len(offsets)]
    cut = x[:, :, top : top + crop, left : left + crop]
    return cut.flip(3) if number >= len(offsets) else cut


def exchange_neurons(module: nn.Module, neurons: Neurons) -> nn.Module:
    """Return a nonlinearity, or what takes its place."""
    others: dict[Neurons, type[nn.Module]] = {"none": nn.Identity, "relu": nn.ReLU, "tanh": nn.Tanh}
    return others[neurons]() if neurons in others else module


def to_numpy(tensor: Tensor) -> Floats:
    """Copy a tensor from any device into a float32 array."""
    array: Floats = tensor.float().cpu().numpy()
    return array

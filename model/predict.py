"""What a trained network says of an image: labels from ten crops, the features of fc7."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from model.alexnet import AlexNet
from model.checkpoint import Weights
from model.dataset import ClassName
from model.preprocess import centre_crop, subtract_mean
from model.ten_crop import run_ten_crops

Floats = npt.NDArray[np.float32]
Pixels = npt.NDArray[np.uint8]
CENTRE = 4
"""Which of the ten crops is the centre one, not mirrored."""


@dataclass(frozen=True)
class Guess:
    """A label and its probability, 0–1."""

    label: str
    probability: float


@dataclass(frozen=True)
class Look:
    """What the network says of one image.

    probabilities: float32 [classes], the mean of the ten crops' softmax outputs (§4.1).
    crops:         float32 [10, classes], each crop's own.
    fc7:           float32 [4096], the centre crop's features of the last hidden layer (§6.1).
    """

    probabilities: Floats
    crops: Floats
    fc7: Floats


class Predictor:
    """A network ready to answer. Its methods may be called from several threads at once."""

    def __init__(self, network: AlexNet, weights: Weights, device: torch.device) -> None:
        # Pixels come in channels last; a network laid out alike need not turn them round.
        self.network: AlexNet = network.to(device=device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.weights = weights
        self.device = device
        self.mean = weights.mean.to(device)
        self.identity = weights.identity

    @classmethod
    def from_weights(cls, weights: Weights, device: str = "auto") -> "Predictor":
        """Put weights on `device`: auto, cpu, cuda or mps."""
        return cls(weights.network(), weights, find_device(device))

    @property
    def classes(self) -> tuple[ClassName, ...]:
        """The classes, in the order of fc8's outputs."""
        return self.weights.classes

    def look(self, image: Pixels) -> Look:
        """Classify one image and give its features, in one pass: uint8 [256, 256, 3]."""
        return self.looks(image[None])[0]

    @torch.inference_mode()
    def looks(self, images: Pixels) -> list[Look]:
        """As `look`, for several at once: uint8 [N, 256, 256, 3]."""
        each, fc7 = ask_ten_crops(self.network, self.prepare(images))
        means, crops, features = map(to_numpy, (each.mean(1), each, fc7[:, CENTRE]))
        return [Look(*one) for one in zip(means, crops, features, strict=True)]

    @torch.inference_mode()
    def features(self, images: Pixels) -> Floats:
        """The features of fc7 for the centre crops: uint8 [N, 256, 256, 3] → float32 [N, 4096]."""
        crops = centre_crop(self.prepare(images), self.network.config.crop)
        return to_numpy(self.network(crops).fc7)

    @torch.inference_mode()
    def probabilities(self, images: Pixels) -> Floats:
        """Ten crops averaged: uint8 [N, 256, 256, 3] → float32 [N, classes]."""
        return to_numpy(ask_ten_crops(self.network, self.prepare(images))[0].mean(1))

    def prepare(self, images: Pixels) -> Tensor:
        """Pixels minus the mean image, in the network's scale: float32 [N, 3, 256, 256]."""
        pixels = torch.from_numpy(np.ascontiguousarray(images)).to(self.device)
        return subtract_mean(pixels, self.mean) / self.network.config.input_scale

    def top5(self, probabilities: Floats) -> list[Guess]:
        """The five most probable labels, or as many as there are: float32 [classes]."""
        return self.top(probabilities, 5)

    def top(self, probabilities: Floats, count: int) -> list[Guess]:
        """The `count` most probable labels, or as many as there are: float32 [classes]."""
        order = np.argsort(-probabilities, kind="stable")[:count]
        return [Guess(self.classes[i].label, float(probabilities[i])) for i in order]

    def conv1(self) -> Tensor:
        """The kernels of conv1: float32 [96, 3, 11, 11], the first 48 GPU 1's."""
        return self.network.conv1.weight.detach().cpu()


def ask_ten_crops(network: AlexNet, squares: Tensor) -> tuple[Tensor, Tensor]:
    """What the network says of each of the ten crops (§4.1).

    float32 [N, 3, side, side] → softmax outputs float32 [N, 10, classes] and features of fc7
    [N, 10, 4096] (or as many as the network has).
    """
    logits, fc7 = run_ten_crops(network, squares)
    shape = len(squares), 10
    each = torch.unflatten(logits.float().softmax(1), 0, shape)
    return each, torch.unflatten(fc7, 0, shape)


def find_device(name: str = "auto") -> torch.device:
    """Give the device of that name; "auto" takes CUDA, then MPS, then the CPU."""
    if name != "auto":
        return torch.device(name)
    if torch.cuda.is_available():
        return torch.device("cuda")
    return torch.device("mps" if torch.backends.mps.is_available() else "cpu")


def to_numpy(tensor: Tensor) -> Floats:
    """A float32 array of a tensor on any device."""
    array: Floats = tensor.float().cpu().numpy()
    return array

"""What a trained network says of an image: labels from ten crops, the features of fc7."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from model.alexnet import AlexNet
from model.checkpoint import Weights
from model.dataset import ClassName
from model.preprocess import subtract_mean
from model.ten_crop import CENTRE_CROP, centre_crop, ten_crop_forward

Floats = npt.NDArray[np.float32]
Pixels = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class LabelProbability:
    """A label and its probability, 0–1."""

    label: str
    probability: float


@dataclass(frozen=True)
class Prediction:
    """What the network says of one image.

    probabilities: float32 [classes], the mean of the ten crops' softmax outputs (§4.1).
    crops:         float32 [10, classes], each crop's own.
    fc7:           float32 [4096], the centre crop's features of the last hidden layer (§6.1).
    """

    probabilities: Floats
    crop_probabilities: Floats
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
        return cls(weights.build_network(), weights, find_device(device))

    @property
    def classes(self) -> tuple[ClassName, ...]:
        """The classes, in the order of fc8's outputs."""
        return self.weights.classes

    def predict(self, image: Pixels) -> Prediction:
        """Classify one image and give its features, in one pass: uint8 [256, 256, 3]."""
        return self.predict_batch(image[None])[0]

    @torch.inference_mode()
    def predict_batch(self, images: Pixels) -> list[Prediction]:
        """As `look`, for several at once: uint8 [N, 256, 256, 3]."""
        each, fc7 = ten_crop_forward(self.network, self.prepare_input(images))
        means, crops, features = map(to_numpy, (each.mean(1), each, fc7[:, CENTRE_CROP]))
        return [Prediction(*one) for one in zip(means, crops, features, strict=True)]

    @torch.inference_mode()
    def extract_features(self, images: Pixels) -> Floats:
        """The features of fc7 for the centre crops: uint8 [N, 256, 256, 3] → float32 [N, 4096]."""
        crops = centre_crop(self.prepare_input(images), self.network.config.crop)
        return to_numpy(self.network(crops).fc7)

    @torch.inference_mode()
    def predict_probabilities(self, images: Pixels) -> Floats:
        """Ten crops averaged: uint8 [N, 256, 256, 3] → float32 [N, classes]."""
        return to_numpy(ten_crop_forward(self.network, self.prepare_input(images))[0].mean(1))

    def prepare_input(self, images: Pixels) -> Tensor:
        """Pixels minus the mean image, in the network's scale: float32 [N, 3, 256, 256]."""
        pixels = torch.from_numpy(np.ascontiguousarray(images)).to(self.device)
        return subtract_mean(pixels, self.mean) / self.network.config.input_scale

    def top5(self, probabilities: Floats) -> list[LabelProbability]:
        """The five most probable labels, or as many as there are: float32 [classes]."""
        return self.top_k(probabilities, 5)

    def top_k(self, probabilities: Floats, count: int) -> list[LabelProbability]:
        """The `count` most probable labels, or as many as there are: float32 [classes]."""
        order = np.argsort(-probabilities, kind="stable")[:count]
        return [LabelProbability(self.classes[i].label, float(probabilities[i])) for i in order]

    def conv1_kernels(self) -> Tensor:
        """The kernels of conv1: float32 [96, 3, 11, 11], the first 48 GPU 1's."""
        return self.network.conv1.weight.detach().cpu()


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

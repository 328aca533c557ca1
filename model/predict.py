"""From pixels to labels: a trained network's probabilities from ten crops, and fc7's features."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from model.alexnet import AlexNet
from model.checkpoint import Weights
from model.dataset import ClassName
from model.decode import MAX_PIXELS
from model.preprocess import decode_square, make_square, read_square
from model.runtime.choice import RuntimeChoice, choose_runtime
from model.runtime.names import TORCH
from model.runtime.protocol import Floats, Pixels, Runtime
from model.runtime.torch_runtime import TorchRuntime

__all__ = ["Floats", "LabelProbability", "Pixels", "Prediction", "Predictor", "find_device"]


@dataclass(frozen=True)
class LabelProbability:
    """A label and its probability, 0–1."""

    label: str
    probability: float


@dataclass(frozen=True)
class Prediction:
    """The network's prediction for one image.

    probabilities:      float32 [classes], the mean of the ten crops' softmax outputs (§4.1).
    crop_probabilities: float32 [10, classes], those of each crop.
    fc7:                float32 [4096], the centre crop's features in the last hidden layer (§6.1).
    """

    probabilities: Floats
    crop_probabilities: Floats
    fc7: Floats


class Predictor:
    """A network with its weights on a device. Several threads may call its methods at once.

    runtime: what computes predictions and features; by default torch. The layers' activations
    always come from the network itself.
    """

    def __init__(
        self,
        network: AlexNet,
        weights: Weights,
        device: torch.device,
        runtime: str = TORCH,
        measurements: Path | None = None,
    ) -> None:
        # Pixels arrive channels last; a network in the same format need not transpose them.
        self.network: AlexNet = network.to(device=device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.weights = weights
        self.device = device
        self.mean = weights.mean.to(device)
        self.identity = weights.identity
        self.runtime: Runtime
        self.choice: RuntimeChoice
        self.runtime, self.choice = choose_runtime(
            self.network, self.mean, self.identity, measurements, runtime
        )

    @classmethod
    def from_weights(
        cls,
        weights: Weights,
        device: str = "auto",
        runtime: str = TORCH,
        measurements: Path | None = None,
    ) -> "Predictor":
        """Put weights on a device: "auto", "cpu", "cuda" or "mps".

        runtime: one of `model.runtime.names.RUNTIMES`. measurements: the folder where it is
        stored which one is the fastest.
        """
        network = weights.build_network()
        return cls(network, weights, find_device(device), runtime, measurements)

    @property
    def classes(self) -> tuple[ClassName, ...]:
        """The classes, in the order of fc8's outputs."""
        return self.weights.classes

    def classify(self, photograph: str | Path, count: int = 5) -> list[LabelProbability]:
        """Return the most probable labels of a JPEG, PNG or WebP file, averaged over ten crops.

        Raises ImageError if it cannot be read.
        """
        probabilities = self.predict(self.read_square(Path(photograph))).probabilities
        return self.top_k(probabilities, count)

    def make_square(self, image: Image.Image) -> Pixels:
        """Make the square that this network's crops are cut from: uint8 [256, 256, 3]."""
        config = self.network.config
        return make_square(image, config.side, config.resize)

    def decode_square(self, data: bytes, *, max_pixels: int = MAX_PIXELS) -> Pixels:
        """Decode an image file's bytes to this network's square. Raises ImageError."""
        config = self.network.config
        return decode_square(data, side=config.side, resize=config.resize, max_pixels=max_pixels)

    def read_square(self, path: Path) -> Pixels:
        """Read an image file to this network's square. Raises ImageError."""
        config = self.network.config
        return read_square(path, side=config.side, resize=config.resize)

    def predict(self, image: Pixels) -> Prediction:
        """Classify one image and extract its features in one pass: uint8 [256, 256, 3]."""
        return self.predict_batch(image[None])[0]

    def predict_batch(self, images: Pixels) -> list[Prediction]:
        """Classify several images and extract their features: uint8 [N, 256, 256, 3]."""
        crops, fc7 = self.runtime.run_ten_crops(images)
        return [Prediction(*one) for one in zip(crops.mean(1), crops, fc7, strict=True)]

    def extract_features(self, images: Pixels) -> Floats:
        """Compute fc7 of the centre crops: uint8 [N, 256, 256, 3] → float32 [N, 4096]."""
        return self.runtime.run_centre_crop(images)

    def predict_probabilities(self, images: Pixels) -> Floats:
        """Average the ten crops' softmax: uint8 [N, 256, 256, 3] → float32 [N, classes]."""
        probabilities: Floats = self.runtime.run_ten_crops(images).probabilities.mean(1)
        return probabilities

    def prepare_input(self, images: Pixels) -> Tensor:
        """Subtract the mean image and scale the pixels for the network, on its device.

        uint8 [N, 256, 256, 3] → float32 [N, 3, 256, 256], channels last.
        """
        return TorchRuntime(self.network, self.mean).prepare_input(images)

    def top5(self, probabilities: Floats) -> list[LabelProbability]:
        """Return the five most probable labels, or all if there are fewer: float32 [classes]."""
        return self.top_k(probabilities, 5)

    def top_k(self, probabilities: Floats, count: int) -> list[LabelProbability]:
        """Return the `count` most probable labels, or all if there are fewer: float32 [classes]."""
        order = np.argsort(-probabilities, kind="stable")[:count]
        return [LabelProbability(self.classes[i].label, float(probabilities[i])) for i in order]

    def conv1_kernels(self) -> Tensor:
        """Return conv1's kernels: float32 [96, 3, 11, 11], of which the first 48 are GPU 1's.

        Of a network without conv1, those of the layer that sees the image.
        """
        return self.network.first_conv.weight.detach().cpu()


def find_device(name: str = "auto") -> torch.device:
    """Return the device of this name; "auto" is CUDA if present, else MPS, else the CPU."""
    if name != "auto":
        return torch.device(name)
    if torch.cuda.is_available():
        return torch.device("cuda")
    return torch.device("mps" if torch.backends.mps.is_available() else "cpu")

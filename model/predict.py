"""From pixels to labels: a trained network's probabilities from ten crops, and fc7's features."""

import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np
from PIL import Image

from model.dataset.folder import ClassName
from model.image.decode import MAX_PIXELS
from model.image.preprocess import decode_square, make_square, read_square
from model.network.config import AlexNetConfig
from model.runtime.names import TORCH
from model.runtime.protocol import Floats, Pixels, Runtime, RuntimeChoice
from model.weights.header import Provenance

if TYPE_CHECKING:
    from torch import Tensor

    from model.network.alexnet import AlexNet
    from model.weights.checkpoint import Weights
    from model.weights.loaded_network import LoadedNetwork

__all__ = ["Floats", "LabelProbability", "Pixels", "Prediction", "Predictor"]


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


class NetworkDescription(Protocol):
    """What a predictor says about its network: a weights file's header, or whole weights."""

    @property
    def config(self) -> AlexNetConfig: ...

    @property
    def classes(self) -> tuple[ClassName, ...]: ...

    @property
    def provenance(self) -> Provenance: ...


class Predictor:
    """A network that classifies images. Several threads may call its methods at once.

    identity: of its weights. runtime: what computes predictions and features, on `device`. choice:
    why that does. conv1: float32 [96, 3, 11, 11], the kernels of the layer that sees the image.
    load: gives the network itself, which no prediction and no page needs; it is called once, if at
    all.
    """

    def __init__(
        self,
        description: NetworkDescription,
        identity: str,
        runtime: Runtime,
        choice: RuntimeChoice,
        device: str,
        conv1: Floats,
        load: Callable[[], "LoadedNetwork"],
    ) -> None:
        self.config, self.classes = description.config, description.classes
        self.provenance, self.identity = description.provenance, identity
        self.runtime, self.choice, self.device, self.conv1 = runtime, choice, device, conv1
        self.load, self.lock = load, threading.Lock()
        self.known: LoadedNetwork | None = None

    @classmethod
    def from_weights(
        cls,
        weights: "Weights",
        device: str = "auto",
        runtime: str = TORCH,
    ) -> "Predictor":
        """Put weights on a device: "auto", "cpu", "cuda" or "mps".

        runtime: one of `model.runtime.names.RUNTIMES`; "auto" measures which is the fastest.
        """
        # Not above: whoever has a compiled network needs no torch (model/runtime/prepared.py).
        from model.runtime.choice import choose_runtime
        from model.weights.loaded_network import LoadedNetwork

        loaded = LoadedNetwork.from_weights(weights, device)
        network = loaded.network
        chosen = choose_runtime(network, loaded.mean, runtime)
        conv1: Floats = network.first_conv.weight.detach().cpu().numpy()
        return cls(weights, weights.identity, *chosen, str(loaded.device), conv1, lambda: loaded)

    @property
    def loaded(self) -> "LoadedNetwork":
        """The network and its weights in torch, read when they are first needed.

        Raises WeightsError if the file is gone or has changed since.
        """
        with self.lock:
            if self.known is None:
                self.known = self.load()
            return self.known

    @property
    def network(self) -> "AlexNet":
        """The network itself. Raises WeightsError as `loaded` does."""
        return self.loaded.network

    def classify(self, photograph: str | Path, count: int = 5) -> list[LabelProbability]:
        """Return the most probable labels of an image file, averaged over ten crops.

        Raises ImageError if it cannot be read.
        """
        probabilities = self.predict(self.read_square(Path(photograph))).probabilities
        return self.top_k(probabilities, count)

    def make_square(self, image: Image.Image) -> Pixels:
        """Make the square that this network's crops are cut from: uint8 [256, 256, 3]."""
        config = self.config
        return make_square(image, config.side, config.resize)

    def decode_square(self, data: bytes, *, max_pixels: int = MAX_PIXELS) -> Pixels:
        """Decode an image file's bytes to this network's square. Raises ImageError."""
        config = self.config
        return decode_square(data, side=config.side, resize=config.resize, max_pixels=max_pixels)

    def read_square(self, path: Path) -> Pixels:
        """Read an image file to this network's square. Raises ImageError."""
        config = self.config
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

    def prepare_input(self, images: Pixels) -> "Tensor":
        """Subtract the mean image and scale the pixels for the network, on its device.

        uint8 [N, 256, 256, 3] → float32 [N, 3, 256, 256], channels last.
        """
        return self.loaded.prepare_input(images)

    def top5(self, probabilities: Floats) -> list[LabelProbability]:
        """Return the five most probable labels, or all if there are fewer: float32 [classes]."""
        return self.top_k(probabilities, 5)

    def top_k(self, probabilities: Floats, count: int) -> list[LabelProbability]:
        """Return the `count` most probable labels, or all if there are fewer: float32 [classes]."""
        order = np.argsort(-probabilities, kind="stable")[:count]
        return [LabelProbability(self.classes[i].label, float(probabilities[i])) for i in order]

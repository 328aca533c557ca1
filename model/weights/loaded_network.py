"""A network in torch with its weights, on a device."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from model.network.alexnet import AlexNet
from model.runtime.protocol import Floats, Pixels
from model.runtime.torch_runtime import TorchRuntime
from model.weights.checkpoint import Weights

FEATURES_PER_PASS = 1024
"""Rows of features in one pass."""


@dataclass(frozen=True)
class LoadedNetwork:
    """A network, its weights as they were read, and where it computes.

    mean: float32 [3, side, side], the mean image, on the device.
    """

    network: AlexNet
    weights: Weights
    mean: Tensor
    device: torch.device

    @classmethod
    def from_weights(cls, weights: Weights, device: str = "auto") -> "LoadedNetwork":
        """Put weights on a device: "auto", "cpu", "cuda" or "mps"."""
        place = find_device(device)
        # Pixels arrive channels last; a network in the same format need not transpose them.
        network: AlexNet = weights.build_network().to(
            device=place, memory_format=torch.channels_last
        )  # type: ignore[call-overload]
        return cls(network, weights, weights.mean.to(place), place)

    @torch.inference_mode()
    def compute_probabilities(self, features: Floats) -> Floats:
        """Compute the softmax from fc7's features: float32 [N, 4096] → float32 [N, classes].

        That is what the network says about the crop that the features are of.
        """
        modules = list(self.network.named_children())
        names = [name for name, _ in modules]
        after = modules[names.index(self.network.last_hidden) + 1 :]
        parts = [
            self.network.run_modules(torch.from_numpy(some).to(self.device), after).logits
            for some in np.array_split(features, max(1, len(features) // FEATURES_PER_PASS))
        ]
        probabilities: Floats = torch.cat(parts).softmax(dim=1).cpu().numpy()
        return probabilities

    def prepare_input(self, images: Pixels) -> Tensor:
        """Subtract the mean image and scale the pixels for the network, on its device.

        uint8 [N, 256, 256, 3] → float32 [N, 3, 256, 256], channels last.
        """
        return TorchRuntime(self.network, self.mean).prepare_input(images)


def find_device(name: str = "auto") -> torch.device:
    """Return the device of this name; "auto" is CUDA if present, else MPS, else the CPU."""
    if name != "auto":
        return torch.device(name)
    if torch.cuda.is_available():
        return torch.device("cuda")
    return torch.device("mps" if torch.backends.mps.is_available() else "cpu")

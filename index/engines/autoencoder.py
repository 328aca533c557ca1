"""An autoencoder that turns feature vectors into short binary codes (§6.1).

After Krizhevsky and Hinton, "Using very deep autoencoders for content-based image retrieval"
(ESANN 2011): the code is the bottleneck of a network that reconstructs the features. As in
Salakhutdinov and Hinton's "Semantic hashing" (2007), noise before the tanh units of the bottleneck
drives their outputs to −1 and 1, so that similar features get codes that differ in few bits. The
features' principal components are the first layer, in place of layer-wise pretraining.
"""

from pathlib import Path
from typing import Any

import faiss
import numpy as np
import numpy.typing as npt
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from index.manifest import REBUILD_HINT, StoreError
from index.vectors import Floats
from model.network.config import FEATURES
from model.weights.checkpoint import write_tensors
from storage.progress import Report

Codes = npt.NDArray[np.uint8]
COMPONENTS = 512
"""Principal components that are encoded."""
HIDDEN_UNITS = 512
"""Units of the hidden layer on each side of the code."""
NOISE_STD = 1.0
"""Standard deviation of the noise before the code's tanh units."""
BATCH_SIZE = 256
PEAK_LEARNING_RATE = 1e-3
"""Reached after a tenth of the steps; then the learning rate decays."""
EPOCHS = 30
MIN_MAX_STEPS = (100, 4000)
"""Limits of the number of steps: fewest and most."""


class Encoder(nn.Module):
    """4096 features → principal components → hidden layer → bits.

    float32 [N, 4096] → [N, bits]; a bit is 1 where the number is positive.
    """

    def __init__(self, components: int, hidden: int, bits: int) -> None:
        super().__init__()
        self.components = nn.Linear(FEATURES, components).requires_grad_(False)
        self.hidden = nn.Linear(components, hidden)
        self.code = nn.Linear(hidden, bits)

    @property
    def bits(self) -> int:
        """The length of a code in bits."""
        return self.code.out_features

    def forward(self, features: Tensor) -> Tensor:
        """Compute the values whose signs are the bits: [N, 4096] → [N, bits]."""
        return self.encode_components(self.components(features))

    def encode_components(self, components: Tensor) -> Tensor:
        """Compute the same from the scaled components: [N, components] → [N, bits]."""
        values: Tensor = self.code(torch.relu(self.hidden(components)))
        return values

    @torch.inference_mode()
    def encode(self, features: Floats) -> Codes:
        """Encode features as FAISS packs bits: float32 [N, 4096] → uint8 [N, bits / 8]."""
        signs = self(torch.from_numpy(np.require(features, np.float32, ["C", "W"]))) > 0
        return np.packbits(signs.numpy(), axis=1, bitorder="little")


def train_encoder(
    components: faiss.LinearTransform, inputs: Floats, bits: int, seed: int, report: Report
) -> Encoder:
    """Train an encoder on inputs, float32 [N, d], the principal components given by `components`.

    All components are scaled by one factor, which keeps distances in proportion. The same seed
    gives the same encoder on the same machine with the same number of threads.
    """
    scale = float(np.sqrt(np.square(inputs, dtype=np.float64).mean())) or 1.0
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        encoder = Encoder(components.d_out, HIDDEN_UNITS, bits)
        axes = faiss.vector_to_array(components.A).reshape(components.d_out, FEATURES)
        encoder.components.weight.copy_(torch.from_numpy(axes) / scale)
        encoder.components.bias.copy_(torch.from_numpy(faiss.vector_to_array(components.b)) / scale)
        fit_autoencoder(encoder, torch.from_numpy(inputs / np.float32(scale)), report)
    return encoder.eval()


def fit_autoencoder(encoder: Encoder, inputs: Tensor, report: Report) -> None:
    """Train an encoder with a mirrored decoder, which is then discarded.

    inputs: principal components to reconstruct, float32 [N, components].
    """
    components, hidden, bits = inputs.shape[1], encoder.hidden.out_features, encoder.bits
    decoder = nn.Sequential(nn.Linear(bits, hidden), nn.ReLU(), nn.Linear(hidden, components))
    learned = [p for p in (*encoder.parameters(), *decoder.parameters()) if p.requires_grad]
    steps = int(np.clip(EPOCHS * len(inputs) // BATCH_SIZE, *MIN_MAX_STEPS))
    optimiser = torch.optim.Adam(learned, PEAK_LEARNING_RATE)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimiser, PEAK_LEARNING_RATE, steps, pct_start=0.1
    )
    done = report("Training the autoencoder", steps)
    order = torch.empty(0, dtype=torch.int64)
    for step in range(steps):
        if len(order) < BATCH_SIZE:
            order = torch.cat([order, torch.randperm(len(inputs))])
        batch, order = inputs[order[:BATCH_SIZE]], order[BATCH_SIZE:]
        numbers = encoder.encode_components(batch)
        code = torch.tanh(numbers + NOISE_STD * torch.randn_like(numbers))
        loss = nn.functional.mse_loss(decoder(code), batch)
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        schedule.step()
        done(step + 1)


def save_encoder(encoder: Encoder, path: Path) -> None:
    """Write an encoder as safetensors. Raises OSError."""
    write_tensors(encoder.state_dict(), path, {"format": "1"})


def load_encoder(path: Path) -> Encoder:
    """Read an encoder. Raises StoreError if it is missing or damaged."""
    try:
        with safe_open(path, framework="pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        return build_encoder(tensors)
    except (OSError, SafetensorError, RuntimeError, KeyError, ValueError, IndexError) as error:
        raise StoreError(
            f"{path} is not the encoder of an index ({error}); {REBUILD_HINT}"
        ) from error


def build_encoder(tensors: dict[str, Any]) -> Encoder:
    """Build an encoder from its tensors. Raises KeyError, RuntimeError or ValueError."""
    hidden, components = tensors["hidden.weight"].shape
    with torch.device("meta"):
        encoder = Encoder(components, hidden, len(tensors["code.weight"]))
    encoder.load_state_dict(tensors, assign=True)
    if not all(t.dtype == torch.float32 and t.isfinite().all() for t in tensors.values()):
        raise ValueError("a tensor is not finite float32")
    return encoder.eval().requires_grad_(False)

"""An autoencoder that turns feature vectors into short binary codes (§6.1).

The paper proposes codes from an autoencoder of the features, after Krizhevsky and Hinton, "Using
very deep autoencoders for content-based image retrieval" (ESANN 2011). This one is linear on the
features' principal components, with tanh at the bottleneck, and is trained for two things: that the
features can be reconstructed from a code, and that of a batch's images those with the most similar
codes are those with the nearest features, by the softmax of stochastic neighbour embedding (Hinton
and Roweis 2002). With the second its codes find far more of the true neighbours than by
reconstruction alone or by a deep autoencoder (`benchmarks/codes.py`).
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
RECONSTRUCTION = 3.0
"""Weight of the error of reconstruction beside that of the neighbours."""
NEAR, SOFTNESS = 5, 0.05
"""An image's neighbours count by exp(−d² / (SOFTNESS · d²₅)), d₅ being the distance from its fifth
nearest in the batch."""
SHARPNESS = 3.0
"""Logarithm of the factor, learned on, of two codes' similarity."""
BATCH_SIZE = 512
PEAK_LEARNING_RATE = 5e-3
"""Reached after a tenth of the steps; then the learning rate decays."""
EPOCHS = 54
MIN_MAX_STEPS = (100, 2000)
"""Limits of the number of steps: fewest and most."""


class Encoder(nn.Module):
    """4096 features → principal components → bits.

    float32 [N, 4096] → [N, bits]; a bit is 1 where the number is positive.
    """

    def __init__(self, components: int, bits: int) -> None:
        super().__init__()
        self.components = nn.Linear(FEATURES, components).requires_grad_(False)
        self.code = nn.Linear(components, bits)

    @property
    def bits(self) -> int:
        """The length of a code in bits."""
        return self.code.out_features

    def forward(self, features: Tensor) -> Tensor:
        """Compute the values whose signs are the bits: [N, 4096] → [N, bits]."""
        values: Tensor = self.code(self.components(features))
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
        encoder = Encoder(components.d_out, bits)
        axes = faiss.vector_to_array(components.A).reshape(components.d_out, FEATURES)
        encoder.components.weight.copy_(torch.from_numpy(axes) / scale)
        encoder.components.bias.copy_(torch.from_numpy(faiss.vector_to_array(components.b)) / scale)
        fit_autoencoder(encoder, torch.from_numpy(inputs / np.float32(scale)), report)
    return encoder.eval()


def fit_autoencoder(encoder: Encoder, inputs: Tensor, report: Report) -> None:
    """Train an encoder with a linear decoder, which is then discarded.

    inputs: scaled principal components, float32 [N, components].
    """
    decoder = nn.Linear(encoder.bits, inputs.shape[1])
    sharpness = nn.Parameter(torch.tensor(SHARPNESS))
    learned = [*encoder.code.parameters(), *decoder.parameters(), sharpness]
    steps = int(np.clip(EPOCHS * len(inputs) // BATCH_SIZE, *MIN_MAX_STEPS))
    optimiser = torch.optim.Adam(learned, PEAK_LEARNING_RATE)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimiser, PEAK_LEARNING_RATE, steps, pct_start=0.1
    )
    done = report("Training the autoencoder", steps)
    size, order = min(BATCH_SIZE, len(inputs)), torch.empty(0, dtype=torch.int64)
    for step in range(steps):
        if len(order) < size:
            # The remainder is left out, so that no image meets itself.
            order = torch.randperm(len(inputs))
        batch, order = inputs[order[:size]], order[size:]
        codes = torch.tanh(encoder.code(batch))
        loss = RECONSTRUCTION * nn.functional.mse_loss(decoder(codes), batch)
        if size > 1:
            loss = loss + compare_neighbours(batch, codes, sharpness.exp())
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        schedule.step()
        done(step + 1)


def compare_neighbours(inputs: Tensor, codes: Tensor, sharpness: Tensor) -> Tensor:
    """Compute how far each image's neighbours by its code are from those by its features.

    inputs: [N, components]. codes: [N, bits], from −1 to 1. Returns the mean cross-entropy of both
    distributions over the other images of the batch.
    """
    own = torch.eye(len(inputs), dtype=torch.bool)
    squared = torch.cdist(inputs, inputs).square().masked_fill(own, torch.inf)
    near = squared.kthvalue(min(NEAR, len(inputs) - 1), dim=1, keepdim=True).values
    wanted = (-squared / (SOFTNESS * near).clamp(min=torch.finfo(near.dtype).tiny)).softmax(1)
    alike = sharpness * (codes @ codes.T) / codes.shape[1]
    found = alike.masked_fill(own, -torch.inf).log_softmax(1)
    return -(wanted * found.masked_fill(own, 0)).sum(1).mean()


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
    bits, components = tensors["code.weight"].shape
    with torch.device("meta"):
        encoder = Encoder(components, bits)
    encoder.load_state_dict(tensors, assign=True)
    if not all(t.dtype == torch.float32 and t.isfinite().all() for t in tensors.values()):
        raise ValueError("a tensor is not finite float32")
    return encoder.eval().requires_grad_(False)

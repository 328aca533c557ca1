"""Images of noise in place of photographs, where only time and memory are measured."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import repeat
from pathlib import Path

import numpy as np
import torch

from model.dataset.folder import ClassName
from model.network.config import AlexNetConfig
from model.weights.checkpoint import Pca
from training.batches.batches import Batch, Batches
from training.dataset.prepare import PreparedDataset
from training.dataset.store import Split


def make_dataset(images: int, config: AlexNetConfig) -> PreparedDataset:
    """Make a dataset of noise, in memory; its validation images are the first of the others."""
    random = np.random.default_rng(0)
    pixels = random.integers(0, 256, (images, config.side, config.side, 3), np.uint8)
    classes = random.integers(0, config.classes, images)
    return PreparedDataset(
        key="noise",
        root=Path("noise"),
        class_names=tuple(ClassName(str(n), str(n)) for n in range(config.classes)),
        train=Split.from_arrays(pixels, classes),
        val=Split.from_arrays(pixels[:8], classes[:8]),
        mean=torch.full((3, config.side, config.side), 127.5),
        pca=Pca(torch.tensor([0.2, 0.02, 0.005]), torch.eye(3)),
        unreadable=(),
        side=config.side,
    )


@dataclass(frozen=True)
class SameBatches(Batches):
    """An epoch of `steps` times the same batch, which is in the device's memory already."""

    same: Batch | None = None
    steps: int = 1

    def __len__(self) -> int:
        return self.steps

    def __iter__(self) -> Iterator[Batch]:
        assert self.same is not None
        return repeat(self.same, self.steps)


def make_batch(images: int, config: AlexNetConfig, device: torch.device) -> Batch:
    """Make a batch of noise on a device."""
    x = 60 * torch.randn(images, 3, config.crop, config.crop, device=device)
    x = x.contiguous(memory_format=torch.channels_last)
    classes = torch.randint(0, config.classes, (images,), device=device)
    return Batch(x, classes, torch.arange(images))

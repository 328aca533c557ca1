"""The kernels of conv1: how much colour each sees, how the two GPUs differ, what excites them."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from index.sample import ImageSample
from model.predict import Predictor
from model.visualize import COLUMNS, colour_selectivity, towers

SPLITS = 9_999
BATCH = 1_000
SEED = 2012


@dataclass(frozen=True, kw_only=True)
class Kernel:
    """A kernel of conv1.

    number: from 1, through all GPUs, as its map's. place: by colour selectivity among those of
    its GPU, the most selective being 1. row, column: where it lies in its GPU's block.
    """

    number: int
    gpu: int
    selectivity: float
    rank: int
    row: int
    column: int


@dataclass(frozen=True, kw_only=True)
class SelectivityContrast:
    """How far two GPUs' mean colour selectivities lie apart, and how often chance does as much.

    means: of each GPU. beyond: of `splits` splits of all kernels into two halves, drawn at random,
    how many have means at least as far apart.
    """

    means: tuple[float, float]
    as_extreme: int
    splits: int

    @property
    def difference(self) -> float:
        """By how much the second GPU's mean is the larger."""
        return self.means[1] - self.means[0]

    @property
    def by_chance(self) -> bool:
        """Whether one split in twenty does as much: then the difference says little."""
        return (self.as_extreme + 1) / (self.splits + 1) > 0.05


@dataclass(frozen=True, kw_only=True)
class KernelPatch:
    """A place of a training image that excites a kernel: conv1's response, before the ReLU."""

    image: int
    response: float
    row: int
    column: int


def list_kernels(predictor: Predictor) -> list[Kernel]:
    """Every kernel of a network's conv1, in order."""
    found: list[Kernel] = []
    for gpu, part in enumerate(towers(predictor.conv1(), predictor.weights.config.towers), 1):
        values = colour_selectivity(part)
        places = np.argsort(np.argsort(-values, kind="stable")) + 1
        found += [
            Kernel(
                number=len(found) + 1 + index,
                gpu=gpu,
                selectivity=float(value),
                rank=int(place),
                row=index // COLUMNS,
                column=index % COLUMNS,
            )
            for index, (value, place) in enumerate(zip(values, places, strict=True))
        ]
    return found


def compare_selectivities(first: Sequence[float], second: Sequence[float]) -> SelectivityContrast:
    """Compare the colour selectivities of two GPUs: a test by permutation, with a fixed seed."""
    pooled, half = np.array([*first, *second]), len(first)
    means = float(np.mean(first)), float(np.mean(second))
    apart, beyond, drawn = abs(means[1] - means[0]), 0, np.random.default_rng(SEED)
    for start in range(0, SPLITS, BATCH):
        count = min(BATCH, SPLITS - start)
        mixed = drawn.permuted(np.broadcast_to(pooled, (count, len(pooled))), axis=1)
        found = np.abs(mixed[:, :half].mean(1) - mixed[:, half:].mean(1))
        beyond += int((found >= apart - 1e-12).sum())
    return SelectivityContrast(means=means, as_extreme=beyond, splits=SPLITS)


def list_patches(sample: ImageSample, number: int) -> list[KernelPatch]:
    """The training patches that excite a kernel most, strongest first, an image counting once."""
    held, row = sample.patches, number - 1
    return [
        KernelPatch(
            image=int(image), response=float(value), row=int(place[0]), column=int(place[1])
        )
        for image, value, place in zip(
            held.ids[row], held.values[row], held.places[row], strict=True
        )
    ]

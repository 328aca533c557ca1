"""conv1's 96 kernels: one picture for each tower (Figure 3), and numbers that go with them.

How much of what each kernel sees is colour, whether the towers differ in that, and how far the
kernels are from the noise that they started as.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias, TypeVar

import numpy as np
import numpy.typing as npt
from PIL import Image

if TYPE_CHECKING:
    from torch import Tensor

KERNELS_PER_ROW = 8
LOW_FREQUENCY = 0.25
"""Cycles per pixel below which a frequency counts as low: half the highest along one axis."""
PERMUTATION_SPLITS, SPLITS_PER_BATCH, PERMUTATION_SEED = 9_999, 1_000, 2012
"""Of the permutation test: random splits, splits drawn at a time, and the seed."""

Kernels: TypeAlias = "Tensor | npt.NDArray[np.float32]"
SameKernels = TypeVar("SameKernels", "Tensor", npt.NDArray[np.float32])


def split_towers(conv1: SameKernels, count: int = 2) -> tuple[SameKernels, ...]:
    """Split conv1's kernels, float32 [96, 3, 11, 11], into GPU 1's 48 and GPU 2's 48.

    count: how many towers the network has; the one-GPU nets have one. Raises ValueError for
    kernels that cannot be split into so many equal parts, or of another shape.
    """
    _check_shape(conv1)
    if len(conv1) % count:
        raise ValueError(f"{len(conv1)} conv1 kernels cannot be divided between {count} towers")
    size = len(conv1) // count
    return tuple(conv1[start : start + size] for start in range(0, len(conv1), size))


def draw_kernels(kernels: Kernels, scale: int = 4, gap: int = 4) -> Image.Image:
    """Draw one tower's kernels, float32 [48, 3, 11, 11], as RGBA, eight kernels to a row.

    Each weight is a square of `scale` pixels, so a kernel is 44 pixels wide; `gap` transparent
    pixels lie between kernels and none around them: 380×284 pixels for the 48 of a tower.

    Zero is mid-grey, and each kernel is scaled by its own largest absolute weight, the three
    colours together: 128 + 127 · w / max|w|, rounded. So the sign and hue of a weight can be read
    and weak kernels show their form, but strengths cannot be compared between kernels. A kernel
    of zeros is mid-grey throughout. Raises ValueError for another shape or non-finite weights.
    """
    weights = _check_finite_weights(kernels)
    tiles = _to_pixels(weights).repeat(scale, axis=1).repeat(scale, axis=2)
    count, height, width, _ = tiles.shape
    columns, rows = min(KERNELS_PER_ROW, count), -(-count // KERNELS_PER_ROW)
    size = (columns * (width + gap) - gap, rows * (height + gap) - gap)
    picture = Image.new("RGBA", size, (0, 0, 0, 0))
    for number, tile in enumerate(tiles):
        row, column = divmod(number, KERNELS_PER_ROW)
        picture.paste(Image.fromarray(tile), (column * (width + gap), row * (height + gap)))
    return picture


def compute_colour_selectivity(kernels: Kernels) -> npt.NDArray[np.float32]:
    """Compute how selective kernels are for colour: [N, 3, h, w] → float32 [N], from 0 to 1.

    The share of a kernel's energy Σw² that is orthogonal to the grey axis (1, 1, 1)/√3 at each
    position: 0 if red, green and blue have equal weights everywhere, 1 if they sum to zero
    everywhere. A kernel of zeros gets 0. Raises ValueError as `draw_kernels` does.
    """
    weights = _check_finite_weights(kernels)
    energy = np.square(weights).sum(axis=(1, 2, 3))
    colour = np.square(weights - weights.mean(axis=1, keepdims=True)).sum(axis=(1, 2, 3))
    share = np.zeros(len(weights), dtype=np.float32)
    np.divide(colour, energy, out=share, where=energy > 0, casting="same_kind")
    return share


def compute_low_frequency_share(kernels: Kernels) -> float:
    """Compute which share of the energy of kernels, [N, 3, h, w], lies at low frequencies, 0–1.

    The energy is that of each colour's two-dimensional DFT, h × w frequencies, summed over colours
    and kernels; low is a radial frequency below 0.25 cycles per pixel. Photographs have most of
    their energy there, and so have kernels that have learned from them, smooth edges and blobs of
    colour; the noise that an initial network consists of has `find_noise_share`. Kernels of zeros
    have a share of 0. Raises ValueError as `draw_kernels` does.
    """
    weights = _check_finite_weights(kernels)
    energy = np.square(np.abs(np.fft.fft2(weights))).sum(axis=(0, 1))
    low = energy[_find_low_frequencies(*weights.shape[2:])].sum()
    return float(low / energy.sum()) if energy.any() else 0.0


def find_noise_share(height: int, width: int) -> float:
    """Return the expected `compute_low_frequency_share` of white noise: 21/121 for 11 × 11.

    White noise has the same expected energy at all frequencies, so that the share is that of the
    frequencies that count as low.
    """
    return float(_find_low_frequencies(height, width).mean())


def _find_low_frequencies(height: int, width: int) -> npt.NDArray[np.bool_]:
    """Return which frequencies of the DFT are low: bool [height, width]."""
    radius = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.fftfreq(width)[None, :])
    low: npt.NDArray[np.bool_] = radius < LOW_FREQUENCY
    return low


@dataclass(frozen=True, kw_only=True)
class SelectivityContrast:
    """The difference between two GPUs' mean colour selectivities, and a permutation test of it.

    means: of each GPU. as_extreme: how many of `splits` random splits of all kernels into two
    halves have means at least as far apart.
    """

    means: tuple[float, float]
    as_extreme: int
    splits: int

    @property
    def difference(self) -> float:
        """The second GPU's mean minus the first's."""
        return self.means[1] - self.means[0]

    @property
    def p(self) -> float:
        """The p-value, which counts the actual split as one of the random ones."""
        return (self.as_extreme + 1) / (self.splits + 1)

    @property
    def by_chance(self) -> bool:
        """Whether the difference is not significant: p > 0.05."""
        return self.p > 0.05


def compare_selectivities(first: Sequence[float], second: Sequence[float]) -> SelectivityContrast:
    """Test the difference of two groups' means by permutation, with a fixed seed."""
    pooled, half = np.array([*first, *second]), len(first)
    means = float(np.mean(first)), float(np.mean(second))
    difference, as_extreme = abs(means[1] - means[0]), 0
    generator = np.random.default_rng(PERMUTATION_SEED)
    for start in range(0, PERMUTATION_SPLITS, SPLITS_PER_BATCH):
        count = min(SPLITS_PER_BATCH, PERMUTATION_SPLITS - start)
        shuffled = generator.permuted(np.broadcast_to(pooled, (count, len(pooled))), axis=1)
        differences = np.abs(shuffled[:, :half].mean(1) - shuffled[:, half:].mean(1))
        as_extreme += int((differences >= difference - 1e-12).sum())
    return SelectivityContrast(means=means, as_extreme=as_extreme, splits=PERMUTATION_SPLITS)


def compare_halves(conv1: SameKernels) -> SelectivityContrast:
    """Test whether the colour selectivity of conv1's two halves differs: float32 [N, 3, k, k]."""
    first, second = (compute_colour_selectivity(half).tolist() for half in split_towers(conv1))
    return compare_selectivities(first, second)


def _to_pixels(weights: npt.NDArray[np.float64]) -> npt.NDArray[np.uint8]:
    """Scale kernels to pixels: [N, 3, h, w] → uint8 [N, h, w, 3], as `draw_kernels` documents."""
    largest = np.abs(weights).max(axis=(1, 2, 3), keepdims=True)
    stretched = np.zeros(weights.shape)
    np.divide(weights, largest, out=stretched, where=largest > 0)
    return np.rint(128 + 127 * stretched).astype(np.uint8).transpose(0, 2, 3, 1)


def _check_finite_weights(kernels: Kernels) -> npt.NDArray[np.float64]:
    _check_shape(kernels)
    array = kernels if isinstance(kernels, np.ndarray) else kernels.detach().float().cpu().numpy()
    weights = np.asarray(array, dtype=np.float64)
    if not np.isfinite(weights).all():
        raise ValueError("the kernels contain NaN or infinity: the training diverged")
    return weights


def _check_shape(kernels: Kernels) -> None:
    if kernels.ndim != 4 or kernels.shape[1] != 3 or 0 in kernels.shape:
        raise ValueError(f"kernels must be [N, 3, height, width], not {list(kernels.shape)}")

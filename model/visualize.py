"""conv1's 96 kernels as pictures, a tower at a time, and how much colour each sees (Figure 3)."""

from typing import TypeVar

import numpy as np
import numpy.typing as npt
from PIL import Image
from torch import Tensor

KERNELS_PER_ROW = 8

Kernels = Tensor | npt.NDArray[np.float32]
SameKernels = TypeVar("SameKernels", Tensor, npt.NDArray[np.float32])


def split_towers(conv1: SameKernels, count: int = 2) -> tuple[SameKernels, ...]:
    """conv1's kernels, float32 [96, 3, 11, 11] → the 48 of GPU 1 and the 48 of GPU 2.

    count: how many towers the network has; those of one GPU have one. Raises ValueError for
    kernels that do not fall into so many equal parts, or of another shape.
    """
    _check(conv1)
    if len(conv1) % count:
        raise ValueError(f"conv1 must have as many kernels for each tower, not {len(conv1)} in all")
    own = len(conv1) // count
    return tuple(conv1[start : start + own] for start in range(0, len(conv1), own))


def draw_kernels(kernels: Kernels, scale: int = 4, gap: int = 4) -> Image.Image:
    """One tower's kernels, float32 [48, 3, 11, 11] → an RGBA picture, eight kernels a row.

    Each weight is a square of `scale` pixels, so a kernel is 44 pixels wide; `gap` transparent
    pixels lie between kernels and none around them: 380×284 pixels for the 48 of a tower.

    Zero is mid-grey, and each kernel is stretched about it by its own largest absolute weight, the
    three colours together: 128 + 127 · w / max|w|, rounded. So a weight's sign and hue can be
    read and weak kernels show their form, but strengths do not compare between kernels. A kernel
    of zeros is mid-grey all over. Raises ValueError for another shape or weights not finite.
    """
    weights = _array(kernels)
    tiles = _for_the_eye(weights).repeat(scale, axis=1).repeat(scale, axis=2)
    count, height, width, _ = tiles.shape
    columns, rows = min(KERNELS_PER_ROW, count), -(-count // KERNELS_PER_ROW)
    size = (columns * (width + gap) - gap, rows * (height + gap) - gap)
    picture = Image.new("RGBA", size, (0, 0, 0, 0))
    for number, tile in enumerate(tiles):
        row, column = divmod(number, KERNELS_PER_ROW)
        picture.paste(Image.fromarray(tile), (column * (width + gap), row * (height + gap)))
    return picture


def colour_selectivity(kernels: Kernels) -> npt.NDArray[np.float32]:
    """How much of what a kernel sees is colour: float32 [N], from 0 to 1, for [N, 3, h, w].

    The share of a kernel's energy Σw² that is orthogonal to the grey axis (1, 1, 1)/√3 at each of
    its places: 0 where red, green and blue weigh the same everywhere, 1 where they sum to zero
    everywhere. A kernel of zeros sees neither: 0. Raises ValueError as `kernel_picture` does.
    """
    weights = _array(kernels)
    energy = np.square(weights).sum(axis=(1, 2, 3))
    colour = np.square(weights - weights.mean(axis=1, keepdims=True)).sum(axis=(1, 2, 3))
    share = np.zeros(len(weights), dtype=np.float32)
    np.divide(colour, energy, out=share, where=energy > 0, casting="same_kind")
    return share


def _for_the_eye(weights: npt.NDArray[np.float64]) -> npt.NDArray[np.uint8]:
    """[N, 3, h, w] → uint8 [N, h, w, 3], by the rule of `kernel_picture`."""
    largest = np.abs(weights).max(axis=(1, 2, 3), keepdims=True)
    stretched = np.zeros(weights.shape)
    np.divide(weights, largest, out=stretched, where=largest > 0)
    return np.rint(128 + 127 * stretched).astype(np.uint8).transpose(0, 2, 3, 1)


def _array(kernels: Kernels) -> npt.NDArray[np.float64]:
    _check(kernels)
    held = kernels.detach().float().cpu().numpy() if isinstance(kernels, Tensor) else kernels
    weights = np.asarray(held, dtype=np.float64)
    if not np.isfinite(weights).all():
        raise ValueError("kernels hold weights that are not finite: the training has diverged")
    return weights


def _check(kernels: Kernels) -> None:
    if kernels.ndim != 4 or kernels.shape[1] != 3 or 0 in kernels.shape:
        raise ValueError(f"kernels must be [N, 3, height, width], not {list(kernels.shape)}")


MIN_INK = 14
"""Ink, of 255, where nothing responds, so that a map of zeros still shows where it lies."""


def draw_maps(
    maps: npt.NDArray[np.float32], columns: int, *, scale: int, largest: float, gap: int = 2
) -> Image.Image:
    """Maps, float32 [N, height, width], as a picture, row by row from the top left.

    Black ink on a transparent ground, so that a page in the dark can turn it white. A value gets
    ink by the square root of its distance from zero as a share of `largest`: weak responses show
    beside strong ones. Each value is a square of `scale` pixels; `gap` transparent pixels follow
    each map at its right and bottom, so that every map has the same share of the picture.
    """
    drawn = ink(maps, largest).repeat(scale, axis=1).repeat(scale, axis=2)
    cells = np.pad(drawn, ((0, -len(drawn) % columns), (0, gap), (0, gap)))
    _, height, width = cells.shape
    rows = cells.reshape(-1, columns, height, width).swapaxes(1, 2)
    return in_black(np.ascontiguousarray(rows).reshape(-1, columns * width))


def in_black(inked: npt.NDArray[np.uint8]) -> Image.Image:
    """Black as opaque as the ink: a picture of one byte a pixel, with a palette of 256 blacks."""
    picture = Image.fromarray(inked).convert("P")
    picture.putpalette(bytes(3 * 256))
    picture.info["transparency"] = bytes(range(256))
    return picture


def ink(values: npt.NDArray[np.float32], largest: float) -> npt.NDArray[np.uint8]:
    """How much ink of 255 each value gets, from faint for zero to all for the largest."""
    share = np.minimum(np.abs(values) / largest, 1) if largest > 0 else np.zeros_like(values)
    inked: npt.NDArray[np.uint8] = np.rint(MIN_INK + (255 - MIN_INK) * np.sqrt(share)).astype(
        np.uint8
    )
    return inked

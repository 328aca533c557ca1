"""Feature maps and responses as pictures: black ink on a transparent background."""

import numpy as np
import numpy.typing as npt
from PIL import Image

from model.visualization.kernels import KERNELS_PER_ROW

MIN_INK = 14
"""Ink, of 255, for a response of zero, so that even a map of zeros shows where it lies."""


def draw_maps(
    maps: npt.NDArray[np.float32], columns: int, *, scale: int, largest: float, gap: int = 2
) -> Image.Image:
    """Draw maps, float32 [N, height, width], row by row from the top left.

    Black ink on a transparent background, so that a dark page can invert it. The amount of ink is
    the square root of a value's magnitude relative to `largest`, so that weak responses show
    beside strong ones. Each value is a square of `scale` pixels; `gap` transparent pixels follow
    each map on its right and bottom, so that every map takes the same share of the picture.
    """
    drawn = compute_ink(maps, largest).repeat(scale, axis=1).repeat(scale, axis=2)
    cells = np.pad(drawn, ((0, -len(drawn) % columns), (0, gap), (0, gap)))
    _, height, width = cells.shape
    rows = cells.reshape(-1, columns, height, width).swapaxes(1, 2)
    return ink_to_image(np.ascontiguousarray(rows).reshape(-1, columns * width))


def draw_responses(
    maps: npt.NDArray[np.float32], largest: float, side: int, step: int
) -> Image.Image:
    """Draw the responses of kernels, float32 [N, height, width], to lie over `draw_kernels`.

    Black ink, none for a response of zero; otherwise as `draw_maps`. Each is `side` pixels wide,
    and `step` pixels lie from one to the next.
    """
    rows, columns = -(-len(maps) // KERNELS_PER_ROW), min(len(maps), KERNELS_PER_ROW)
    ink = np.zeros((step * (rows - 1) + side, step * (columns - 1) + side), np.uint8)
    share = np.clip(maps / largest, 0, 1) if largest > 0 else np.zeros_like(maps)
    for number, one in enumerate(np.rint(255 * np.sqrt(share)).astype(np.uint8)):
        top, left = (step * at for at in divmod(number, KERNELS_PER_ROW))
        small = Image.fromarray(one).resize((side, side), Image.Resampling.BOX)
        ink[top : top + side, left : left + side] = np.asarray(small)
    return ink_to_image(ink)


def ink_to_image(ink: npt.NDArray[np.uint8]) -> Image.Image:
    """Convert ink to a black image with the ink as opacity, using one byte per pixel."""
    picture = Image.fromarray(ink).convert("P")
    picture.putpalette(bytes(3 * 256))
    picture.info["transparency"] = bytes(range(256))
    return picture


def compute_ink(values: npt.NDArray[np.float32], largest: float) -> npt.NDArray[np.uint8]:
    """Compute the ink of each value, from MIN_INK for zero to 255 for the largest."""
    share = np.minimum(np.abs(values) / largest, 1) if largest > 0 else np.zeros_like(values)
    ink: npt.NDArray[np.uint8] = np.rint(MIN_INK + (255 - MIN_INK) * np.sqrt(share)).astype(
        np.uint8
    )
    return ink

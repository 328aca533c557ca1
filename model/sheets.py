"""Maps as small greys in one picture: the stronger a response, the more ink it gets."""

import numpy as np
import numpy.typing as npt
from PIL import Image

from model.predict import Floats

FAINT = 14
"""Ink, of 255, where nothing responds, so that a map of zeros still shows where it lies."""


def sheet(maps: Floats, columns: int, *, scale: int, largest: float, gap: int = 2) -> Image.Image:
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


def ink(values: Floats, largest: float) -> npt.NDArray[np.uint8]:
    """How much ink of 255 each value gets, from faint for zero to all for the largest."""
    share = np.minimum(np.abs(values) / largest, 1) if largest > 0 else np.zeros_like(values)
    inked: npt.NDArray[np.uint8] = np.rint(FAINT + (255 - FAINT) * np.sqrt(share)).astype(np.uint8)
    return inked

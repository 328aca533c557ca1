"""Bytes → upright RGB → short side 256, central 256×256 → minus the mean → crops (§2, §4.1).

256 and 224 are the paper's; other networks (Caffe's 227, CIFAR-10's 32 and 24) name their own.

The one implementation of how an image reaches the network: training, index and app all use it,
so a photograph gives the same numbers wherever it comes in. What may come in, and how it is
decoded, is in `decoding.py`.
"""

import math
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor

from model.config import SQUARE_SIDE
from model.decode import MAX_PIXELS, ImageError, decode_image


def decode_square(
    data: bytes, *, side: int = SQUARE_SIDE, max_pixels: int = MAX_PIXELS
) -> npt.NDArray[np.uint8]:
    """The bytes of a JPEG, PNG or WebP → uint8 [side, side, 3], or ImageError."""
    return central_square(decode_image(data, max_pixels=max_pixels), side)


def read_square(
    path: Path, *, side: int = SQUARE_SIDE, max_pixels: int = MAX_PIXELS
) -> npt.NDArray[np.uint8]:
    """As `read`, from a file; ImageError begins with its path, also where it cannot be opened."""
    try:
        return decode_square(path.read_bytes(), side=side, max_pixels=max_pixels)
    except ImageError as error:
        raise ImageError(f"{path}: {error}", error.reason) from error
    except OSError as error:
        why = error.strerror or type(error).__name__
        raise ImageError(f"{path}: The file cannot be opened: {why}.", "damaged") from error


def central_square(image: Image.Image, side: int = SQUARE_SIDE) -> npt.NDArray[np.uint8]:
    """An RGB image of any size → its central square, uint8 [side, side, 3], side 256 in §2.

    The same pixels as scaling the short side to 256 (and the long side to the nearest whole
    number) with Pillow's bicubic filter, a = -0.5, which widens to antialias when it shrinks:
    first across, then down, rounded to the nearest of 0…255 after each. Then the central 256×256
    is cut (an odd pixel more is left at the right or bottom). Only what the square needs is
    computed, so a strip costs little. An image smaller than 256 is enlarged by the same filter.
    Raises ValueError for a mode other than RGB.
    """
    if image.mode != "RGB":
        raise ValueError(f"central_square takes an RGB image, as decode gives, not {image.mode}")
    short = min(image.size)
    (left, right), (top, bottom) = (_span(length, short, side) for length in image.size)
    box = (left, top, right, bottom)
    if max(image.size) > LONGEST:
        image, box = _around(image, box)
    return np.array(_resized(image, box, side))


def _span(length: int, short: int, side: int) -> tuple[float, float]:
    """The part of a length, in its own pixels, that the central `side` of it scaled come from."""
    scaled = round(side * length / short)
    first = (scaled - side) // 2
    return first * length / scaled, (first + side) * length / scaled


Box = tuple[float, float, float, float]


def _resized(image: Image.Image, box: Box, side: int) -> Image.Image:
    """The box of the image as a square, first across, then down.

    In one call Pillow takes first whichever direction is cheaper for the shape and the box, and
    bytes clipped between the passes would come out differently with the box than without.
    """
    left, top, right, bottom = box
    across = (left, 0, right, image.height)
    rows = image.resize((side, image.height), Image.Resampling.BICUBIC, box=across)
    return rows.resize((side, side), Image.Resampling.BICUBIC, box=(0, top, side, bottom))


LONGEST = 2**14  # pixels; Pillow holds the box in 32-bit floats, which are coarse beyond this


def _around(image: Image.Image, box: Box) -> tuple[Image.Image, Box]:
    """The image cut to the box and a margin wider than the filter; the box, counted from there."""
    margin = min(image.size) + 4
    left, top = (max(0, math.floor(low) - margin) for low in box[:2])
    ends = zip(box[2:], image.size, strict=True)
    right, bottom = (min(side, math.ceil(high) + margin) for high, side in ends)
    near = image.crop((left, top, right, bottom))
    return near, (box[0] - left, box[1] - top, box[2] - left, box[3] - top)


def subtract_mean(pixels: Tensor, mean: Tensor) -> Tensor:
    """uint8 [N, s, s, 3] → float32 [N, 3, s, s], in the memory format channels_last.

    Raw 0…255 minus the mean image of the training set, float32 [3, s, s] (§2). Raises
    ValueError for other shapes or dtypes, and where the two sides differ.
    """
    side = mean.shape[-1] if mean.ndim else 0
    if mean.dtype != torch.float32 or mean.shape != (3, side, side):
        raise ValueError(f"mean must be float32 [3, s, s], not {_described(mean)}")
    if pixels.dtype != torch.uint8 or pixels.ndim != 4 or pixels.shape[1:] != (side, side, 3):
        wanted = f"pixels must be uint8 [N, {side}, {side}, 3] as the mean is"
        raise ValueError(f"{wanted}, not {_described(pixels)}")
    return pixels.permute(0, 3, 1, 2).to(torch.float32) - mean


def _described(x: Tensor) -> str:
    return f"{x.dtype} {list(x.shape)}".removeprefix("torch.")

"""Bytes → upright RGB → short side 256, central 256×256 → minus the mean → crops (§2, §4.1).

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

from model.decoding import MAX_PIXELS, ImageError, decode

__all__ = [
    "CROP",
    "MAX_PIXELS",
    "OFFSETS",
    "SIDE",
    "ImageError",
    "central_square",
    "centre_crop",
    "decode",
    "read",
    "read_file",
    "subtract_mean",
    "ten_crops",
]

SIDE = 256
CROP = 224
OFFSETS = ((0, 0), (0, 32), (32, 0), (32, 32), (16, 16))
"""The (top, left) of the four corner crops and the centre crop (§4.1)."""


def read(data: bytes, *, max_pixels: int = MAX_PIXELS) -> npt.NDArray[np.uint8]:
    """The bytes of a JPEG, PNG or WebP → uint8 [256, 256, 3], or ImageError."""
    return central_square(decode(data, max_pixels=max_pixels))


def read_file(path: Path, *, max_pixels: int = MAX_PIXELS) -> npt.NDArray[np.uint8]:
    """As `read`, from a file; ImageError begins with its path, also where it cannot be opened."""
    try:
        return read(path.read_bytes(), max_pixels=max_pixels)
    except ImageError as error:
        raise ImageError(f"{path}: {error}", error.reason) from error
    except OSError as error:
        why = error.strerror or type(error).__name__
        raise ImageError(f"{path}: The file cannot be opened: {why}.", "damaged") from error


def central_square(image: Image.Image) -> npt.NDArray[np.uint8]:
    """An RGB image of any size → its central square, uint8 [256, 256, 3] (§2).

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
    (left, right), (top, bottom) = (_span(side, short) for side in image.size)
    box = (left, top, right, bottom)
    if max(image.size) > LONGEST:
        image, box = _around(image, box)
    return np.array(_resized(image, box))


def _span(side: int, short: int) -> tuple[float, float]:
    """The part of a side, in its own pixels, that the central 256 of the scaled side come from."""
    scaled = round(SIDE * side / short)
    first = (scaled - SIDE) // 2
    return first * side / scaled, (first + SIDE) * side / scaled


Box = tuple[float, float, float, float]


def _resized(image: Image.Image, box: Box) -> Image.Image:
    """The box of the image as 256×256, first across, then down.

    In one call Pillow takes first whichever direction is cheaper for the shape and the box, and
    bytes clipped between the passes would come out differently with the box than without.
    """
    left, top, right, bottom = box
    across = (left, 0, right, image.height)
    rows = image.resize((SIDE, image.height), Image.Resampling.BICUBIC, box=across)
    return rows.resize((SIDE, SIDE), Image.Resampling.BICUBIC, box=(0, top, SIDE, bottom))


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
    """uint8 [N, 256, 256, 3] → float32 [N, 3, 256, 256], in the memory format channels_last.

    Raw 0…255 minus the mean image of the training set, float32 [3, 256, 256] (§2). Raises
    ValueError for other shapes or dtypes.
    """
    _check("pixels", pixels, torch.uint8, (SIDE, SIDE, 3))
    if mean.dtype != torch.float32 or mean.shape != (3, SIDE, SIDE):
        raise ValueError(f"mean must be float32 [3, 256, 256], not {_described(mean)}")
    return pixels.permute(0, 3, 1, 2).to(torch.float32) - mean


def ten_crops(x: Tensor) -> Tensor:
    """float32 [N, 3, 256, 256] → float32 [N, 10, 3, 224, 224] (§4.1).

    The four corner crops (top left, top right, bottom left, bottom right), the centre crop, then
    the mirrors of these five in the same order. Raises ValueError for other shapes or dtypes.
    """
    _check("x", x, torch.float32, (3, SIDE, SIDE))
    five = torch.stack([_crop(x, top, left) for top, left in OFFSETS], dim=1)
    return torch.cat([five, five.flip(-1)], dim=1)


def centre_crop(x: Tensor) -> Tensor:
    """float32 [N, 3, 256, 256] → its central float32 [N, 3, 224, 224]; ValueError otherwise."""
    _check("x", x, torch.float32, (3, SIDE, SIDE))
    return _crop(x, *OFFSETS[4])


def _crop(x: Tensor, top: int, left: int) -> Tensor:
    return x[..., top : top + CROP, left : left + CROP]


def _check(name: str, x: Tensor, dtype: torch.dtype, shape: tuple[int, int, int]) -> None:
    if x.dtype != dtype or x.ndim != 4 or x.shape[1:] != shape:
        wanted = f"{dtype} [N, {', '.join(map(str, shape))}]".removeprefix("torch.")
        raise ValueError(f"{name} must be {wanted}, not {_described(x)}")


def _described(x: Tensor) -> str:
    return f"{x.dtype} {list(x.shape)}".removeprefix("torch.")

"""From an image to the network's input: short side 256, central 256×256, minus the mean (§2).

256 is the paper's size; other networks (CIFAR-10's 32) set their own in the configuration.

This is the only implementation: training, index and app all use it, so a photograph gives the
same numbers wherever it comes from. decode.py decides which bytes are accepted and how they are
decoded; ten_crop.py cuts the crops that the network sees.
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
    """Decode a JPEG, PNG or WebP into its central square, uint8 [side, side, 3].

    Raises ImageError.
    """
    return cut_central_square(decode_image(data, max_pixels=max_pixels), side)


def read_square(
    path: Path, *, side: int = SQUARE_SIDE, max_pixels: int = MAX_PIXELS
) -> npt.NDArray[np.uint8]:
    """Read a file like `decode_square`: uint8 [side, side, 3].

    Raises ImageError, its message beginning with the path, also if the file cannot be opened.
    """
    try:
        return decode_square(path.read_bytes(), side=side, max_pixels=max_pixels)
    except ImageError as error:
        raise ImageError(f"{path}: {error}", error.reason) from error
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise ImageError(f"{path}: The file cannot be opened: {reason}.", "damaged") from error


def cut_central_square(image: Image.Image, side: int = SQUARE_SIDE) -> npt.NDArray[np.uint8]:
    """Scale an RGB image and cut its central square, uint8 [side, side, 3]; 256 in §2.

    The short side is scaled to 256 and the long side to the nearest whole number, with Pillow's
    bicubic filter, a = -0.5, which widens when it shrinks, against aliasing: first horizontally,
    then vertically, each time rounded to the nearest of 0…255. Then the central 256×256 is cut;
    of an odd number of surplus pixels the extra one is at the right or bottom. Only the pixels
    that the square needs are computed, so long strips are cheap. An image smaller than 256 is
    enlarged by the same filter. Raises ValueError for a mode other than RGB.
    """
    if image.mode != "RGB":
        raise ValueError(
            f"cut_central_square takes an RGB image, as decode_image returns, not {image.mode}"
        )
    short = min(image.size)
    (left, right), (top, bottom) = (_find_source_span(length, short, side) for length in image.size)
    box = (left, top, right, bottom)
    if max(image.size) > MAX_BOX_SIDE:
        image, box = _crop_around(image, box)
    return np.array(_resize_box(image, box, side))


def _find_source_span(length: int, short: int, side: int) -> tuple[float, float]:
    """The part of a length, in its own pixels, that the scaled central `side` comes from."""
    scaled = round(side * length / short)
    first = (scaled - side) // 2
    return first * length / scaled, (first + side) * length / scaled


Box = tuple[float, float, float, float]


def _resize_box(image: Image.Image, box: Box, side: int) -> Image.Image:
    """Resize a box of the image to a square, first horizontally, then vertically.

    In a single call Pillow starts with the direction that is cheaper for the shape and the box,
    and bytes clipped between the passes would differ with and without the box.
    """
    left, top, right, bottom = box
    across = (left, 0, right, image.height)
    rows = image.resize((side, image.height), Image.Resampling.BICUBIC, box=across)
    return rows.resize((side, side), Image.Resampling.BICUBIC, box=(0, top, side, bottom))


MAX_BOX_SIDE = 2**14
"""Pixels; beyond this Pillow's boxes, of 32-bit floats, are too coarse."""


def _crop_around(image: Image.Image, box: Box) -> tuple[Image.Image, Box]:
    """Crop to the box plus a margin wider than the filter; also return the box within that crop."""
    margin = min(image.size) + 4
    left, top = (max(0, math.floor(low) - margin) for low in box[:2])
    ends = zip(box[2:], image.size, strict=True)
    right, bottom = (min(side, math.ceil(high) + margin) for high, side in ends)
    near = image.crop((left, top, right, bottom))
    return near, (box[0] - left, box[1] - top, box[2] - left, box[3] - top)


def subtract_mean(pixels: Tensor, mean: Tensor) -> Tensor:
    """Subtract the training set's mean image, float32 [3, s, s], from raw pixels 0…255 (§2).

    uint8 [N, s, s, 3] → float32 [N, 3, s, s], in the memory format channels_last. Raises
    ValueError for other shapes or dtypes, or if the two sides differ.
    """
    side = mean.shape[-1] if mean.ndim else 0
    if mean.dtype != torch.float32 or mean.shape != (3, side, side):
        raise ValueError(f"mean must be float32 [3, s, s], not {_describe(mean)}")
    if pixels.dtype != torch.uint8 or pixels.ndim != 4 or pixels.shape[1:] != (side, side, 3):
        wanted = f"pixels must be uint8 [N, {side}, {side}, 3] as the mean is"
        raise ValueError(f"{wanted}, not {_describe(pixels)}")
    return pixels.permute(0, 3, 1, 2).to(torch.float32) - mean


def _describe(x: Tensor) -> str:
    return f"{x.dtype} {list(x.shape)}".removeprefix("torch.")

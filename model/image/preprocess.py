"""From an image to the network's input: short side 256, central 256×256, minus the mean (§2).

256 is the paper's size; other networks (CIFAR-10's 32) set their own in the configuration, and
other authors' networks another way to the square as well (`model.network.config.Resize`).

This is the only implementation: training, index and app all use it, so a photograph gives the
same numbers wherever it comes from. decode.py decides which bytes are accepted and how they are
decoded; ten_crop.py cuts the crops that the network sees.
"""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
import numpy.typing as npt
from PIL import Image

from model.image.decode import MAX_PIXELS, ImageError, decode_image
from model.network.config import CROP_SIDE, SQUARE_SIDE, Resize

# Whoever only makes squares should not wait for torch, as the processes that decode uploads.
if TYPE_CHECKING:
    from torch import Tensor

CENTRE_CROP = 4
"""The index, among the ten crops or the nine, of the centre crop that is not mirrored."""


def decode_square(
    data: bytes,
    *,
    side: int = SQUARE_SIDE,
    resize: Resize = "bicubic",
    max_pixels: int = MAX_PIXELS,
    trusted: bool = False,
) -> npt.NDArray[np.uint8]:
    """Decode an image into its central square, or warp it: uint8 [side, side, 3].

    trusted: as in `decode_image`. Raises ImageError.
    """
    return make_square(decode_image(data, max_pixels=max_pixels, trusted=trusted), side, resize)


def read_square(
    path: Path,
    *,
    side: int = SQUARE_SIDE,
    resize: Resize = "bicubic",
    max_pixels: int = MAX_PIXELS,
) -> npt.NDArray[np.uint8]:
    """Read one of the owner's own files like `decode_square`: uint8 [side, side, 3].

    Raises ImageError, its message beginning with the path, also if the file cannot be opened.
    """
    try:
        return decode_square(
            path.read_bytes(), side=side, resize=resize, max_pixels=max_pixels, trusted=True
        )
    except ImageError as error:
        raise ImageError(f"{path}: {error}", error.reason) from error
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise ImageError(f"{path}: The file cannot be opened: {reason}.", "damaged") from error


def make_square(
    image: Image.Image, side: int = SQUARE_SIDE, resize: Resize = "bicubic"
) -> npt.NDArray[np.uint8]:
    """Make the square that crops are cut from, uint8 [side, side, 3], out of an RGB image.

    resize: how, as in AlexNetConfig. Raises ValueError for a mode other than RGB.
    """
    if resize == "warp":
        return warp_to_square(image, side)
    return cut_central_square(image, side, resize)


def cut_central_square(
    image: Image.Image, side: int = SQUARE_SIDE, resize: Literal["bicubic", "bilinear"] = "bicubic"
) -> npt.NDArray[np.uint8]:
    """Scale an RGB image and cut its central square, uint8 [side, side, 3]; 256 in §2.

    The short side is scaled to 256 and the long side to the nearest whole number, with Pillow's
    bicubic filter, a = -0.5, which widens when it shrinks, against aliasing: first horizontally,
    then vertically, each time rounded to the nearest of 0…255. Then the central 256×256 is cut;
    of an odd number of surplus pixels the extra one is at the right or bottom. Only the pixels
    that the square needs are computed, so long strips are cheap. An image smaller than 256 is
    enlarged by the same filter. "bilinear": with that filter and torchvision's rounding instead,
    down for the long side, and half a pixel of surplus to the nearest even number. Raises
    ValueError for a mode other than RGB.
    """
    _check_rgb(image)
    short = min(image.size)
    span = _find_source_span if resize == "bicubic" else _find_torchvision_span
    (left, right), (top, bottom) = (span(length, short, side) for length in image.size)
    box = (left, top, right, bottom)
    if max(image.size) > MAX_BOX_SIDE:
        image, box = _crop_around(image, box)
    return np.array(_resize_box(image, box, side, FILTERS[resize]))


FILTERS = {"bicubic": Image.Resampling.BICUBIC, "bilinear": Image.Resampling.BILINEAR}


def _find_source_span(length: int, short: int, side: int) -> tuple[float, float]:
    """The part of a length, in its own pixels, that the scaled central `side` comes from."""
    scaled = round(side * length / short)
    first = (scaled - side) // 2
    return first * length / scaled, (first + side) * length / scaled


def _find_torchvision_span(length: int, short: int, side: int) -> tuple[float, float]:
    """The same with the rounding of torchvision's Resize and CenterCrop."""
    scaled = side * length // short
    first = round((scaled - side) / 2)
    return first * length / scaled, (first + side) * length / scaled


Box = tuple[float, float, float, float]


def _resize_box(image: Image.Image, box: Box, side: int, kernel: Image.Resampling) -> Image.Image:
    """Resize a box of the image to a square, first horizontally, then vertically.

    In a single call Pillow starts with the direction that is cheaper for the shape and the box,
    and bytes clipped between the passes would differ with and without the box.
    """
    left, top, right, bottom = box
    across = (left, 0, right, image.height)
    rows = image.resize((side, image.height), kernel, box=across)
    return rows.resize((side, side), kernel, box=(0, top, side, bottom))


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


def warp_to_square(image: Image.Image, side: int = SQUARE_SIDE) -> npt.NDArray[np.uint8]:
    """Scale width and height of an RGB image to the square's: uint8 [side, side, 3].

    Each value is interpolated bilinearly between the four pixels around its place, even where the
    image shrinks: what OpenCV's `resize` does by default, with which Caffe's training sets were
    made. Raises ValueError for a mode other than RGB.
    """
    _check_rgb(image)
    (left, right, across), (top, bottom, down) = (
        _find_neighbours(length, side) for length in image.size
    )
    pixels = np.asarray(image)
    columns = np.concatenate((left, right))  # of a long strip only these, to save memory
    upper, lower = pixels[top[:, None], columns], pixels[bottom[:, None], columns]
    rows = _interpolate(upper, lower, down[:, None, None])
    square = _interpolate(rows[:, :side], rows[:, side:], across[:, None])
    return np.rint(square).astype(np.uint8, order="C")


Indices = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float32]


def _find_neighbours(length: int, side: int) -> tuple[Indices, Indices, Floats]:
    """For each pixel of the square, along one side, the two it lies between, and how far on."""
    places = (np.arange(side) + 0.5) * (length / side) - 0.5
    first = np.floor(places).astype(np.int64)
    last = length - 1
    share = (places - first).astype(np.float32)
    return first.clip(0, last), (first + 1).clip(0, last), share


def _interpolate(
    first: npt.NDArray[np.generic], second: npt.NDArray[np.generic], share: Floats
) -> Floats:
    """Return the values between two arrays."""
    start: Floats = first.astype(np.float32)
    return start + share * (second.astype(np.float32) - start)


def _check_rgb(image: Image.Image) -> None:
    if image.mode != "RGB":
        raise ValueError(f"an RGB image is needed, as decode_image returns, not {image.mode}")


def crop_offsets(side: int = SQUARE_SIDE, crop: int = CROP_SIDE) -> tuple[tuple[int, int], ...]:
    """Return (top, left) of the four corner crops and the centre crop of a square (§4.1).

    Raises ValueError for a crop larger than the square.
    """
    margin = side - crop
    if margin < 0:
        raise ValueError(f"no crop of {crop}×{crop} pixels fits into {side}×{side}")
    middle = margin // 2
    return ((0, 0), (0, margin), (margin, 0), (margin, margin), (middle, middle))


def subtract_mean(pixels: "Tensor", mean: "Tensor") -> "Tensor":
    """Subtract the training set's mean image, float32 [3, s, s], from raw pixels 0…255 (§2).

    uint8 [N, s, s, 3] → float32 [N, 3, s, s], in the memory format channels_last. Raises
    ValueError for other shapes or dtypes, or if the two sides differ.
    """
    import torch

    side = mean.shape[-1] if mean.ndim else 0
    if mean.dtype != torch.float32 or mean.shape != (3, side, side):
        raise ValueError(f"mean must be float32 [3, s, s], not {_describe(mean)}")
    if pixels.dtype != torch.uint8 or pixels.ndim != 4 or pixels.shape[1:] != (side, side, 3):
        wanted = f"pixels must be uint8 [N, {side}, {side}, 3] as the mean is"
        raise ValueError(f"{wanted}, not {_describe(pixels)}")
    return pixels.permute(0, 3, 1, 2).to(torch.float32) - mean


def scale_pixels(pixels: "Tensor", scale: float, channel_scales: Sequence[float]) -> "Tensor":
    """Divide mean-free pixels, float32 [N, 3, s, s], in place.

    scale, channel_scales: AlexNetConfig's input_scale and channel_scales.
    """
    import torch

    if not channel_scales:
        return pixels.div_(scale)
    scales = torch.tensor(channel_scales, dtype=pixels.dtype, device=pixels.device)
    return pixels.div_(scale * scales[:, None, None])


def _describe(x: "Tensor") -> str:
    return f"{x.dtype} {list(x.shape)}".removeprefix("torch.")

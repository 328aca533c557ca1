"""From the modes that images decode to, to an upright RGB image on white."""

from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from model.image.containers.container import Canvas

WHITE, BLACK = (255, 255, 255), (0, 0, 0)


def convert_to_rgb(image: Image.Image, raw_mode: str) -> Image.Image:
    """Convert any mode that the formats can have to RGB; `raw_mode` is how PNG stored it."""
    key = _convert_transparent_value(image.info.pop("transparency", None), raw_mode)
    if image.mode.startswith("I"):
        return Image.fromarray(_take_high_byte(np.asarray(image), key)).convert("RGB")
    if key is not None:
        image.info["transparency"] = key
    if key is not None or image.mode in {"LA", "PA"}:
        return _composite_on_white(image.convert("RGBA"))
    if image.mode == "RGBA":
        return _composite_on_white(image)
    return image if image.mode == "RGB" else image.convert("RGB")


def place_on_canvas(image: Image.Image, canvas: Canvas) -> Image.Image:
    """Convert an animation's first picture to RGB and place it on its canvas."""
    image = convert_to_rgb(image, "") if canvas.transparent else image.convert("RGB")
    if image.size == (canvas.width, canvas.height):
        return image
    whole = Image.new("RGB", (canvas.width, canvas.height), WHITE if canvas.transparent else BLACK)
    whole.paste(image, (canvas.left, canvas.top))
    return whole


def _convert_transparent_value(key: object, raw_mode: str) -> Any:
    """PNG's transparent value (tRNS), in the units of the pixels that Pillow unpacked."""
    if isinstance(key, int):
        return key * {"L;2": 85, "L;4": 17}.get(raw_mode, 1)
    if isinstance(key, tuple):
        return tuple(value >> 8 for value in key) if raw_mode == "RGB;16B" else key
    return key if isinstance(key, bytes) else None  # a palette's alpha values


def _take_high_byte(grey: npt.NDArray[Any], transparent: int | None) -> npt.NDArray[np.uint8]:
    high = (grey >> 8).astype(np.uint8)
    if transparent is not None:
        high[grey == transparent] = 255
    return high


def _composite_on_white(rgba: Image.Image) -> Image.Image:
    white = Image.new("RGB", rgba.size, WHITE)
    white.paste(rgba, mask=rgba)
    return white


TRANSPOSITIONS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def apply_orientation(image: Image.Image, orientation: int) -> Image.Image:
    """Turn an image upright by its EXIF orientation, 1 to 8, and forget what else Pillow read."""
    if orientation in TRANSPOSITIONS:
        image = image.transpose(TRANSPOSITIONS[orientation])
    image.info.clear()  # the orientation has been applied; the rest is private
    return image

"""Decode untrusted bytes into an upright RGB image, with all the checks that this needs.

The format is recognised by the first bytes, not by the file's name. JPEG, PNG and WebP are read,
each by calling its Pillow plugin directly, so that no other plugin is ever tried. The size is
checked in the header, before any pixel is decoded. No global setting of Pillow is changed.

Colour profiles are ignored: the paper does nothing to the pixels except subtract their mean (§2).
"""

import io
import re
import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageFile, JpegImagePlugin, PngImagePlugin, WebPImagePlugin

MAX_PIXELS = 50_000_000
"""Width × height of the largest image that is decoded by default."""

ImageFault = Literal["empty", "unknown", "too-large", "damaged"]


class ImageError(ValueError):
    """An image that cannot be used. Its message says why, and what is accepted.

    reason: "empty" (no bytes), "unknown" (not a JPEG, PNG or WebP), "too-large" (too many pixels,
            or too costly to decode) or "damaged" (truncated, broken or unreadable).
    """

    def __init__(self, message: str, reason: ImageFault = "damaged") -> None:
        super().__init__(message)
        self.reason: ImageFault = reason


def decode_image(data: bytes, *, max_pixels: int = MAX_PIXELS) -> Image.Image:
    """Decode a JPEG, PNG or WebP into an RGB image, rotated as its EXIF orientation says.

    - Of an MPO (some phones' JPEG), or an animated WebP or PNG, the first picture is used.
    - 16-bit channels keep only their high byte, in grey and in colour images.
    - Transparency of any kind is composited on white.
    - CMYK JPEGs are read as Adobe writes them, inverted, as Pillow and browsers do.
    - Broken EXIF is not an error: the image keeps its stored orientation.

    Raises ImageError; more than `max_pixels` pixels are rejected before decoding.
    """
    kind = _detect_kind(data)
    with _convert_pillow_errors(kind):
        if kind == "JPEG":
            _check_scans(data)
        image = PLUGINS[kind](io.BytesIO(data))
        _check_size(image.size, max_pixels)
        raw_mode = str(image.tile[0].args) if image.tile else ""
        image.load()
        return _apply_orientation(
            _convert_to_rgb(image, raw_mode), _read_orientation(image.info.get("exif"))
        )


class ImageHeader(NamedTuple):
    """What an image's header says: its kind (JPEG, PNG or WebP) and upright size in pixels."""

    kind: str
    width: int
    height: int


def read_image_header(data: bytes) -> ImageHeader:
    """Read kind and size without decoding, regardless of the number of pixels.

    The pixels may still be damaged. The size is that of `decode_image`, except for a
    PNG whose EXIF follows its pixels: then it is the stored size. Raises ImageError.
    """
    kind = _detect_kind(data)
    with _convert_pillow_errors(kind):
        image = PLUGINS[kind](io.BytesIO(data))
        turned = _read_orientation(image.info.get("exif")) in {5, 6, 7, 8}
        width, height = image.size
        return ImageHeader(kind, height, width) if turned else ImageHeader(kind, width, height)


ACCEPTED = "JPEG, PNG and WebP images are accepted."


class _Jpeg(JpegImagePlugin.JpegImageFile):
    """A JPEG without Pillow's search for the resolution, which warns about EXIF it cannot read.

    Used directly, it also reads an MPO as the JPEG that it begins with.
    """

    def _read_dpi_from_exif(self) -> None:
        pass


PLUGINS: dict[str, type[ImageFile.ImageFile]] = {
    "JPEG": _Jpeg,
    "PNG": PngImagePlugin.PngImageFile,
    "WebP": WebPImagePlugin.WebPImageFile,
}
SIGNATURES = {
    "JPEG": re.compile(rb"\xff\xd8\xff"),
    "PNG": re.compile(rb"\x89PNG\r\n\x1a\n"),
    "WebP": re.compile(rb"RIFF....WEBP", re.DOTALL),
}
OTHER_SIGNATURES = {
    "GIF": re.compile(rb"GIF8"),
    "BMP": re.compile(rb"BM"),
    "TIFF": re.compile(rb"II\*\0|MM\0\*"),
    "HEIC": re.compile(rb"....ftyp(hei|hev|mif|msf)", re.DOTALL),
    "AVIF": re.compile(rb"....ftypavi", re.DOTALL),
    "PDF": re.compile(rb"%PDF"),
    "SVG": re.compile(rb"\s*(<\?xml[^>]*>\s*)?<svg"),
}


def _detect_kind(data: bytes) -> str:
    if not data:
        raise ImageError(f"The file is empty. {ACCEPTED}", "empty")
    for kind, signature in SIGNATURES.items():
        if signature.match(data):
            return kind
    for other, signature in OTHER_SIGNATURES.items():
        if signature.match(data):
            raise ImageError(f"{other} cannot be read; save it as JPEG, PNG or WebP.", "unknown")
    raise ImageError(f"The file is not an image that can be read. {ACCEPTED}", "unknown")


# What Pillow's three plugins and their decoders raise on broken bytes. They parse as they go and
# do not wrap exceptions: IndexError and KeyError are LookupErrors, a decoder's complaint about its
# arguments is a SystemError. UserWarning is for interpreters that turn warnings into errors.
PILLOW_ERRORS = (
    *(ArithmeticError, AssertionError, AttributeError, EOFError, LookupError, OSError),
    *(RuntimeError, SyntaxError, SystemError, TypeError, ValueError, UserWarning),
    *(struct.error, zlib.error),
)


@contextmanager
def _convert_pillow_errors(kind: str) -> Iterator[None]:
    try:
        yield
    except ImageError:
        raise
    except (MemoryError, Image.DecompressionBombError) as error:
        message = f"The {kind} has too many pixels to decode. Make it smaller and try again."
        raise ImageError(message, "too-large") from error
    except PILLOW_ERRORS as error:
        message = f"The {kind} is damaged or truncated and cannot be read. {ACCEPTED}"
        raise ImageError(message, "damaged") from error


def _check_size(size: tuple[int, int], max_pixels: int) -> None:
    width, height = size
    if width * height > max_pixels:
        raise ImageError(
            f"The image has {width:,} × {height:,} pixels, {width * height / 1e6:,.1f} million; "
            f"at most {max_pixels / 1e6:,.1f} million are accepted. Make it smaller and try again.",
            "too-large",
        )


MAX_SCANS = 100  # a progressive JPEG has about ten
MARKER = re.compile(rb"\xff[^\x00\x01\xff\xd0-\xd7]", re.DOTALL)  # those with a length, and EOI


def _check_scans(data: bytes) -> None:
    """Reject a JPEG of thousands of scans: each is a few bytes, and a pass over all the pixels."""
    at, scans = 2, 0
    while (marker := MARKER.search(data, at)) and marker.group() != b"\xff\xd9":
        scans += marker.group() == b"\xff\xda"
        at = marker.end() + int.from_bytes(data[marker.end() : marker.end() + 2], "big")
    if scans > MAX_SCANS:
        raise ImageError(
            f"The JPEG would take too long to decode: it has {scans:,} scans, at most {MAX_SCANS} "
            "are accepted. Save it again as an ordinary JPEG.",
            "too-large",
        )


def _convert_to_rgb(image: Image.Image, raw_mode: str) -> Image.Image:
    """Convert any mode that the three formats can have to RGB; `raw_mode` is how PNG stored it."""
    key = _convert_transparent_value(image.info.pop("transparency", None), raw_mode)
    if image.mode.startswith("I"):
        return Image.fromarray(_take_high_byte(np.asarray(image), key)).convert("RGB")
    if key is not None:
        image.info["transparency"] = key
    if key is not None or image.mode in {"LA", "PA", "RGBA"}:
        return _composite_on_white(image.convert("RGBA"))
    return image if image.mode == "RGB" else image.convert("RGB")


def _convert_transparent_value(key: object, raw_mode: str) -> Any:
    """PNG's transparent value (tRNS), in the units of the pixels that Pillow unpacked."""
    if isinstance(key, int):
        return key * {"L;2": 85, "L;4": 17}.get(raw_mode, 1)
    if isinstance(key, tuple):
        return tuple(value >> 8 for value in key) if raw_mode == "RGB;16B" else key
    # Bytes are a palette's alpha values; anything else is a comment that has this name.
    return key if isinstance(key, bytes) else None


def _take_high_byte(grey: npt.NDArray[Any], transparent: int | None) -> npt.NDArray[np.uint8]:
    high = (grey >> 8).astype(np.uint8)
    if transparent is not None:
        high[grey == transparent] = 255
    return high


def _composite_on_white(rgba: Image.Image) -> Image.Image:
    white = Image.new("RGB", rgba.size, (255, 255, 255))
    white.paste(rgba, mask=rgba)
    return white


def _read_orientation(exif: object) -> int:
    """The orientation, 1 to 8, of an EXIF block; 1 if it is absent or broken.

    Pillow's own reader goes through every tag and raises or warns about each broken one; only
    one matters here: 0x0112 of the first directory, a SHORT (Exif 2.3, 4.6.4).
    """
    tiff = exif.removeprefix(b"Exif\0\0") if isinstance(exif, bytes) else b""
    order = {b"II*\0": "<", b"MM\0*": ">"}.get(tiff[:4])
    if order is None:
        return 1
    try:
        (start,) = struct.unpack_from(f"{order}I", tiff, 4)
        (count,) = struct.unpack_from(f"{order}H", tiff, start)
        for at in range(start + 2, start + 2 + 12 * count, 12):
            tag, kind, _, value = struct.unpack_from(f"{order}HHIH", tiff, at)
            if (tag, kind) == (0x0112, 3):
                return int(value)
    except struct.error:
        return 1
    return 1


TRANSPOSITIONS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def _apply_orientation(image: Image.Image, orientation: int) -> Image.Image:
    if orientation in TRANSPOSITIONS:
        image = image.transpose(TRANSPOSITIONS[orientation])
    image.info.clear()  # the orientation has been applied; the rest is private
    return image

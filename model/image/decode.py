"""Decode untrusted bytes into an upright RGB image, with all the checks that this needs.

The format is recognised by the first bytes, not by the file's name. JPEG, PNG and WebP are read,
and from trusted files those of `model/image/further_formats.py`. `model/image/containers/` walks
the file and keeps the pixels only; the size is checked in the header, before any pixel is decoded;
then the format's Pillow plugin is called directly, so that no other plugin is ever tried. No global
setting of Pillow is changed.

Colour profiles are ignored: the paper does nothing to the pixels except subtract their mean (§2).
"""

import io
import re
import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal, NamedTuple

from PIL import Image, ImageFile, JpegImagePlugin, PngImagePlugin, WebPImagePlugin

from model.image.containers.container import Container, Kind, TooManyPartsError
from model.image.containers.jpeg import strip_jpeg
from model.image.containers.png import strip_png
from model.image.containers.webp import strip_webp
from model.image.further_formats import (
    MissingDecoderError,
    UnreadablePixelsError,
    find_further_kind,
    is_further,
    load_further,
    open_further,
)
from model.image.to_rgb import apply_orientation, convert_to_rgb, place_on_canvas

MAX_PIXELS = 50_000_000
"""Width × height of the largest image that is decoded by default."""
MAX_SIDE = 65_535
"""Width and height of the largest image that is decoded by default: what a JPEG can have."""

ImageFault = Literal["empty", "unknown", "too-large", "damaged"]


class ImageError(ValueError):
    """An image that cannot be used. Its message says why, and what is accepted.

    reason: "empty" (no bytes), "unknown" (of no kind that is read), "too-large" (too many pixels,
            or too costly to decode) or "damaged" (truncated, broken or unreadable).
    """

    def __init__(self, message: str, reason: ImageFault = "damaged") -> None:
        super().__init__(message)
        self.reason: ImageFault = reason


def decode_image(
    data: bytes,
    *,
    max_pixels: int = MAX_PIXELS,
    max_side: int = MAX_SIDE,
    trusted: bool = False,
) -> Image.Image:
    """Decode a JPEG, PNG or WebP into an RGB image, rotated as its EXIF orientation says.

    trusted: whether it is the owner's own file, which may also be a BMP, TIFF, GIF, AVIF or HEIC.

    - Of an MPO (some phones' JPEG), of several pages or an animation, the first picture is used.
    - 16-bit channels keep only their high byte, in grey and in colour images.
    - Transparency of any kind is composited on white.
    - CMYK JPEGs are read as Adobe writes them, inverted, as Pillow and browsers do.
    - Broken EXIF is not an error: the image keeps its stored orientation.
    - Text, profiles and other metadata are skipped, damaged or not.
    - A JPEG may lack its end marker, but none of its pixels.

    Raises ImageError; more than `max_pixels` pixels, or `max_side` on a side, are rejected before
    decoding.
    """
    container = read_container(data, max_pixels=max_pixels, max_side=max_side, trusted=trusted)
    return decode_container(container)


def read_container(
    data: bytes,
    *,
    max_pixels: int = MAX_PIXELS,
    max_side: int = MAX_SIDE,
    trusted: bool = False,
) -> Container:
    """Read everything but the pixels, for `decode_container`.

    Raises ImageError for what is no image, is broken before its pixels, or exceeds the limits.
    """
    container = _strip(data, trusted)
    _check_size(container.size, max_pixels, max_side)
    return container


def decode_container(container: Container) -> Image.Image:
    """Decode what `read_container` returned. Raises ImageError."""
    with _convert_pillow_errors(container.kind):
        image, raw_mode = _load_pixels(container)
        if container.canvas is None:
            image = convert_to_rgb(image, raw_mode)
        else:
            image = place_on_canvas(image, container.canvas)
        return apply_orientation(image, container.orientation)


def estimate_memory(container: Container) -> int:
    """Return how many bytes decoding takes at most, making a square of the image included."""
    width, height = container.size
    canvas = DECODING_BYTES["PNG"] * width * height if container.canvas else 0
    picture = DECODING_BYTES[container.kind] * container.width * container.height
    return picture + canvas + len(container.data)


DECODING_BYTES: dict[Kind, int] = {
    **{"JPEG": 13, "PNG": 13, "WebP": 16},
    **{"BMP": 32, "TIFF": 32, "GIF": 32, "AVIF": 32, "HEIC": 32},
}
"""Bytes per pixel, a little above those measured by benchmarks/decoding.py.

Pillow's images in colour take 4: at most, three at a time are held (LA or a transparent colour to
RGBA to RGB). A progressive CMYK JPEG has coefficients of 8 beside an image, libwebp two canvases
and the lossless picture. The further kinds, which no stranger sends, are not measured: planes of 16
bits, the picture made of them, and Pillow's."""


class ImageHeader(NamedTuple):
    """What an image's header says: its kind and upright size in pixels."""

    kind: Kind
    width: int
    height: int


def read_image_header(data: bytes, *, trusted: bool = False) -> ImageHeader:
    """Read kind and size without decoding, regardless of the number of pixels.

    trusted: as in `decode_image`. The pixels may still be damaged. The size is that of
    `decode_image`. Raises ImageError.
    """
    container = _strip(data, trusted)
    width, height = container.size
    if container.orientation in {5, 6, 7, 8}:
        width, height = height, width
    return ImageHeader(container.kind, width, height)


ACCEPTED = "JPEG, PNG and WebP images are accepted."
ACCEPTED_IF_TRUSTED = "JPEG, PNG, WebP, BMP, TIFF, GIF, AVIF and HEIC images are accepted."


class _WebP(WebPImagePlugin.WebPImageFile):
    """A WebP that gives up its decoder, and with it two canvases, as soon as it has the pixels."""

    def load(self) -> Any:
        if self.tile or self._im is not None:
            return ImageFile.ImageFile.load(self)
        pixels, *_ = self._get_next()
        self._decoder = None
        self.fp = io.BytesIO(pixels)
        self.tile = [ImageFile._Tile("raw", (0, 0, *self.size), 0, self.rawmode)]
        return ImageFile.ImageFile.load(self)


PLUGINS: dict[Kind, type[ImageFile.ImageFile]] = {
    "JPEG": JpegImagePlugin.JpegImageFile,
    "PNG": PngImagePlugin.PngImageFile,
    "WebP": _WebP,
}
STRIP = {"JPEG": strip_jpeg, "PNG": strip_png, "WebP": strip_webp}
SIGNATURES: dict[Kind, re.Pattern[bytes]] = {
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


def _strip(data: bytes, trusted: bool) -> Container:
    kind = _detect_kind(data, trusted)
    with _convert_pillow_errors(kind):
        return open_further(kind, data) if is_further(kind) else STRIP[kind](data)


def _detect_kind(data: bytes, trusted: bool) -> Kind:
    accepted = ACCEPTED_IF_TRUSTED if trusted else ACCEPTED
    if not data:
        raise ImageError(f"The file is empty. {accepted}", "empty")
    for kind, signature in SIGNATURES.items():
        if signature.match(data):
            return kind
    if trusted and (further := find_further_kind(data)):
        return further
    for other, signature in OTHER_SIGNATURES.items():
        if signature.match(data):
            raise ImageError(f"{other} cannot be read; save it as JPEG, PNG or WebP.", "unknown")
    raise ImageError(f"The file is not an image that can be read. {accepted}", "unknown")


# What Pillow's three plugins and their decoders raise on broken bytes. They parse as they go and
# do not wrap exceptions: IndexError and KeyError are LookupErrors, a decoder's complaint about its
# arguments is a SystemError. UserWarning is for interpreters that turn warnings into errors.
PILLOW_ERRORS = (
    *(ArithmeticError, AssertionError, AttributeError, EOFError, LookupError, OSError),
    *(RuntimeError, SyntaxError, SystemError, TypeError, ValueError, UserWarning),
    *(struct.error, zlib.error),
)


@contextmanager
def _convert_pillow_errors(kind: Kind) -> Iterator[None]:
    try:
        yield
    except ImageError:
        raise
    except (MemoryError, Image.DecompressionBombError) as error:
        message = f"The {kind} has too many pixels to decode. Make it smaller and try again."
        raise ImageError(message, "too-large") from error
    except TooManyPartsError as error:
        message = (
            f"The {kind} would take too long to decode: it has {error}. Save it again as an "
            f"ordinary {kind} and try again."
        )
        raise ImageError(message, "too-large") from error
    except MissingDecoderError as error:
        raise ImageError(f"{error}.", "unknown") from error
    except UnreadablePixelsError as error:
        message = f"The {kind} has {error}, which are not read; save it with 8 or 16 bits a colour."
        raise ImageError(message, "unknown") from error
    except PILLOW_ERRORS as error:
        accepted = ACCEPTED_IF_TRUSTED if is_further(kind) else ACCEPTED
        message = f"The {kind} is damaged or truncated and cannot be read. {accepted}"
        raise ImageError(message, "damaged") from error


def _check_size(size: tuple[int, int], max_pixels: int, max_side: int) -> None:
    width, height = size
    if width * height > max_pixels:
        raise ImageError(
            f"The image has {width:,} × {height:,} pixels, {width * height / 1e6:,.1f} million; "
            f"at most {max_pixels / 1e6:,.1f} million are accepted. Make it smaller and try again.",
            "too-large",
        )
    if max(size) > max_side:
        raise ImageError(
            f"The image has {width:,} × {height:,} pixels; at most {max_side:,} are accepted on "
            "each side. Make it smaller and try again.",
            "too-large",
        )


def _load_pixels(container: Container) -> tuple[Image.Image, str]:
    """Decode the stored picture; also return how PNG stored it, as Pillow's raw mode."""
    kind = container.kind
    if is_further(kind):
        return load_further(kind, container.data), ""
    if kind != "JPEG" or container.complete:
        return _load_file(kind, container.data)
    # Libjpeg fills missing pixels with what the bytes after them happen to mean. If two different
    # continuations give the same pixels, only the end marker was missing.
    first, second = (container.data + filler + b"\xff\xd9" for filler in JPEG_FILLERS)
    checksum = _compute_checksum(_load_file("JPEG", first)[0])
    image, raw_mode = _load_file("JPEG", second)
    if _compute_checksum(image) != checksum:
        raise ValueError("the JPEG is truncated")
    return image, raw_mode


JPEG_FILLERS = (b"\x55" * 64, b"\xaa" * 64)


def _load_file(kind: Kind, data: bytes) -> tuple[Image.Image, str]:
    image = PLUGINS[kind](io.BytesIO(data))
    raw_mode = str(image.tile[0].args) if image.tile else ""
    image.load()
    return image, raw_mode


def _compute_checksum(image: Image.Image, rows: int = 64) -> int:
    """A checksum of the pixels, computed in strips to save memory."""
    checksum = 0
    for top in range(0, image.height, rows):
        strip = image.crop((0, top, image.width, min(top + rows, image.height)))
        checksum = zlib.crc32(strip.tobytes(), checksum)
    return checksum

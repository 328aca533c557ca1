"""BMP, TIFF, GIF, AVIF and HEIC, which are read from the owner's own files and never from uploads.

Their decoders are larger than those of JPEG, PNG and WebP, and none of these files is walked before
Pillow sees it. HEIC needs the package pillow-heif, the extra `heif`.
"""

import io
import re
from importlib import import_module
from typing import TypeGuard

from PIL import Image, ImageFile

from model.image.containers.container import Container, FurtherKind, Kind, read_orientation

PLUGINS: dict[FurtherKind, tuple[str, str]] = {
    "BMP": ("PIL.BmpImagePlugin", "BmpImageFile"),
    "TIFF": ("PIL.TiffImagePlugin", "TiffImageFile"),
    "GIF": ("PIL.GifImagePlugin", "GifImageFile"),
    "AVIF": ("PIL.AvifImagePlugin", "AvifImageFile"),
    "HEIC": ("pillow_heif", "HeifImageFile"),
}
"""The module and the class that read each kind; imported when the first such file is."""
SIGNATURES: dict[FurtherKind, re.Pattern[bytes]] = {
    "BMP": re.compile(rb"BM"),
    "TIFF": re.compile(rb"II\*\0|MM\0\*|II\+\0|MM\0\+"),
    "GIF": re.compile(rb"GIF8[79]a"),
    # A brand of several kinds (mif1, msf1) is followed by those that the file is compatible with.
    "AVIF": re.compile(rb"....ftyp(avi[fs]|(mif|msf)1....(....){0,8}?avi[fs])", re.DOTALL),
    "HEIC": re.compile(rb"....ftyp(hei|hev|mif1|msf1)", re.DOTALL),
}
UNREADABLE_MODES = frozenset({"I", "F", "LAB"})
"""Of TIFF: integers of more than 16 bits or with a sign, fractions, and colours by the eye."""


class MissingDecoderError(ImportError):
    """The package that reads a kind of image is not installed; the message says how to."""


class UnreadablePixelsError(ValueError):
    """A sound image whose pixels are of a kind that is not read; the message says which."""


def is_further(kind: Kind) -> TypeGuard[FurtherKind]:
    """Return whether this is one of the kinds that are read here."""
    return kind in PLUGINS


def find_further_kind(data: bytes) -> FurtherKind | None:
    """Recognise the kind of a file by its first bytes."""
    return next((kind for kind, pattern in SIGNATURES.items() if pattern.match(data)), None)


def open_further(kind: FurtherKind, data: bytes) -> Container:
    """Read a file's header: the container holds the whole file.

    Raises MissingDecoderError, and for a broken header whatever the plugin raises.
    """
    with open_image(kind, data) as image:
        width, height = image.size
        # TIFF's plugin turns images itself, and so does HEIC's; AVIF's says how to, in EXIF.
        turn = read_orientation(image.info.get("exif") or b"") if kind == "AVIF" else 1
        return Container(kind=kind, data=data, width=width, height=height, orientation=turn)


def load_further(kind: FurtherKind, data: bytes) -> Image.Image:
    """Decode a file's first picture, upright except for its container's orientation.

    Raises UnreadablePixelsError, and for broken pixels whatever the plugin raises.
    """
    image = open_image(kind, data)
    if image.mode in UNREADABLE_MODES:
        raise UnreadablePixelsError(f"pixels of Pillow's mode {image.mode}")
    image.load()
    return image


def open_image(kind: FurtherKind, data: bytes) -> ImageFile.ImageFile:
    """Open a file with the plugin of its kind; no other is tried."""
    module, name = PLUGINS[kind]
    try:
        plugin: type[ImageFile.ImageFile] = getattr(import_module(module), name)
    except ImportError as error:
        raise MissingDecoderError(
            f"{kind} needs the package pillow-heif: pip install '.[heif]'"
        ) from error
    return plugin(io.BytesIO(data))

"""What is left of an image file: its pixels, still encoded, and how to turn and place them."""

import struct
from dataclasses import dataclass
from typing import Literal

MAX_PARTS = 100_000
"""Segments or chunks of a file that are walked. A JPEG or WebP has at most a few hundred, a large
PNG written row by row tens of thousands."""


FurtherKind = Literal["BMP", "TIFF", "GIF", "AVIF", "HEIC"]
"""Of the owner's own files (model/image/further_formats.py)."""
Kind = Literal["JPEG", "PNG", "WebP"] | FurtherKind


class TooManyPartsError(ValueError):
    """A file of more segments, chunks or tables than any photograph has."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Canvas:
    """The area of an animation, on which its first picture lies.

    width, height, left, top: in pixels. transparent: whether the animation has transparency;
    without it, what the picture leaves uncovered is black, and its own alpha is ignored.
    """

    width: int
    height: int
    left: int
    top: int
    transparent: bool


@dataclass(frozen=True, kw_only=True, slots=True)
class Container:
    """An image file reduced to what its pixels and their orientation need.

    data: a file of the same kind for Pillow, of JPEG, PNG and WebP without metadata. width, height:
    as stored, in pixels. orientation: that of the file's first EXIF block; 1 if it is absent or
    broken. complete: False for a JPEG without its end marker. canvas: of an animated WebP.
    """

    kind: Kind
    data: bytes
    width: int
    height: int
    orientation: int = 1
    complete: bool = True
    canvas: Canvas | None = None

    @property
    def size(self) -> tuple[int, int]:
        """Stored width and height of the image in pixels, an animation's canvas included."""
        return (self.canvas.width, self.canvas.height) if self.canvas else (self.width, self.height)


def read_orientation(exif: bytes) -> int:
    """The orientation, 1 to 8, of an EXIF block; 1 if it is absent or broken.

    Pillow's own reader goes through every tag and raises or warns about each broken one; only
    one matters here: 0x0112 of the first directory, a SHORT (Exif 2.3, 4.6.4).
    """
    tiff = exif.removeprefix(b"Exif\0\0")
    order = {b"II*\0": "<", b"MM\0*": ">"}.get(tiff[:4])
    if order is None:
        return 1
    try:
        (start,) = struct.unpack_from(f"{order}I", tiff, 4)
        (count,) = struct.unpack_from(f"{order}H", tiff, start)
        for at in range(start + 2, start + 2 + 12 * count, 12):
            tag, kind, _, value = struct.unpack_from(f"{order}HHIH", tiff, at)
            if (tag, kind) == (0x0112, 3):
                return int(value) if 1 <= value <= 8 else 1
    except struct.error:
        return 1
    return 1

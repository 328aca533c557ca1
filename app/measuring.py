"""What the database keeps of a file: its hash, and the size its header gives."""

import hashlib
from dataclasses import dataclass

from model.decoding import header


@dataclass(frozen=True, kw_only=True)
class Measured:
    """A file's hash (hex), its size in bytes, its format, its upright size in pixels."""

    sha256: str
    bytes: int
    format: str
    width: int
    height: int


def measure(data: bytes) -> Measured:
    """Measure a file from its header, without decoding its pixels.

    Raises ImageError for a file that is no image. One that passes may still be damaged.
    """
    found = header(data)
    return Measured(
        sha256=hashlib.sha256(data).hexdigest(),
        bytes=len(data),
        format=found.kind,
        width=found.width,
        height=found.height,
    )

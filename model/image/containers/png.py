"""PNG: chunks, each a length, a name, a body and a checksum (PNG specification, section 5)."""

import re
import struct
import zlib
from collections.abc import Iterator

from model.image.containers.container import (
    MAX_PARTS,
    Container,
    TooManyPartsError,
    read_orientation,
)

SIGNATURE = b"\x89PNG\r\n\x1a\n"
NAME = re.compile(rb"[0-9A-Za-z_]{4}")


def strip_png(data: bytes) -> Container:
    """Keep the header, the palette, the transparent colours and the pixels of the default picture.

    Chunks without influence on the pixels are dropped, so neither their size nor a wrong checksum
    matters; a tRNS or eXIf with a wrong checksum counts as absent, as in libpng. The pixels' chunks
    become one. Raises TooManyPartsError, and ValueError for a file that breaks off or is broken
    before its pixels.
    """
    header = data[16:29]
    if data[8:16] != b"\0\0\0\x0dIHDR" or not _has_true_checksum(data, b"IHDR", 16, 29):
        raise ValueError("the header is broken")
    before, pixels, after, orientation = _sort_chunks(data)
    width, height = struct.unpack(">II", header[:8])
    body = [
        SIGNATURE,
        _make_chunk(b"IHDR", header),
        *(_make_chunk(name, body) for name, body in before.items()),
        _make_chunk(b"IDAT", b"".join(pixels)),
        *(_make_chunk(name, body) for name, body in after.items()),
        _make_chunk(b"IEND", b""),
    ]
    return Container(
        kind="PNG",
        data=b"".join(body),
        width=width,
        height=height,
        orientation=orientation or 1,
    )


Chunks = dict[bytes, bytes]


def _sort_chunks(data: bytes) -> tuple[Chunks, list[bytes], Chunks, int | None]:
    """The chunks to keep from before the pixels, the pixels' own, those after, the orientation."""
    before: Chunks = {}
    after: Chunks = {}
    pixels: list[bytes] = []
    orientation, ended = None, False
    for name, start, stop in _walk_chunks(data):
        whole = stop + 4 <= len(data) and NAME.fullmatch(name)
        if name == b"IDAT":
            if not ended:
                pixels.append(data[start:stop])
            continue
        ended = bool(pixels)
        if not ended and not whole:
            raise ValueError("a chunk before the pixels is broken")
        if name == b"IEND" or not whole:
            break
        if name in (b"PLTE", b"tRNS") and _has_true_checksum(data, name, start, stop):
            (after if ended else before)[name] = data[start:stop]
        elif name in (b"PLTE", b"IHDR") and not ended:
            raise ValueError("the palette is broken, or there are two headers")
        elif orientation is None and (exif := _find_exif(data, name, start, stop)) is not None:
            orientation = read_orientation(exif)
    return before, pixels, after, orientation


def _walk_chunks(data: bytes) -> Iterator[tuple[bytes, int, int]]:
    """Name, start and stop of each chunk's body; the last may stop after the file's end."""
    at, count = len(SIGNATURE) + 25, 0
    while at + 8 <= len(data):
        start = at + 8
        stop = start + int.from_bytes(data[at : at + 4], "big")
        yield data[at + 4 : start], start, stop
        at, count = stop + 4, count + 1
        if count > MAX_PARTS:
            raise TooManyPartsError(f"more than {MAX_PARTS:,} chunks")


def _find_exif(data: bytes, name: bytes, start: int, stop: int) -> bytes | None:
    """The EXIF block of a chunk, if it has one: eXIf, or the text "exif" that Pillow knows too."""
    if name == b"eXIf" and _has_true_checksum(data, name, start, stop):
        return data[start:stop]
    if name == b"tEXt" and data.startswith(b"exif\0", start):
        return data[start + 5 : stop]
    return None


def _has_true_checksum(data: bytes, name: bytes, start: int, stop: int) -> bool:
    return data[stop : stop + 4] == _make_chunk(name, data[start:stop])[-4:]


def _make_chunk(name: bytes, body: bytes) -> bytes:
    checksum = zlib.crc32(body, zlib.crc32(name))
    return b"".join((struct.pack(">I", len(body)), name, body, struct.pack(">I", checksum)))

"""WebP: RIFF chunks around one picture or the frames of an animation (RFC 9649)."""

import struct

from model.image.containers.container import (
    MAX_PARTS,
    Canvas,
    Container,
    TooManyPartsError,
    read_orientation,
)

EXIF_FLAG, ANIMATION_FLAG, ALPHA_FLAG = 0x08, 0x02, 0x10
FRAME_HEADER_BYTES = 16
PICTURES = (b"VP8 ", b"VP8L")
"""The chunks of a lossy and of a lossless picture."""

Chunk = tuple[bytes, memoryview]
"""A chunk's name and body."""


def strip_webp(data: bytes) -> Container:
    """Keep the picture, or an animation's first frame as a picture of its own.

    Decoded as an animation, it would take its whole canvas several times over. Raises
    TooManyPartsError, and ValueError for a file that is cut short or has no picture.
    """
    end = 8 + int.from_bytes(data[4:8], "little")
    if end > len(data):
        raise ValueError("the file is cut short")
    chunks = _list_chunks(memoryview(data)[12:end])
    if not chunks or chunks[0][0] != b"VP8X":
        picture = chunks[:1]
        return _wrap_picture(picture, _read_picture_size(picture))
    header = chunks.pop(0)[1]
    if len(header) < 10:
        raise ValueError("the header is cut short")
    flags, size = header[0], (1 + _read_uint24(header, 4), 1 + _read_uint24(header, 7))
    orientation = _find_orientation(chunks) if flags & EXIF_FLAG else 1
    if flags & ANIMATION_FLAG:
        return _wrap_first_frame(chunks, flags, size, orientation)
    return _wrap_picture(chunks, size, flags, orientation)


def _list_chunks(body: memoryview) -> list[Chunk]:
    chunks: list[Chunk] = []
    at = 0
    while at + 8 <= len(body):
        start = at + 8
        stop = start + int.from_bytes(body[at + 4 : start], "little")
        if stop > len(body):
            raise ValueError("a chunk is cut short")
        chunks.append((bytes(body[at : at + 4]), body[start:stop]))
        at = stop + (stop - start) % 2
        if len(chunks) > MAX_PARTS:
            raise TooManyPartsError(f"more than {MAX_PARTS:,} chunks")
    return chunks


def _read_picture_size(chunks: list[Chunk]) -> tuple[int, int]:
    """Width and height of the first picture, as its own header says."""
    name, body = next((one for one in chunks if one[0] in PICTURES), (b"", memoryview(b"")))
    if name == b"VP8 " and len(body) >= 10:
        width, height = struct.unpack_from("<HH", body, 6)
        return width & 0x3FFF, height & 0x3FFF
    if name == b"VP8L" and len(body) >= 5:
        bits = int.from_bytes(body[1:5], "little")
        return 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF)
    raise ValueError("there is no picture")


def _find_orientation(chunks: list[Chunk]) -> int:
    blocks = (body for name, body in chunks if name == b"EXIF")
    return read_orientation(bytes(next(blocks, b"")))


def _wrap_first_frame(
    chunks: list[Chunk], flags: int, size: tuple[int, int], orientation: int
) -> Container:
    frame = next((body for name, body in chunks if name == b"ANMF"), memoryview(b""))
    if len(frame) < FRAME_HEADER_BYTES:
        raise ValueError("there is no frame")
    left, top = 2 * _read_uint24(frame, 0), 2 * _read_uint24(frame, 3)
    picture = _list_chunks(frame[FRAME_HEADER_BYTES:])
    width, height = _read_picture_size(picture)
    if left + width > size[0] or top + height > size[1]:
        raise ValueError("the first frame is larger than the canvas")
    transparent = bool(flags & ALPHA_FLAG)
    canvas = Canvas(width=size[0], height=size[1], left=left, top=top, transparent=transparent)
    return _wrap_picture(picture, (width, height), flags, orientation, canvas)


def _wrap_picture(
    chunks: list[Chunk],
    size: tuple[int, int],
    flags: int = 0,
    orientation: int = 1,
    canvas: Canvas | None = None,
) -> Container:
    """Make a file of the first picture in these chunks; libwebp checks that it has this size."""
    width, height = size
    dimensions = b"".join((side - 1).to_bytes(3, "little") for side in size)
    parts = [_make_chunk(b"VP8X", bytes((flags & ALPHA_FLAG, 0, 0, 0)) + dimensions)]
    for name, body in chunks:
        if name == b"ALPH" or name in PICTURES:
            parts.append(_make_chunk(name, body))
        if name in PICTURES:
            break
    else:
        raise ValueError("there is no picture")
    content = b"WEBP" + b"".join(parts)
    return Container(
        kind="WebP",
        data=b"RIFF" + struct.pack("<I", len(content)) + content,
        width=width,
        height=height,
        orientation=orientation,
        canvas=canvas,
    )


def _make_chunk(name: bytes, body: bytes | memoryview) -> bytes:
    return b"".join((name, struct.pack("<I", len(body)), body, b"\0"[: len(body) % 2]))


def _read_uint24(data: memoryview, at: int) -> int:
    return int.from_bytes(data[at : at + 3], "little")

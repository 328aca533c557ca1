"""Image files that are small and costly to decode, for `benchmarks/decoding.py`."""

import io
import struct
import zlib
from collections.abc import Callable
from typing import Any

from PIL import Image, ImageFile

MEGABYTE = 1_000_000
Make = Callable[[int], bytes]
"""Makes a file, given the pixels that a large image has."""


def make_chunk(name: bytes, body: bytes) -> bytes:
    """Make a chunk of a PNG."""
    checksum = zlib.crc32(body, zlib.crc32(name))
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", checksum)


def make_png(
    width: int, height: int, depth: int, colour: int, *, filter: int = 0, more: bytes = b""
) -> bytes:
    """Make a PNG of a repeated row, of any depth and colour type."""
    channels = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}[colour]
    stride = (width * depth * channels + 7) // 8
    row = bytes((filter,)) + (bytes(range(1, 251)) * (stride // 250 + 1))[:stride]
    packer = zlib.compressobj(1)
    block = max(1, MEGABYTE // len(row))
    counts = [block] * (height // block) + [height % block]
    pixels = b"".join([*(packer.compress(row * count) for count in counts), packer.flush()])
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    return b"".join(
        (
            b"\x89PNG\r\n\x1a\n",
            make_chunk(b"IHDR", header),
            more,
            make_chunk(b"IDAT", pixels),
            make_chunk(b"IEND", b""),
        )
    )


def make_exif(orientation: int) -> bytes:
    """Make an EXIF block with an orientation only."""
    return b"Exif\0\0II*\0\x08\0\0\0\1\0" + struct.pack("<HHIHHI", 0x112, 3, 1, orientation, 0, 0)


def draw(pixels: int, mode: str) -> Image.Image:
    """Draw an image of smooth colours, 4:3."""
    height = max(8, int((pixels * 3 / 4) ** 0.5))
    gradient = Image.radial_gradient("L").resize((pixels // height, height))
    bands = len(Image.new(mode, (1, 1)).getbands())
    return gradient if bands == 1 else Image.merge(mode, [gradient] * bands)


def encode(image: Image.Image, kind: str, **options: Any) -> bytes:
    """Encode an image by Pillow."""
    out = io.BytesIO()
    # Pillow's buffer for a JPEG is as large as the default for small images.
    ImageFile.MAXBLOCK = max(ImageFile.MAXBLOCK, 4 * image.width * image.height)
    image.save(out, kind, **options)
    return out.getvalue()


def make_jpeg_flood(_: int) -> bytes:
    """Make a JPEG of 10,000 EXIF segments, which Pillow joins one by one."""
    jpeg = encode(draw(4096, "RGB"), "JPEG")
    segment = b"\xff\xe1" + struct.pack(">H", 508) + b"Exif\0\0" + bytes(500)
    return jpeg[:2] + 10_000 * segment + jpeg[2:]


def make_png_flood(_: int) -> bytes:
    """Make a PNG of 10,000 colour profiles, each of a megabyte of zeros."""
    profile = make_chunk(b"iCCP", b"x\0\0" + zlib.compress(bytes(MEGABYTE), 9))
    return make_png(64, 64, 8, 2, more=10_000 * profile)


def make_scans(pixels: int) -> bytes:
    """Make a progressive JPEG of nearly a hundred scans."""
    jpeg = encode(draw(pixels, "RGB"), "JPEG", progressive=True)
    last = jpeg[jpeg.rindex(b"\xff\xda") : -2]
    return jpeg[:-2] + 85 * last + jpeg[-2:]


def make_webp_canvas(pixels: int) -> bytes:
    """Make an animated WebP: two frames of 8 by 8 pixels on a large canvas."""
    frames = [Image.new("RGBA", (8, 8), colour) for colour in ("red", "blue")]
    data = bytearray(encode(frames[0], "WEBP", save_all=True, append_images=frames[1:]))
    for at in (24, 27):
        data[at : at + 3] = (int(pixels**0.5) - 1).to_bytes(3, "little")
    return bytes(data)


FILES: dict[str, Make] = {
    "PNG, 1 pixel wide": lambda n: make_png(1, n, 8, 6),
    "PNG, grey": lambda n: make_png(n // 6000, 6000, 8, 0),
    "PNG, 16-bit grey": lambda n: make_png(n // 6000, 6000, 16, 0),
    "PNG, grey with alpha": lambda n: make_png(n // 6000, 6000, 8, 4),
    "PNG, RGBA": lambda n: make_png(n // 6000, 6000, 8, 6),
    "PNG, RGBA, rotated": lambda n: make_png(
        n // 6000, 6000, 8, 6, more=make_chunk(b"eXIf", make_exif(6)[6:])
    ),
    "PNG, 16-bit RGBA, Paeth": lambda n: make_png(n // 6000, 6000, 16, 6, filter=4),
    "PNG, a transparent colour": lambda n: make_png(
        n // 6000, 6000, 8, 2, more=make_chunk(b"tRNS", bytes(6))
    ),
    "PNG, a strip": lambda n: make_png(n // 65_535, 65_535, 8, 2),
    "PNG, 10,000 profiles": make_png_flood,
    "JPEG": lambda n: encode(draw(n, "RGB"), "JPEG"),
    "JPEG, progressive, rotated": lambda n: encode(
        draw(n, "RGB"), "JPEG", progressive=True, exif=make_exif(6)
    ),
    "JPEG, progressive CMYK": lambda n: encode(
        draw(n, "CMYK"), "JPEG", progressive=True, subsampling=0
    ),
    "JPEG, 95 scans": make_scans,
    "JPEG, without its end": lambda n: encode(draw(n, "RGB"), "JPEG")[:-2],
    "JPEG, 10,000 EXIF segments": make_jpeg_flood,
    "WebP": lambda n: encode(draw(n, "RGB"), "WEBP", method=0),
    "WebP with alpha, rotated": lambda n: encode(
        draw(n, "RGBA"), "WEBP", method=0, exif=make_exif(6)
    ),
    "WebP, lossless": lambda n: encode(draw(n, "RGBA"), "WEBP", method=0, lossless=True),
    "WebP, animated": make_webp_canvas,
    "JPEG, 12 megapixels": lambda _: encode(draw(12_000_000, "RGB"), "JPEG"),
    "JPEG, 0.2 megapixels": lambda _: encode(draw(200_000, "RGB"), "JPEG"),
}
"""The files by name; the last two are ordinary photographs in size."""

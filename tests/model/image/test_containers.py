"""Files are reduced to their pixels before they are decoded, and walking them costs little."""

import io
import struct
import time
import zlib

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image
from skimage import data as photographs

from model.image.decode import ImageError, decode_image, read_container, read_image_header

Pixels = npt.NDArray[np.uint8]
PROFILE = bytes(range(256)) * 8192  # 2 MB
MAX_SECONDS = 2.0
"""Computing time for files that took Pillow half a minute."""


def saved(image: Image.Image, kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def chunk(name: bytes, body: bytes, checksum: int | None = None) -> bytes:
    true = zlib.crc32(body, zlib.crc32(name))
    last = struct.pack(">I", true if checksum is None else checksum)
    return struct.pack(">I", len(body)) + name + body + last


def with_chunks(png: bytes, *chunks: bytes) -> bytes:
    """The PNG with more chunks after its header."""
    return png[:33] + b"".join(chunks) + png[33:]


def segment(code: int, body: bytes) -> bytes:
    return struct.pack(">BBH", 0xFF, code, len(body) + 2) + body


def with_segments(jpeg: bytes, *segments: bytes) -> bytes:
    """The JPEG with more segments at its beginning."""
    return jpeg[:2] + b"".join(segments) + jpeg[2:]


def riff(*chunks: tuple[bytes, bytes]) -> bytes:
    """A WebP of these chunks."""
    parts = (n + struct.pack("<I", len(b)) + b + b"\0" * (len(b) % 2) for n, b in chunks)
    body = b"WEBP" + b"".join(parts)
    return b"RIFF" + struct.pack("<I", len(body)) + body


def exif(orientation: int) -> bytes:
    entry = struct.pack("<HHIHHI", 0x112, 3, 1, orientation, 0, 0)
    return b"Exif\0\0II*\0\x08\0\0\0\1\0" + entry


def pixels(data: bytes) -> Pixels:
    return np.asarray(decode_image(data))


def reason(data: bytes, **limits: int) -> str:
    with pytest.raises(ImageError) as caught:
        decode_image(data, **limits)
    return caught.value.reason


@pytest.fixture(scope="module")
def photograph() -> Image.Image:
    return Image.fromarray(photographs.astronaut()).resize((300, 200))  # type: ignore[no-untyped-call]


# What cameras, printers and browsers write and read


@pytest.mark.parametrize(
    ("name", "head"),
    [(b"zTXt", b"mxfile\0\0"), (b"iTXt", b"mxfile\0\1\0\0\0"), (b"iCCP", b"icc\0\0")],
)
def test_a_png_with_two_megabytes_of_text_or_profile_is_read(
    name: bytes, head: bytes, photograph: Image.Image
) -> None:
    large = with_chunks(saved(photograph, "PNG"), chunk(name, head + zlib.compress(PROFILE)))
    assert np.array_equal(pixels(large), np.asarray(photograph))


@pytest.mark.parametrize("name", [b"pHYs", b"tEXt", b"gAMA", b"eXIf", b"acTL", b"abCd"])
def test_a_wrong_checksum_beside_the_pixels_does_no_harm(
    name: bytes, photograph: Image.Image
) -> None:
    wrong = with_chunks(saved(photograph, "PNG"), chunk(name, exif(6)[6:], checksum=0))
    assert np.array_equal(pixels(wrong), np.asarray(photograph))


def test_a_transparent_colour_with_a_wrong_checksum_is_ignored() -> None:
    black = saved(Image.new("RGB", (2, 2)), "PNG")
    assert pixels(with_chunks(black, chunk(b"tRNS", bytes(6)))).min() == 255
    assert pixels(with_chunks(black, chunk(b"tRNS", bytes(6), checksum=0))).max() == 0


def test_a_palette_or_header_with_a_wrong_checksum_is_damage(photograph: Image.Image) -> None:
    png = saved(photograph.quantize(8), "PNG")
    at = png.index(b"PLTE")
    assert reason(png[: at + 4] + b"\1" + png[at + 5 :]) == "damaged"
    assert reason(png[:29] + b"\1" + png[30:]) == "damaged"


@pytest.mark.parametrize("progressive", [False, True])
@pytest.mark.parametrize("mode", ["L", "RGB", "CMYK"])
def test_a_jpeg_may_lack_its_end_marker_but_no_pixels(
    mode: str, progressive: bool, photograph: Image.Image
) -> None:
    jpeg = saved(photograph.convert(mode), "JPEG", progressive=progressive)
    whole = pixels(jpeg)
    for end in (b"", b"\xff", b"\0\0"):
        assert np.array_equal(pixels(jpeg[:-2] + end), whole)
    for share in (0.3, 0.9, 0.99):
        assert reason(jpeg[: int(len(jpeg) * share)]) == "damaged"


@pytest.mark.parametrize("orientation", range(1, 9))
def test_the_first_exif_block_says_how_the_picture_is_turned(
    orientation: int, photograph: Image.Image
) -> None:
    jpeg = saved(photograph, "JPEG", exif=exif(orientation))
    again = with_segments(jpeg, segment(0xE1, b"http://ns.adobe.com/xap/1.0/\0"))
    at = again.index(b"\xff\xdb")
    again = again[:at] + segment(0xE1, exif(3)) + again[at:]
    assert np.array_equal(pixels(again), pixels(jpeg))
    turned = orientation > 4
    assert read_image_header(again)[1:] == ((200, 300) if turned else (300, 200))


def test_exif_after_the_pixels_of_a_png_counts_for_its_header_too(photograph: Image.Image) -> None:
    png = saved(photograph, "PNG")
    late = png[:-12] + chunk(b"eXIf", exif(6)[6:]) + png[-12:]
    assert read_image_header(late) == ("PNG", 200, 300)
    assert np.array_equal(pixels(late), np.rot90(np.asarray(photograph), -1))


# What is passed on to Pillow


def test_only_what_pixels_need_is_passed_on(photograph: Image.Image) -> None:
    private = b"a private text"
    jpeg = saved(photograph, "JPEG", comment=private, icc_profile=private, exif=exif(6) + private)
    png = with_chunks(saved(photograph, "PNG"), chunk(b"tEXt", private), chunk(b"abCd", private))
    webp = saved(photograph, "WEBP", icc_profile=private, exif=exif(6) + private, xmp=private)
    for data in (jpeg, png, webp):
        assert private in data
        assert private not in read_container(data).data
    mpo = saved(photograph, "MPO", save_all=True, append_images=[photograph])
    assert len(read_container(mpo).data) < len(mpo) / 1.9


@pytest.mark.parametrize("transparent", [True, False])
@pytest.mark.parametrize("lossless", [True, False])
def test_an_animations_first_frame_lies_on_its_canvas(lossless: bool, transparent: bool) -> None:
    """As libwebp's own decoder of animations places it."""
    values = np.random.default_rng(0).integers(0, 256, (30, 40, 4), dtype=np.uint8)
    still = saved(Image.fromarray(values), "WEBP", lossless=lossless, exact=True)
    start = still.index(b"VP8L" if lossless else b"ALPH")
    size = (69).to_bytes(3, "little") + (49).to_bytes(3, "little")
    place = (5).to_bytes(3, "little") + (4).to_bytes(3, "little")
    frame = place + (39).to_bytes(3, "little") + (29).to_bytes(3, "little") + bytes(4)
    data = riff(
        (b"VP8X", bytes([0x12 if transparent else 0x02, 0, 0, 0]) + size),
        (b"ANIM", bytes(6)),
        *[(b"ANMF", frame + still[start:])] * 2,
    )
    with Image.open(io.BytesIO(data)) as reference:
        shown = Image.new("RGB", (70, 50), "white")
        whole = reference.convert("RGBA" if transparent else "RGB")
        shown.paste(whole, mask=whole if transparent else None)
    assert np.array_equal(pixels(data), np.asarray(shown))


# What costs too much


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
def test_each_side_has_a_limit_of_its_own(kind: str) -> None:
    data = saved(Image.new("RGB", (300, 2)), kind)
    assert decode_image(data, max_side=300).size == (300, 2)
    assert reason(data, max_side=299) == "too-large"


def test_a_panorama_is_accepted_and_a_thread_of_pixels_is_not() -> None:
    assert decode_image(saved(Image.new("L", (32_000, 20)), "JPEG")).size == (32_000, 20)
    assert reason(saved(Image.new("L", (1, 70_000)), "PNG")) == "too-large"


def test_floods_of_metadata_take_little_time(photograph: Image.Image) -> None:
    small = photograph.resize((64, 64))
    blocks = 30_000 * segment(0xE1, b"Exif\0\0" + bytes(500))
    profiles = 5_000 * chunk(b"iCCP", b"x\0\0" + zlib.compress(PROFILE[: 2**20], 9))
    broken = 5_000 * chunk(b"zTXt", b"x\0\0" + zlib.compress(bytes(2**20), 9)[:-5])
    jpeg, png = saved(small, "JPEG"), saved(small, "PNG")
    plain = pixels(jpeg)
    start = time.process_time()
    assert np.array_equal(pixels(with_segments(jpeg, blocks)), plain)
    assert np.array_equal(pixels(with_chunks(png, profiles, broken)), np.asarray(small))
    assert time.process_time() - start < MAX_SECONDS


def test_more_parts_than_any_photograph_has_are_refused(photograph: Image.Image) -> None:
    jpeg, png, webp = (saved(photograph, kind) for kind in ("JPEG", "PNG", "WEBP"))
    parts = ((b"XYZ ", b""),) * 100_000
    many = riff((b"VP8X", bytes(4) + b"\x2b\1\0\xc7\0\0"), *parts, (b"VP8 ", webp[20:]))
    assert reason(with_segments(jpeg, 100_001 * segment(0xEC, b""))) == "too-large"
    assert reason(with_segments(jpeg, 20 * segment(0xDB, bytes(65_000)))) == "too-large"
    assert reason(with_chunks(png, 100_001 * chunk(b"abCd", b""))) == "too-large"
    assert reason(many) == "too-large"


def test_a_png_written_in_very_small_pieces_is_read(photograph: Image.Image) -> None:
    png = saved(photograph, "PNG")
    at = png.index(b"IDAT")
    length = int.from_bytes(png[at - 4 : at], "big")
    body = png[at + 4 : at + 4 + length]
    pieces = b"".join(chunk(b"IDAT", body[n : n + 3]) for n in range(0, length, 3))
    small = png[: at - 4] + pieces + png[at + 8 + length :]
    assert len(small) > 4 * length
    assert np.array_equal(pixels(small), np.asarray(photograph))

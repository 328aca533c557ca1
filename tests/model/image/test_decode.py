"""Bytes of every kind that may come in, and of kinds that may not, and what is seen of them."""

import io
import pickle
import struct
import zlib

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from PIL import Image, ImageFile
from skimage import data as photographs

from model.image.decode import ImageError, decode_image, read_image_header
from model.image.preprocess import cut_central_square

Pixels = npt.NDArray[np.uint8]


def saved(image: Image.Image, kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def chunk(name: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))


def png(size: tuple[int, int], depth: int, colour: int, rows: bytes, *more: bytes) -> bytes:
    """A PNG written out by its specification, for the kinds that Pillow does not write."""
    header = struct.pack(">IIBBBBB", *size, depth, colour, 0, 0, 0)
    stride = len(rows) // size[1]
    lines = b"".join(b"\0" + rows[at : at + stride] for at in range(0, len(rows), stride or 1))
    body = [
        chunk(b"IHDR", header),
        *more,
        chunk(b"IDAT", zlib.compress(lines)),
        chunk(b"IEND", b""),
    ]
    return b"\x89PNG\r\n\x1a\n" + b"".join(body)


def pixels(data: bytes) -> Pixels:
    return np.asarray(decode_image(data))


def reason(data: bytes, **options: int) -> str:
    with pytest.raises(ImageError) as caught:
        decode_image(data, **options)
    assert str(caught.value).endswith((".", "again."))
    return caught.value.reason


@pytest.fixture(scope="module")
def astronaut() -> Image.Image:
    return Image.fromarray(photographs.astronaut())  # type: ignore[no-untyped-call]


@pytest.fixture(scope="module")
def noise() -> Image.Image:
    return Image.fromarray(np.random.default_rng(3).integers(0, 256, (40, 60, 3), dtype=np.uint8))


# What is read, and as which colours


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
def test_a_photograph_of_each_kind_is_read_as_pillow_reads_it(
    kind: str, astronaut: Image.Image
) -> None:
    data = saved(astronaut, kind)
    with Image.open(io.BytesIO(data)) as reference:
        assert np.array_equal(pixels(data), np.asarray(reference.convert("RGB")))
    assert decode_image(data).mode == "RGB"


def test_a_phones_mpo_is_read_as_its_first_picture(
    astronaut: Image.Image, noise: Image.Image
) -> None:
    mpo = saved(astronaut, "MPO", save_all=True, append_images=[noise])
    with Image.open(io.BytesIO(mpo)) as reference:
        assert reference.format == "MPO"
        assert np.array_equal(pixels(mpo), np.asarray(reference))


@pytest.mark.parametrize("kind", ["PNG", "WEBP"])
def test_an_animation_is_read_as_its_first_picture(kind: str, noise: Image.Image) -> None:
    second = Image.new("RGB", noise.size, "red")
    data = saved(noise, kind, save_all=True, append_images=[second, noise], lossless=True)
    assert np.array_equal(pixels(data), np.asarray(noise))


def test_16_bit_grey_is_scaled_to_8_bits_and_not_clipped() -> None:
    values = np.arange(65536, dtype=np.uint16).reshape(256, 256)
    seen = pixels(saved(Image.fromarray(values), "PNG"))
    assert np.array_equal(seen, np.repeat((values // 256)[..., None], 3, axis=2))
    assert np.abs(seen[..., 0] - values / 257).max() <= 1


def test_16_bit_colour_and_16_bit_grey_agree() -> None:
    values = np.random.default_rng(0).integers(0, 65536, (8, 8), dtype=np.uint16)
    grey = pixels(png((8, 8), 16, 0, values.astype(">u2").tobytes()))
    colour = png((8, 8), 16, 2, np.repeat(values[..., None], 3, 2).astype(">u2").tobytes())
    assert np.array_equal(pixels(colour), grey)


@pytest.mark.parametrize("colour", [4, 6])
def test_16_bits_with_alpha_are_composited_on_white(colour: int) -> None:
    channels = {4: (0x4000, 0x8000), 6: (0x4000, 0x4000, 0x4000, 0x8000)}[colour]
    data = png((2, 2), 16, colour, struct.pack(f">{len(channels)}H", *channels) * 4)
    assert np.all(pixels(data) == round((0x40 * 0x80 + 255 * (255 - 0x80)) / 255))


@pytest.mark.parametrize("mode", ["1", "L", "P"])
def test_grey_bilevel_and_palette_images_become_rgb(mode: str, astronaut: Image.Image) -> None:
    image = astronaut.resize((40, 30)).convert(mode)
    assert np.array_equal(pixels(saved(image, "PNG")), np.asarray(image.convert("RGB")))


@pytest.mark.parametrize("kind", ["PNG", "WEBP"])
def test_alpha_is_composited_on_white(kind: str) -> None:
    rgba = np.random.default_rng(1).integers(0, 256, (16, 16, 4), dtype=np.uint8)
    seen = pixels(saved(Image.fromarray(rgba), kind, lossless=True, exact=True))
    alpha = rgba[..., 3:] / 255
    expected = rgba[..., :3] * alpha + 255 * (1 - alpha)
    assert np.abs(seen - expected).max() <= 0.5 + 1e-9


def test_grey_with_alpha_is_composited_on_white() -> None:
    data = saved(Image.new("LA", (3, 3), (100, 51)), "PNG")
    assert np.all(pixels(data) == round(100 * 0.2 + 255 * 0.8))


def test_a_palettes_alphas_are_composited_on_white() -> None:
    palette = chunk(b"PLTE", bytes([200, 0, 0, 0, 200, 0, 0, 0, 200]))
    alphas = chunk(b"tRNS", bytes([255, 51]))
    seen = pixels(png((3, 1), 8, 3, bytes([0, 1, 2]), palette, alphas))
    assert seen[0].tolist() == [[200, 0, 0], [204, 244, 204], [0, 0, 200]]


def test_the_transparent_entry_of_a_palette_is_white() -> None:
    palette = chunk(b"PLTE", bytes([200, 0, 0, 0, 200, 0]))
    seen = pixels(png((2, 1), 8, 3, bytes([0, 1]), palette, chunk(b"tRNS", b"\xff\0")))
    assert seen[0].tolist() == [[200, 0, 0], [255, 255, 255]]


@pytest.mark.parametrize(
    ("depth", "rows", "key", "opaque"),
    [
        (1, b"\x40", 1, 0),
        (2, b"\x60", 2, 85),
        (4, b"\x5a", 10, 85),
        (8, b"\x55\x0a", 10, 85),
        (16, b"\x55\x0a\x55\x0b", 0x550B, 85),
    ],
)
def test_the_transparent_grey_of_a_png_is_white(
    depth: int, rows: bytes, key: int, opaque: int
) -> None:
    data = png((2, 1), depth, 0, rows, chunk(b"tRNS", struct.pack(">H", key)))
    assert pixels(data)[0].tolist() == [[opaque] * 3, [255] * 3]


@pytest.mark.parametrize("depth", [8, 16])
def test_the_transparent_colour_of_a_png_is_white(depth: int) -> None:
    scale, form = {8: (1, "B"), 16: (256, ">u2")}[depth]
    colours = np.array([[10, 20, 30], [10, 20, 31]]) * scale
    key = chunk(b"tRNS", struct.pack(">3H", *colours[1]))
    seen = pixels(png((2, 1), depth, 2, colours.astype(form).tobytes(), key))
    assert seen[0].tolist() == [[10, 20, 30], [255, 255, 255]]


def test_a_comment_named_like_a_field_of_pillows_changes_nothing() -> None:
    comment = chunk(b"tEXt", b"transparency\0yes") + chunk(
        b"zTXt", b"exif\0\0" + zlib.compress(b"x")
    )
    assert np.all(pixels(png((2, 2), 8, 0, bytes([9] * 4), comment)) == 9)


def test_cmyk_jpegs_are_read_with_adobes_inversion() -> None:
    cmyk = saved(Image.new("CMYK", (16, 16), (0, 255, 255, 0)), "JPEG", quality=100)
    assert b"Adobe" in cmyk
    assert np.abs(pixels(cmyk) - np.array([255.0, 0, 0])).max() <= 2


def test_ycck_jpegs_are_read() -> None:
    """Adobe's other four-colour JPEG: cyan, magenta and yellow as a luminance and two colours."""
    wanted = (200, 50, 100)
    luma = Image.new("RGB", (16, 16), tuple(255 - value for value in wanted)).convert("YCbCr")
    stored = (*(255 - np.asarray(luma)[0, 0]).tolist(), 0)
    cmyk = saved(Image.new("CMYK", (16, 16), stored), "JPEG", quality=100)
    transform = cmyk.index(b"Adobe") + 11
    ycck = cmyk[:transform] + b"\2" + cmyk[transform + 1 :]
    assert np.abs(pixels(ycck) - np.array(wanted, dtype=float)).max() <= 3


# EXIF

SIDES = {  # where the stored first row and first column are in the scene (Exif 2.3, Orientation)
    1: ("top", "left"),
    2: ("top", "right"),
    3: ("bottom", "right"),
    4: ("bottom", "left"),
    5: ("left", "top"),
    6: ("right", "top"),
    7: ("right", "bottom"),
    8: ("left", "bottom"),
}


def as_stored(scene: Pixels, orientation: int) -> Pixels:
    row, column = SIDES[orientation]
    flipped = scene[::-1] if "bottom" in (row, column) else scene
    flipped = flipped[:, ::-1] if "right" in (row, column) else flipped
    return flipped.swapaxes(0, 1) if row in ("left", "right") else flipped


def exif(orientation: int, order: str = ">") -> bytes:
    head = {">": b"MM\0*", "<": b"II*\0"}[order] + struct.pack(f"{order}I", 8)
    entries = struct.pack(f"{order}HHIHH", 0x0112, 3, 1, orientation, 0)
    return b"Exif\0\0" + head + struct.pack(f"{order}H", 1) + entries + bytes(4)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("kind", ["PNG", "WEBP"])
def test_every_orientation_is_turned_upright(kind: str, order: str, orientation: int) -> None:
    scene = np.random.default_rng(2).integers(0, 256, (5, 7, 3), dtype=np.uint8)
    stored = Image.fromarray(np.ascontiguousarray(as_stored(scene, orientation)))
    data = saved(stored, kind, exif=exif(orientation, order), lossless=True)
    assert np.array_equal(pixels(data), scene)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_jpegs_are_turned_upright_too(orientation: int, astronaut: Image.Image) -> None:
    scene = np.asarray(astronaut.resize((96, 64)))
    stored = Image.fromarray(np.ascontiguousarray(as_stored(scene, orientation)))
    tags = Image.Exif()
    tags[0x010F] = "A maker whose name is too long for the entry itself"
    tags[0x0112] = orientation
    seen = pixels(saved(stored, "JPEG", quality=95, subsampling=0, exif=tags))
    assert np.abs(seen.astype(float) - scene).mean() < 3


@pytest.mark.parametrize(
    "broken",
    [
        b"Exif\0\0",
        b"Exif\0\0II*\0",
        b"Exif\0\0II*\0\xff\xff\xff\xff",
        b"Exif\0\0II*\0\x08\0\0\0\xff\xff\x01\x02\x03",
        b"Exif\0\0nonsense that is no TIFF header",
        exif(0),
        exif(9),
        exif(6)[:-12],
        exif(6).replace(b"\x01\x12\0\3", b"\x01\x12\0\2"),  # the orientation as text
    ],
)
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
def test_broken_exif_leaves_the_image_unrotated(
    kind: str, broken: bytes, noise: Image.Image
) -> None:
    plain = pixels(saved(noise, kind, lossless=True))
    assert np.array_equal(pixels(saved(noise, kind, exif=broken, lossless=True)), plain)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WebP"])
def test_the_header_gives_the_kind_and_the_upright_size(
    kind: str, orientation: int, noise: Image.Image
) -> None:
    data = saved(noise, kind.upper(), exif=exif(orientation))
    assert read_image_header(data) == (kind, *decode_image(data).size)
    if kind != "WebP":
        assert read_image_header(data[:200] if kind == "PNG" else data[:-10]) == read_image_header(
            data
        )


def test_what_a_camera_wrote_about_the_place_is_not_kept(noise: Image.Image) -> None:
    assert decode_image(saved(noise, "JPEG", exif=exif(6), comment="at home")).info == {}


# Bytes that are no image, or too much of one


def test_no_bytes_are_an_empty_file() -> None:
    assert reason(b"") == "empty"
    with pytest.raises(ImageError, match="The file is empty"):
        read_image_header(b"")


@pytest.mark.parametrize("kind", ["GIF", "BMP", "TIFF", "ICO", "PPM", "EPS", "PDF", "TGA", "SGI"])
def test_other_kinds_of_image_are_refused(kind: str, noise: Image.Image) -> None:
    assert reason(saved(noise, kind)) == "unknown"


@pytest.mark.parametrize(
    "data", [b"\0", b"hello", b"<svg/>", b"\xff\xd8", b"\x89PNG", b"RIFF\0\0\0\0WAVEfmt "]
)
def test_bytes_of_no_accepted_kind_are_unknown(data: bytes) -> None:
    assert reason(data) == "unknown"


def test_the_refusal_names_what_the_file_looks_like_and_what_is_accepted() -> None:
    with pytest.raises(ImageError, match=r"HEIC.*JPEG, PNG or WebP"):
        decode_image(b"\0\0\0\x18ftypheic\0\0\0\0mif1heic")


def header_only(kind: str, width: int, height: int) -> bytes:
    """The beginning of an image of that size: enough to know its size, nothing to decode."""
    if kind == "PNG":
        return png((width, height), 8, 2, b"")
    if kind == "WEBP":
        canvas = (width - 1).to_bytes(3, "little") + (height - 1).to_bytes(3, "little")
        still = saved(Image.new("RGBA", (8, 8), (1, 2, 3, 4)), "WEBP", exif=exif(1))
        return still[:24] + canvas + still[30:]
    jpeg = saved(Image.new("RGB", (8, 8)), "JPEG")
    at = jpeg.index(b"\xff\xc0") + 5
    return (
        jpeg[:at] + struct.pack(">HH", height, width) + jpeg[at + 4 : jpeg.index(b"\xff\xda") + 14]
    )


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
@pytest.mark.parametrize("size", [(7072, 7071), (10_000, 10_000), (65_000, 65_000)])
def test_too_many_pixels_are_refused_from_the_header(kind: str, size: tuple[int, int]) -> None:
    """50 million at most. Pillow itself would warn of the second and raise for the third."""
    with pytest.raises(ImageError, match=f"{size[0]:,} × {size[1]:,}") as caught:
        decode_image(header_only(kind, *size))
    assert caught.value.reason == "too-large"
    assert read_image_header(header_only(kind, *size)) == (kind, *size)


def test_a_webp_with_a_giant_canvas_is_refused() -> None:
    assert reason(header_only("WEBP", 16_384, 16_384)) == "too-large"


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
def test_the_limit_on_pixels_is_the_callers(kind: str, noise: Image.Image) -> None:
    data = saved(noise, kind)
    assert decode_image(data, max_pixels=60 * 40).size == (60, 40)
    assert reason(data, max_pixels=60 * 40 - 1) == "too-large"


def pillows_settings() -> tuple[int | None, bool]:
    return Image.MAX_IMAGE_PIXELS, ImageFile.LOAD_TRUNCATED_IMAGES


def test_pillows_own_limits_neither_speak_nor_change(noise: Image.Image) -> None:
    before = pillows_settings()
    assert reason(png((9500, 9500), 8, 0, b""), max_pixels=200_000_000) == "damaged"
    decode_image(saved(noise, "PNG"))
    assert pillows_settings() == before


def test_a_jpeg_of_thousands_of_scans_is_refused() -> None:
    """A progressive JPEG can ask for a pass over all its pixels in each seventy bytes."""
    jpeg = saved(Image.new("L", (64, 64), 128), "JPEG", progressive=True)
    last = jpeg[jpeg.rindex(b"\xff\xda") : -2]
    assert reason(jpeg[:-2] + last * 1000 + jpeg[-2:]) == "too-large"
    assert decode_image(jpeg).size == (64, 64)


def test_scans_of_a_preview_or_after_the_picture_do_not_count(noise: Image.Image) -> None:
    scan = b"\xff\xda\0\2"
    plain = saved(noise, "JPEG")
    data = saved(noise, "JPEG", exif=b"Exif\0\0" + scan * 500) + scan * 500
    assert np.array_equal(pixels(data), pixels(plain))


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
@pytest.mark.parametrize("share", [0.05, 0.5, 0.95])
def test_a_truncated_file_is_damaged(kind: str, share: float, astronaut: Image.Image) -> None:
    data = saved(astronaut, kind)
    assert reason(data[: int(len(data) * share)]) == "damaged"


@pytest.mark.parametrize("data", [b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"RIFF\0\0\0\0WEBP"])
def test_a_beginning_with_nothing_after_it_is_damaged(data: bytes) -> None:
    assert reason(data) == "damaged"


def test_an_image_error_survives_the_way_back_from_another_process() -> None:
    error = pickle.loads(pickle.dumps(ImageError("Too large.", "too-large")))  # noqa: S301
    assert (str(error), error.reason) == ("Too large.", "too-large")


def samples() -> list[bytes]:
    grey = Image.linear_gradient("L").resize((24, 16))
    colour = Image.merge("RGB", (grey, grey.rotate(180), grey))
    rgba = Image.merge("RGBA", (*colour.split(), grey))
    keyed = png((4, 4), 2, 0, bytes(4), chunk(b"tRNS", b"\0\1"), chunk(b"eXIf", exif(6)[6:]))
    return [
        saved(colour, "JPEG", exif=exif(6)),
        saved(grey, "JPEG", progressive=True),
        saved(colour.convert("CMYK"), "JPEG"),
        saved(colour, "MPO", save_all=True, append_images=[colour]),
        saved(rgba, "PNG", exif=exif(3)),
        saved(rgba.quantize(9), "PNG", transparency=2),
        saved(Image.fromarray(np.arange(384, dtype=np.uint16).reshape(16, 24) * 99), "PNG"),
        saved(colour, "PNG", save_all=True, append_images=[colour.rotate(90)]),
        keyed,
        saved(colour, "WEBP", exif=exif(8)),
        saved(rgba, "WEBP", lossless=True),
        saved(rgba, "WEBP", save_all=True, append_images=[rgba.rotate(90)]),
    ]


SAMPLES = samples()


def with_true_checksums(data: bytes) -> bytes:
    """The same PNG, chunk by chunk, with checksums that hold: damage then reaches the decoder."""
    parts, at = [data[:8]], 8
    while at + 12 <= len(data):
        length = int.from_bytes(data[at : at + 4], "big") % 1000
        parts.append(chunk(data[at + 4 : at + 8], data[at + 8 : at + 8 + length]))
        at += 12 + length
    return b"".join(parts)


@st.composite
def damaged_images(draw: st.DrawFn) -> bytes:
    data = bytearray(draw(st.sampled_from(SAMPLES)))
    places = st.integers(0, len(data) - 1)
    for at in draw(st.lists(places, max_size=6)):
        data[at] = draw(st.sampled_from([0, 1, 0x7F, 0x80, 0xFF]) | st.integers(0, 255))
    start, stop = sorted((draw(places), draw(places)))
    change = draw(st.sampled_from(["none", "truncate", "remove", "repeat"]))
    cut = {"truncate": data[:stop], "remove": data[:start] + data[stop:]}
    cut["repeat"] = data[:stop] + data[start:stop] + data[stop:]
    broken = bytes(cut.get(change, data))
    return with_true_checksums(broken) if draw(st.booleans()) and data[1:4] == b"PNG" else broken


@settings(max_examples=400, derandomize=True, deadline=None)
@given(damaged_images())
@example(b"\xff\xd8\xff\xda")
def test_damaged_bytes_give_a_square_or_an_image_error_and_nothing_else(data: bytes) -> None:
    try:
        square = cut_central_square(decode_image(data, max_pixels=100_000))
    except ImageError:
        return
    assert square.dtype == np.uint8
    assert square.shape == (256, 256, 3)

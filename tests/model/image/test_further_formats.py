"""BMP, TIFF, GIF, AVIF and HEIC: read of the owner's own files, wherever those are read."""

import io
import sys
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from app.classroom.zip_file import is_photograph as is_sent_photograph
from app.decoding.child import DecodeRequest
from app.decoding.pool import DecoderPool
from app.inference.classify_files import find_files
from index.building.file_list import UnreadableFile
from index.building.reader import DecodedFile, read_photograph
from model.dataset.folder import UPLOAD_SUFFIXES, is_photograph, scan_folder
from model.image.decode import ImageError, decode_image, read_image_header
from model.image.preprocess import read_square
from training.dataset.prepare import prepare

Pixels = npt.NDArray[np.uint8]
SUFFIXES = {"BMP": "bmp", "TIFF": "TIF", "GIF": "gif", "AVIF": "avif", "HEIC": "heic"}
LOSSY = {"AVIF", "HEIC"}


def make_picture() -> Image.Image:
    """Red, green and blue areas, in which every orientation is another picture."""
    pixels = np.zeros((40, 60, 3), np.uint8)
    pixels[:20, :30], pixels[:20, 30:], pixels[20:] = (200, 0, 0), (0, 200, 0), (0, 0, 200)
    return Image.fromarray(pixels)


def save(image: Image.Image, kind: str, **options: object) -> bytes:
    """Encode a picture, without a plugin of pillow-heif's that would last."""
    out = io.BytesIO()
    if kind == "HEIC":
        pytest.importorskip("pillow_heif", reason="pillow-heif is not installed").from_pillow(
            image
        ).save(out, quality=95)
    else:
        image.save(out, kind, **options)
    return out.getvalue()


def pixels_of(data: bytes) -> Pixels:
    return np.asarray(decode_image(data, trusted=True))


def differ(a: Pixels, b: Pixels) -> float:
    assert a.shape == b.shape
    return float(np.abs(a.astype(int) - b).mean())


@pytest.mark.parametrize("kind", SUFFIXES)
def test_a_picture_of_each_kind_is_read_if_it_is_trusted_and_only_then(kind: str) -> None:
    picture = make_picture()
    data = save(picture, kind)
    assert differ(pixels_of(data), np.asarray(picture)) <= (3 if kind in LOSSY else 0)
    assert read_image_header(data, trusted=True) == (kind, 60, 40)
    for refuse in (decode_image, read_image_header):
        with pytest.raises(ImageError, match="JPEG, PNG or WebP") as refused:
            refuse(data)
        assert refused.value.reason == "unknown"


@pytest.mark.parametrize("kind", SUFFIXES)
def test_size_limits_hold_before_anything_is_decoded(kind: str) -> None:
    data = save(make_picture(), kind)
    for limits in ({"max_pixels": 60 * 40 - 1}, {"max_side": 59}):
        with pytest.raises(ImageError) as refused:
            decode_image(data, trusted=True, **limits)
        assert refused.value.reason == "too-large"


@pytest.mark.filterwarnings("ignore:Corrupt EXIF data")
@pytest.mark.parametrize("kind", SUFFIXES)
def test_damaged_files_are_errors_of_one_kind(kind: str) -> None:
    data = save(make_picture(), kind)
    for size in (7, 20, len(data) // 2, len(data) - 5):
        with pytest.raises(ImageError) as refused:
            decode_image(data[:size], trusted=True)
        assert refused.value.reason in ("damaged", "unknown")


@pytest.mark.parametrize("kind", ["TIFF", "AVIF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_pictures_are_turned_as_jpegs_are(kind: str, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    picture = make_picture()
    upright = decode_image(save(picture, "PNG", exif=exif))
    data = save(picture, kind, exif=exif)
    assert differ(pixels_of(data), np.asarray(upright)) <= (3 if kind in LOSSY else 0)
    assert read_image_header(data, trusted=True)[1:] == upright.size
    assert not decode_image(data, trusted=True).info


def test_what_heic_says_about_turning_is_done_once() -> None:
    heif = pytest.importorskip("pillow_heif", reason="pillow-heif is not installed")
    exif, out = Image.Exif(), io.BytesIO()
    exif[0x0112] = 6
    # Its encoder writes the turn into the container, as phones do.
    heif.from_pillow(make_picture()).save(out, quality=95, exif=exif.tobytes())
    found = pixels_of(out.getvalue())
    turned = np.asarray(make_picture().transpose(Image.Transpose.ROTATE_270))
    assert differ(found, turned) <= 3


@pytest.mark.parametrize("compression", [None, "tiff_lzw"])
def test_sixteen_bits_keep_the_high_byte(compression: str | None) -> None:
    grey = np.arange(60 * 40, dtype=np.uint16).reshape(40, 60) * 27
    found = pixels_of(save(Image.fromarray(grey), "TIFF", compression=compression))
    assert np.array_equal(found, np.repeat((grey >> 8)[..., None], 3, axis=2))


@pytest.mark.parametrize("mode", ["1", "L", "P", "CMYK", "YCbCr"])
def test_other_modes_of_tiff_become_rgb(mode: str) -> None:
    picture = make_picture().convert(mode)
    assert differ(pixels_of(save(picture, "TIFF")), np.asarray(picture.convert("RGB"))) == 0


@pytest.mark.parametrize("mode", ["I", "F", "LAB"])
def test_pixels_that_no_photograph_has_are_named(mode: str) -> None:
    with pytest.raises(ImageError, match=rf"mode {mode}\b") as refused:
        decode_image(save(Image.new(mode, (4, 4)), "TIFF"), trusted=True)
    assert refused.value.reason == "unknown"


@pytest.mark.parametrize("kind", ["TIFF", "AVIF", "HEIC"])
def test_transparency_is_put_on_white(kind: str) -> None:
    picture = make_picture().convert("RGBA")
    picture.putalpha(
        Image.fromarray(np.repeat([[0], [255]], 20, axis=0).repeat(60, 1).astype("u1"))
    )
    found = pixels_of(save(picture, kind))
    assert found[:18].min() >= 250
    assert differ(found[22:], np.asarray(make_picture())[22:]) <= 3


def test_a_gif_is_its_first_frame_with_its_transparent_colour_white() -> None:
    first = Image.new("P", (6, 4), 1)
    first.putpalette([10, 20, 30, 40, 50, 60])
    first.putpixel((0, 0), 0)
    data = save(
        first, "GIF", save_all=True, append_images=[make_picture().resize((6, 4))], transparency=0
    )
    found = pixels_of(data)
    assert found[0, 0].tolist() == [255, 255, 255]
    assert found[2, 2].tolist() == [40, 50, 60]


def test_without_its_package_heic_is_named_with_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    with pytest.raises(ImageError, match=r"pip install '\.\[heif\]'") as refused:
        decode_image(b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", trusted=True)
    assert refused.value.reason == "unknown"


# Where the owner's own files are read


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Train and val with a file of each kind, and in train a damaged one of each."""
    for split in ("train", "val"):
        place = tmp_path / "photographs" / split / "one"
        place.mkdir(parents=True)
        other = place.parent / "two"
        other.mkdir()
        (other / "plain.png").write_bytes(save(make_picture(), "PNG"))
        for kind, suffix in SUFFIXES.items():
            if kind == "HEIC":
                continue  # tested above, where its package is installed
            data = save(make_picture(), kind)
            (place / f"whole.{suffix}").write_bytes(data)
            if split == "train":
                (place / f"damaged.{suffix}").write_bytes(data[: len(data) // 2])
    return tmp_path / "photographs"


@pytest.mark.filterwarnings("ignore:Corrupt EXIF data")
def test_training_sets_hold_them_and_name_the_damaged(folder: Path, tmp_path: Path) -> None:
    found = prepare(scan_folder(folder), tmp_path / "store", lambda _: None, side=32)
    assert (len(found.train), len(found.val)) == (5, 5)
    assert sorted(Path(line.partition(":")[0]).name for line in found.unreadable) == sorted(
        f"damaged.{suffix}" for kind, suffix in SUFFIXES.items() if kind != "HEIC"
    )


@pytest.mark.filterwarnings("ignore:Corrupt EXIF data")
def test_the_index_reads_them_and_passes_over_the_damaged(folder: Path) -> None:
    for kind, suffix in SUFFIXES.items():
        if kind == "HEIC":
            continue
        read = read_photograph(folder, f"train/one/whole.{suffix}", lambda _: None)
        assert isinstance(read, DecodedFile)
        assert (read.entry.format, read.entry.width, read.entry.height) == (kind, 60, 40)
        damaged = read_photograph(folder, f"train/one/damaged.{suffix}", lambda _: None)
        assert isinstance(damaged, UnreadableFile)


def test_commands_on_local_files_find_and_read_them(folder: Path) -> None:
    found = find_files([folder / "val/one"])
    assert len(found) == 4
    for file in found:
        assert isinstance(file, Path)
        assert read_square(file, side=20).shape == (20, 20, 3)


def test_pages_decode_them_in_the_decoders_processes_only_if_they_are_trusted() -> None:
    # A TIFF that LZW has packed needs libtiff; an AVIF's decoder starts threads.
    files = [save(make_picture(), "TIFF", compression="tiff_lzw"), save(make_picture(), "AVIF")]
    pool = DecoderPool(1, 500_000_000, 60)
    try:
        for data in files:
            made = pool.decode(data, DecodeRequest(picture=True, side=20, trusted=True))
            assert made.picture.shape == (40, 60, 3)
            assert made.square.shape == (20, 20, 3)
            with pytest.raises(ImageError) as refused:
                pool.decode(data, DecodeRequest(side=20))
            assert refused.value.reason == "unknown"
    finally:
        pool.close()


def test_names_of_uploads_are_not_more_than_before() -> None:
    for suffix in SUFFIXES.values():
        assert is_photograph(f"a.{suffix}")
        assert not is_sent_photograph(f"a.{suffix}", UPLOAD_SUFFIXES)
    assert is_photograph("a.JPG", UPLOAD_SUFFIXES)

"""What becomes of an image before the network sees it: the square, the mean, the crops."""

import io
import itertools
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import torch
from PIL import Image
from scipy.ndimage import map_coordinates
from skimage import data as photographs
from torchvision.models import AlexNet_Weights

from model.image.decode import ImageError
from model.image.preprocess import (
    crop_offsets,
    cut_central_square,
    decode_square,
    make_square,
    read_square,
    scale_pixels,
    subtract_mean,
)
from model.image.ten_crop import centre_crop, cut_ten_crops

ASTRONAUT: npt.NDArray[np.uint8] = photographs.astronaut()  # type: ignore[no-untyped-call]


def saved(image: Image.Image, kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


@pytest.fixture(scope="module")
def noise() -> Image.Image:
    return Image.fromarray(np.random.default_rng(3).integers(0, 256, (40, 60, 3), dtype=np.uint8))


# Short side 256, central 256×256

SIZES = [
    (512, 512),
    (640, 480),
    (375, 500),
    (257, 256),
    (256, 300),
    (300, 1203),
    (2000, 299),
    (17_001, 40),
]
SMALL = [(1, 1), (100, 37), (31, 32), (2, 255)]


@pytest.mark.parametrize("size", SIZES + SMALL)
def test_the_square_is_that_of_resizing_the_whole_and_then_cutting(size: tuple[int, int]) -> None:
    rng = np.random.default_rng(size)
    image = Image.fromarray(rng.integers(0, 256, (size[1], size[0], 3), dtype=np.uint8))
    width, height = (round(256 * side / min(size)) for side in size)
    across = image.resize((width, size[1]), Image.Resampling.BICUBIC)
    whole = np.asarray(across.resize((width, height), Image.Resampling.BICUBIC), dtype=int)
    top, left = (height - 256) // 2, (width - 256) // 2
    difference = np.abs(cut_central_square(image) - whole[top : top + 256, left : left + 256])
    assert difference.max() <= 1
    assert (difference == 0).mean() > 0.999


def bicubic(source: int, target: int) -> npt.NDArray[np.float64]:
    """Keys' cubic, a = -0.5, stretched by the reduction to antialias: [target, source]."""
    reduction = source / target
    middle = (np.arange(target)[:, None] + 0.5) * reduction
    x = np.abs(np.arange(source) + 0.5 - middle) / max(reduction, 1)
    near, far = 1.5 * x**3 - 2.5 * x**2 + 1, -0.5 * x**3 + 2.5 * x**2 - 4 * x + 2
    weights: npt.NDArray[np.float64] = np.where(x < 1, near, np.where(x < 2, far, 0))
    weights /= weights.sum(axis=1, keepdims=True)
    return weights


@pytest.mark.parametrize("side", [100, 333, 512])
def test_the_filter_is_the_antialiased_bicubic_written_out_in_numpy(side: int) -> None:
    image = Image.fromarray(ASTRONAUT[:side, :side])
    weights = bicubic(side, 256)
    across = np.einsum("xs,ysc->yxc", weights, np.asarray(image)).clip(0, 255)
    expected = np.einsum("ys,sxc->yxc", weights, np.floor(across + 0.5)).clip(0, 255)
    difference = np.abs(cut_central_square(image) - expected)
    assert difference.max() < 1.1  # what was nearly a tie across may have been rounded otherwise
    assert (difference < 0.51).mean() > 0.999


def test_an_image_of_256_by_256_is_left_as_it_is() -> None:
    image = ASTRONAUT[:256, :256]
    assert np.array_equal(decode_square(saved(Image.fromarray(image), "PNG")), image)


def test_an_image_whose_short_side_is_256_is_only_cut() -> None:
    image = ASTRONAUT[:256, :501]
    assert np.array_equal(cut_central_square(Image.fromarray(image)), image[:, 122 : 122 + 256])


@pytest.mark.parametrize("long", [60_000, 5_000_000])
@pytest.mark.parametrize("upright", [False, True])
def test_a_strip_one_pixel_wide_is_scaled_without_enlarging_all_of_it(
    long: int, upright: bool
) -> None:
    """Enlarged whole, the shorter of these would take 12 GB. The left half is black."""
    strip = np.repeat(np.array([0, 255], dtype=np.uint8), long // 2)
    image = Image.fromarray(strip[:, None] if upright else strip[None])
    square = cut_central_square(image.convert("RGB"))[..., 0].astype(int)
    ramp = square[:, 0] if upright else square[0]
    assert np.all(square == (ramp[:, None] if upright else ramp))
    assert np.all(np.diff(ramp) >= 0)
    assert np.abs(ramp + ramp[::-1] - 255).max() <= 1
    assert ramp[0] < 64 < 191 < ramp[-1]


def test_the_square_is_three_colours_of_bytes_that_torch_can_take(noise: Image.Image) -> None:
    square = cut_central_square(noise)
    assert square.dtype == np.uint8
    assert square.shape == (256, 256, 3)
    assert torch.from_numpy(square).shape == (256, 256, 3)  # a read-only array would warn


def test_an_image_that_is_not_rgb_is_refused_by_name() -> None:
    with pytest.raises(ValueError, match="not CMYK"):
        cut_central_square(Image.new("CMYK", (300, 300)))


# Others' ways to the square


@pytest.mark.parametrize("size", [(512, 512), (451, 300), (300, 451), (333, 200), (77, 100)])
def test_bilinear_is_torchvisions_preprocessing(size: tuple[int, int]) -> None:
    image = Image.fromarray(ASTRONAUT[: size[1], : size[0]])
    whole = AlexNet_Weights.IMAGENET1K_V1.transforms(mean=(0, 0, 0), std=(1, 1, 1))(image)
    expected = np.rint(255 * whole.numpy()).astype(int).transpose(1, 2, 0)
    difference = np.abs(make_square(image, 256, "bilinear")[16:240, 16:240] - expected)
    assert difference.max() <= 1
    assert (difference == 0).mean() > 0.99


@pytest.mark.parametrize("size", [(512, 512), (300, 451), (333, 200), (77, 100), (256, 1)])
def test_warp_samples_width_and_height_each_in_its_own_scale(size: tuple[int, int]) -> None:
    """As OpenCV documents it: bilinear between pixel centres, without any averaging."""
    image = ASTRONAUT[: size[1], : size[0]]
    places = [
        ((np.arange(256) + 0.5) * length / 256 - 0.5).clip(0, length - 1)
        for length in image.shape[:2]
    ]
    expected = np.stack(
        [
            map_coordinates(
                image[..., c].astype(float), np.meshgrid(*places, indexing="ij"), order=1
            )
            for c in range(3)
        ],
        axis=-1,
    )
    found = make_square(Image.fromarray(image), 256, "warp")
    assert np.abs(found - expected).max() <= 0.501
    assert found.dtype == np.uint8
    assert found.flags.c_contiguous


def test_each_colour_has_its_own_divisor() -> None:
    x = torch.full((2, 3, 4, 4), 12.0)
    scaled = scale_pixels(x.clone(), 2.0, (1.0, 3.0, 0.5))
    assert scaled[1, :, 0, 0].tolist() == [6, 2, 12]
    assert torch.equal(scale_pixels(x.clone(), 2.0, ()), x / 2)


# Files


def test_the_kind_is_told_by_the_content_and_not_by_the_name(
    tmp_path: Path, noise: Image.Image
) -> None:
    (tmp_path / "really-a-webp.jpg").write_bytes(saved(noise, "WEBP", lossless=True))
    expected = cut_central_square(noise)
    assert np.array_equal(read_square(tmp_path / "really-a-webp.jpg"), expected)


def test_errors_of_a_file_begin_with_its_path(tmp_path: Path) -> None:
    (tmp_path / "notes.jpg").write_text("not an image")
    for name, expected in [("notes.jpg", "unknown"), ("absent.jpg", "damaged"), (".", "damaged")]:
        with pytest.raises(ImageError) as caught:
            read_square(tmp_path / name)
        assert caught.value.reason == expected
        assert str(caught.value).startswith(f"{tmp_path / name}: ")


# Minus the mean, and the crops


def test_the_mean_is_subtracted_at_each_pixel_from_raw_values() -> None:
    rng = np.random.default_rng(4)
    images = rng.integers(0, 256, (3, 256, 256, 3), dtype=np.uint8)
    mean = rng.uniform(0, 255, (3, 256, 256)).astype(np.float32)
    seen = subtract_mean(torch.from_numpy(images), torch.from_numpy(mean))
    assert seen.dtype == torch.float32
    assert seen.is_contiguous(memory_format=torch.channels_last)
    expected = images.astype(np.float32).transpose(0, 3, 1, 2) - mean
    assert np.array_equal(seen.numpy(), expected)


def own_coordinates(count: int) -> torch.Tensor:
    """Images whose three colours are, at each pixel, its row, its column and its image's number."""
    axes = (torch.arange(256.0), torch.arange(256.0))
    row, column = torch.meshgrid(*axes, indexing="ij")
    return torch.stack([torch.stack([row, column, torch.full_like(row, n)]) for n in range(count)])


def test_the_ten_crops_are_the_four_corners_the_centre_and_their_mirrors() -> None:
    crops = cut_ten_crops(own_coordinates(2))
    assert crops.shape == (2, 10, 3, 224, 224)
    corners = itertools.product([(0, 223), (32, 255)], repeat=2)  # first and last row, then column
    expected = [(rows, columns) for rows, columns in corners] + [((16, 239), (16, 239))]
    for image, place in itertools.product(range(2), range(10)):
        rows, columns = expected[place % 5]
        columns = columns[::-1] if place >= 5 else columns
        crop = crops[image, place]
        assert (crop[0, 0, 0].item(), crop[0, -1, -1].item()) == rows
        assert (crop[1, 0, 0].item(), crop[1, -1, -1].item()) == columns
        step = 1 if place < 5 else -1
        assert torch.all(crop[0].diff(dim=0) == 1)
        assert torch.all(crop[1].diff(dim=1) == step)
        assert torch.all(crop[2] == image)


def test_the_centre_crop_leaves_sixteen_pixels_on_every_side() -> None:
    crop = centre_crop(own_coordinates(3))
    assert crop.shape == (3, 3, 224, 224)
    assert sorted(set(crop[0, 0].flatten().tolist())) == list(range(16, 240))
    assert sorted(set(crop[0, 1].flatten().tolist())) == list(range(16, 240))
    assert torch.equal(crop, cut_ten_crops(own_coordinates(3))[:, 4])


def test_wrong_shapes_and_types_are_named() -> None:
    right = torch.zeros(1, 256, 256, 3, dtype=torch.uint8)
    mean = torch.zeros(3, 256, 256)
    with pytest.raises(ValueError, match=r"pixels must be uint8 \[N, 256, 256, 3\].* not float32"):
        subtract_mean(right.float(), mean)
    with pytest.raises(ValueError, match=r"not uint8 \[1, 3, 256, 256\]"):
        subtract_mean(right.permute(0, 3, 1, 2), mean)
    with pytest.raises(ValueError, match=r"\[N, 32, 32, 3\].* not uint8 \[1, 256, 256, 3\]"):
        subtract_mean(right, torch.zeros(3, 32, 32))
    for wrong in (torch.zeros(3), torch.zeros(()), torch.zeros(3, 256, 255), mean.double()):
        with pytest.raises(ValueError, match=r"mean must be float32 \[3, s, s\], not "):
            subtract_mean(right, wrong)
    for crops in (cut_ten_crops, centre_crop):
        with pytest.raises(ValueError, match=r"float32 \[N, 3, s, s\], not float32 \[3, 256"):
            crops(mean)
        with pytest.raises(ValueError, match=r"not uint8"):
            crops(right)
        with pytest.raises(ValueError, match=r"not float32 \[1, 3, 256, 255\]"):
            crops(torch.zeros(1, 3, 256, 255))
        with pytest.raises(ValueError, match=r"no crop of 224×224 pixels fits into 32×32"):
            crops(torch.zeros(1, 3, 32, 32))


# Other sides than the paper's


@pytest.mark.parametrize("side", [32, 227, 300])
@pytest.mark.parametrize("size", [(512, 512), (640, 481), (33, 90), (17_001, 40)])
def test_a_square_of_another_side_is_cut_by_the_same_rule(side: int, size: tuple[int, int]) -> None:
    rng = np.random.default_rng(size)
    image = Image.fromarray(rng.integers(0, 256, (size[1], size[0], 3), dtype=np.uint8))
    width, height = (round(side * length / min(size)) for length in size)
    across = image.resize((width, size[1]), Image.Resampling.BICUBIC)
    whole = np.asarray(across.resize((width, height), Image.Resampling.BICUBIC), dtype=int)
    top, left = (height - side) // 2, (width - side) // 2
    square = decode_square(saved(image, "PNG"), side=side)
    assert square.shape == (side, side, 3)
    difference = np.abs(square - whole[top : top + side, left : left + side])
    assert difference.max() <= 1
    assert (difference == 0).mean() > 0.998


def test_a_picture_of_cifar_is_left_as_it_is(tmp_path: Path) -> None:
    image = ASTRONAUT[:32, :32]
    Image.fromarray(image).save(tmp_path / "a.png")
    assert np.array_equal(read_square(tmp_path / "a.png", side=32), image)


def test_the_offsets_are_the_corners_and_the_centre() -> None:
    # As cuda-convnet's ten crops of 2012 had them, and Caffe's 227 of 256.
    assert crop_offsets() == ((0, 0), (0, 32), (32, 0), (32, 32), (16, 16))
    assert crop_offsets(256, 227) == ((0, 0), (0, 29), (29, 0), (29, 29), (14, 14))
    assert set(crop_offsets(32, 32)) == {(0, 0)}


def test_other_squares_lose_their_own_mean_and_are_cropped() -> None:
    rng = np.random.default_rng(5)
    images = rng.integers(0, 256, (2, 32, 32, 3), dtype=np.uint8)
    mean = rng.uniform(0, 255, (3, 32, 32)).astype(np.float32)
    x = subtract_mean(torch.from_numpy(images), torch.from_numpy(mean))
    expected = images.astype(np.float32).transpose(0, 3, 1, 2) - mean
    assert np.array_equal(x.numpy(), expected)
    crops = cut_ten_crops(x, 24).numpy()
    assert np.array_equal(crops[:, 3], expected[:, :, 8:, 8:])
    assert np.array_equal(crops[:, 6], expected[:, :, :24, :7:-1])
    assert np.array_equal(centre_crop(x, 24).numpy(), expected[:, :, 4:28, 4:28])

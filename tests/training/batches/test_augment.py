"""The augmentations of §4.1, and as they were run in 2012, against NumPy image by image."""

import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from model.weights.checkpoint import Pca
from training.batches import augment
from training.batches.augment import (
    Augmentation,
    AugmentationDraws,
    Augmenter,
    compute_colour_shift,
    draw_augmentations,
)

PAPER = Augmentation()
ORIGINAL = Augmentation(sharing=32, inclusive=True, colour="original")
# ImageNet's eigenvalues on the 0–1 scale, as published with many re-implementations.
IMAGENET = torch.tensor([0.2175, 0.0188, 0.0045])


def drawn(
    augmentation: Augmentation, images: int, seed: int = 0, epoch: int = 1, batch: int = 128
) -> tuple[AugmentationDraws, np.ndarray]:
    order = np.random.default_rng(seed + epoch).permutation(images)
    how = {"batch": batch, "side": 256, "seed": seed, "epoch": epoch}
    return draw_augmentations(augmentation, order, **how), order


def test_crops_lie_within_32_offsets_and_half_are_mirrored() -> None:
    draws, _ = drawn(PAPER, 20_000)
    assert draws.offsets.shape == (20_000, 2)
    # 32 × 32 positions and a mirror: the paper's factor of 2048.
    assert set(np.unique(draws.offsets)) == set(range(32))
    assert abs(draws.mirrors.mean() - 0.5) < 0.02
    assert abs(draws.alphas.std() - 0.1) < 0.002
    assert abs(draws.alphas.mean()) < 0.002


def test_as_run_there_are_33_offsets_and_32_images_share_one() -> None:
    draws, order = drawn(ORIGINAL, 40_000)
    assert set(np.unique(draws.offsets)) == set(range(33))
    shared = draws.offsets[order][: 312 * 128].reshape(312 * 4, 32, 2)
    assert (shared == shared[:, :1]).all()
    mirrors = draws.mirrors[order][: 312 * 128].reshape(312 * 4, 32)
    assert (mirrors == mirrors[:, :1]).all()
    assert 0.45 < mirrors[:, 0].mean() < 0.55
    assert len({tuple(pair) for pair in shared[:, 0]}) > 600  # groups differ from each other
    # The colours stay each image's own.
    assert len(np.unique(draws.alphas)) > 100_000


@pytest.mark.parametrize("augmentation", [PAPER, ORIGINAL])
def test_without_mirrors_only_the_mirrors_change(augmentation: Augmentation) -> None:
    usual, _ = drawn(augmentation, 500)
    plain, _ = drawn(replace(augmentation, mirrors=False), 500)
    assert not plain.mirrors.any()
    assert np.array_equal(plain.offsets, usual.offsets)
    assert np.array_equal(plain.alphas, usual.alphas)


def test_groups_begin_anew_with_each_batch() -> None:
    draws, order = drawn(replace(ORIGINAL, sharing=3), 400, batch=8)
    offsets = draws.offsets[order].reshape(50, 8, 2)
    groups = [offsets[:, :3], offsets[:, 3:6], offsets[:, 6:]]
    assert all((group == group[:, :1]).all() for group in groups)
    assert any((offsets[:, 5] != offsets[:, 6]).any(1))
    assert any((offsets[:-1, 7] != offsets[1:, 0]).any(1))


def test_an_epoch_draws_the_same_again_and_others_draw_differently() -> None:
    for augmentation in (PAPER, ORIGINAL):
        (a, _), (b, _), (c, _), (d, _) = (
            drawn(augmentation, 1000, seed, epoch)
            for seed, epoch in ((0, 1), (0, 1), (0, 2), (1, 1))
        )
        assert np.array_equal(a.offsets, b.offsets)
        assert np.array_equal(a.alphas, b.alphas)
        for other in (c, d):
            assert not np.array_equal(a.offsets, other.offsets)
            assert not np.array_equal(a.alphas, other.alphas)


def test_without_noise_the_crops_are_the_same_and_the_colours_stay() -> None:
    loud, _ = drawn(ORIGINAL, 200)
    quiet, _ = drawn(replace(ORIGINAL, colour_noise=0.0), 200)
    assert np.array_equal(loud.offsets, quiet.offsets)
    assert not quiet.alphas.any()


@pytest.mark.parametrize("scale", [1.0, 60.0])
@pytest.mark.parametrize("colour", ["paper", "original"])
@pytest.mark.parametrize(
    ("side", "crop", "colours"),
    [
        (256, 224, ()),
        (256, 227, ()),
        (32, 24, ()),
        (32, 32, ()),
        (256, 224, (0.229, 0.224, 0.225)),
    ],
)
def test_a_batch_is_what_each_image_gives_alone(
    side: int, crop: int, colours: tuple[float, ...], colour: str, scale: float
) -> None:
    random = np.random.default_rng(side + crop)
    images = random.integers(0, 256, (5, side, side, 3), dtype=np.uint8)
    mean = random.uniform(0, 255, (3, side, side)).astype(np.float32)
    vectors, _ = np.linalg.qr(random.normal(size=(3, 3)))
    pca = Pca(IMAGENET, torch.tensor(vectors, dtype=torch.float32))
    most = side - crop
    draws = AugmentationDraws(
        offsets=random.integers(0, most + 1, (9, 2)),
        sizes=np.full((9, 2), crop),
        mirrors=np.arange(9) % 2 == 0,
        alphas=random.normal(0, 0.1, (9, 3)).astype(np.float32),
    )
    augmentation = Augmentation(
        crop=crop,
        colour=colour,  # type: ignore[arg-type]
        input_scale=scale,
        channel_scales=colours,
    )
    rows = np.array([8, 1, 0, 5, 3])
    x = Augmenter(augmentation, torch.from_numpy(mean), pca)(images, draws, rows)
    assert x.shape == (5, 3, crop, crop)
    assert x.dtype == torch.float32
    assert x.is_contiguous(memory_format=torch.channels_last)
    for found, image, row in zip(x.numpy(), images, rows, strict=True):
        top, left = draws.offsets[row]
        centred = image.transpose(2, 0, 1).astype(np.float64) - mean
        seen = centred[:, top : top + crop, left : left + crop]
        seen = seen[:, :, ::-1] if draws.mirrors[row] else seen
        shift = np.zeros(3)
        for i in range(3):
            value = IMAGENET[i].item()
            # √λ of 0–255 is 255 √λ of 0–1.
            weight = 255 * value if colour == "paper" else np.sqrt(255**2 * value)
            shift += vectors[:, i] * draws.alphas[row, i] * weight
        divisor = scale * (1.1 if colour == "original" else 1) * np.array(colours or (1.0,))
        expected = (seen + shift[:, None, None]) / divisor[:, None, None]
        np.testing.assert_allclose(found, expected, atol=2e-4 / divisor.min(), rtol=0)


def test_random_areas_are_spread_as_in_the_paper_they_are_from() -> None:
    draws, _ = drawn(replace(PAPER, smallest_area=0.35), 20_000)
    height, width = draws.sizes.T
    assert ((draws.offsets >= 0) & (draws.offsets + draws.sizes <= 256)).all()
    area, aspect = height * width / 256**2, np.log(width / height)
    assert (area >= 0.34).all()
    assert (np.abs(aspect) <= np.log(4 / 3) + 0.02).all()
    # Uniform where every aspect ratio fits into the square.
    low = area[area < 0.75]
    assert abs((low < 0.55).mean() - 0.5) < 0.02
    assert abs(aspect[area < 0.75].std() - 2 * np.log(4 / 3) / np.sqrt(12)) < 0.01
    assert abs(draws.mirrors.mean() - 0.5) < 0.02
    # Half of the offsets that are possible lie below the middle.
    assert abs((2 * draws.offsets + draws.sizes < 256).mean() - 0.5) < 0.02


def test_a_random_area_is_scaled_as_pillow_does_it() -> None:
    random = np.random.default_rng(0)
    noise = Image.fromarray(random.integers(0, 256, (16, 16, 3), dtype=np.uint8))
    image = np.asarray(noise.resize((256, 256), Image.Resampling.BICUBIC))
    mean = random.uniform(100, 120, (3, 256, 256)).astype(np.float32)
    draws = AugmentationDraws(
        offsets=np.array([[7, 30], [50, 3]]),
        sizes=np.array([[240, 200], [150, 180]]),
        mirrors=np.array([False, True]),
        alphas=np.zeros((2, 3), np.float32),
    )
    augmenter = Augmenter(
        replace(PAPER, smallest_area=0.35, input_scale=4.0),
        torch.from_numpy(mean),
        Pca(IMAGENET, torch.eye(3)),
    )
    x = augmenter([image, image], draws, np.arange(2)).numpy()
    assert x.shape == (2, 3, 224, 224)
    for found, (top, left), (height, width), mirror in zip(
        x, draws.offsets, draws.sizes, draws.mirrors, strict=True
    ):
        cut = Image.fromarray(image[top : top + height, left : left + width])
        pixels = np.asarray(cut.resize((224, 224), Image.Resampling.BILINEAR), dtype=np.float64)
        expected = (pixels.transpose(2, 0, 1) - mean[:, 16:240, 16:240]) / 4
        expected = expected[:, :, ::-1] if mirror else expected
        # Pillow rounds to grey levels; so does torch, in another place.
        assert np.abs(found - expected).max() <= 1.01 / 4


def test_1_1_goes_with_the_noise() -> None:
    assert ORIGINAL.divisor == pytest.approx(1.1)
    assert replace(ORIGINAL, colour_noise=0.0).divisor == 1.0
    assert replace(ORIGINAL, input_scale=60.0).divisor == pytest.approx(66)
    assert PAPER.divisor == 1.0


def test_the_shift_is_the_sum_over_the_components() -> None:
    random = np.random.default_rng(1)
    vectors, _ = np.linalg.qr(random.normal(size=(3, 3)))
    values, alphas = np.array([0.2, 0.02, 0.004]), random.normal(0, 0.1, (5, 3))
    pca = Pca(torch.tensor(values), torch.tensor(vectors))
    paper, original = (
        compute_colour_shift(pca, torch.from_numpy(alphas), colour).numpy()  # type: ignore[arg-type]
        for colour in ("paper", "original")
    )
    for row in range(5):
        printed, run = np.zeros(3), np.zeros(3)
        for i in range(3):
            printed += vectors[:, i] * alphas[row, i] * values[i]
            run += vectors[:, i] * alphas[row, i] * np.sqrt(values[i] * 255**2)
        np.testing.assert_allclose(paper[row], 255 * printed, rtol=1e-12)
        np.testing.assert_allclose(original[row], run, rtol=1e-12)


def test_the_colours_of_the_training_set_vary_by_a_few_grey_levels() -> None:
    alphas = torch.from_numpy(drawn(PAPER, 10_000)[0].alphas)
    pca = Pca(IMAGENET, torch.eye(3))
    assert 5 < compute_colour_shift(pca, alphas)[:, 0].std().item() < 6
    assert 11 < compute_colour_shift(pca, alphas, "original")[:, 0].std().item() < 13


def test_impossible_augmentations_are_refused() -> None:
    for wrong in (
        {"crop": 0},
        {"sharing": 0},
        {"colour_noise": -0.1},
        {"input_scale": 0.0},
        {"smallest_area": 0.0},
        {"smallest_area": 0.5, "sharing": 32},
    ):
        with pytest.raises(ValueError, match="augmentation"):
            replace(PAPER, **wrong)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="do not fit into 32×32"):
        PAPER.count_offsets(32)


@pytest.mark.skipif(shutil.which("cc") is None, reason="there is no C compiler")
def test_the_compiled_scaling_is_torchs_to_the_last_bit() -> None:
    random = np.random.default_rng(0)
    refused = 0
    for number in range(300):
        # Half of them as photographs' crops are, half of any size that may occur.
        side = 224 if number % 2 else int(random.integers(1, 130))
        height, width = random.integers(1, 2 * side + 4, 2)
        if number % 2:
            height, width = random.integers(100, 257, 2)
        whole = random.integers(0, 256, (height + 3, width + 5, 3), np.uint8)
        if number % 7 == 0:
            whole = whole // 128 * np.uint8(255)
        cut = whole[2 : 2 + height, 3 : 3 + width]
        out = np.empty((side, side, 3), np.uint8)
        room = np.empty(3 * height * side + 1, np.uint8)
        if augment.resize_compiled(cut, room, out):
            assert (out == augment.resize(cut, side)).all(), (height, width, side)
        else:
            refused += 1
            assert max(height, width) > 2 * side
    assert 0 < refused < 30


@pytest.mark.skipif(shutil.which("cc") is None, reason="there is no C compiler")
@pytest.mark.parametrize(
    "augmentation",
    [
        PAPER,
        ORIGINAL,
        Augmentation(smallest_area=0.35, input_scale=4.0),
        Augmentation(crop=61, channel_scales=(1.0, 0.7, 0.3), colour_noise=0.0),
    ],
)
def test_compiled_it_gives_the_same_to_the_last_bit(
    augmentation: Augmentation, monkeypatch: pytest.MonkeyPatch
) -> None:
    random = np.random.default_rng(0)
    images = random.integers(0, 256, (24, 256, 256, 3), np.uint8)
    mean = torch.from_numpy(random.uniform(0, 255, (3, 256, 256)).astype(np.float32))
    augmenter = Augmenter(augmentation, mean, Pca(IMAGENET, torch.eye(3)))
    draws = replace(drawn(augmentation, 24)[0], mirrors=np.arange(24) % 2 == 0)
    monkeypatch.setattr(augment, "_compiled", False)
    truth = augmenter(images, draws, np.arange(24))
    augment.compile_augmentation()
    found = augmenter(images, draws, np.arange(24))
    assert torch.equal(found, truth)
    assert found.is_contiguous(memory_format=torch.channels_last)

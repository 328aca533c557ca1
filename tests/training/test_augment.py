"""The augmentations of §4.1 against NumPy."""

import numpy as np
import torch

from model.checkpoint import Pca
from training.augment import Draws, colour_shift, crop_and_mirror, draw
from training.prepare import Moments


def test_crops_lie_within_32_offsets_and_half_are_mirrored() -> None:
    draws = draw(20_000, 0.1, seed=0, epoch=1)
    assert draws.offsets.shape == (20_000, 2)
    # 32 × 32 positions and a mirror: the paper's factor of 2048.
    assert set(np.unique(draws.offsets)) == set(range(32))
    assert abs(draws.mirrors.mean() - 0.5) < 0.02
    assert abs(draws.alphas.std() - 0.1) < 0.002
    assert abs(draws.alphas.mean()) < 0.002


def test_an_epoch_draws_the_same_again_and_others_draw_differently() -> None:
    a, b, c = (draw(100, 0.1, seed, epoch) for seed, epoch in ((0, 1), (0, 1), (0, 2)))
    assert np.array_equal(a.offsets, b.offsets)
    assert np.array_equal(a.alphas, b.alphas)
    assert not np.array_equal(a.offsets, c.offsets)
    assert not np.array_equal(a.alphas, draw(100, 0.1, 1, 1).alphas)


def test_a_crop_is_the_pixels_at_its_offset_and_its_mirror_their_mirror() -> None:
    x = torch.randn(3, 3, 256, 256)
    draws = Draws(
        offsets=np.array([[0, 0], [31, 7], [5, 31]]),
        mirrors=np.array([False, True, False]),
        alphas=np.zeros((3, 3), np.float32),
    )
    # The batch's first image is row 2 of the draws, and so on.
    out = crop_and_mirror(x, draws, np.array([2, 1, 0])).numpy()
    pixels = x.numpy()
    np.testing.assert_array_equal(out[0], pixels[0, :, 5:229, 31:255])
    np.testing.assert_array_equal(out[1], pixels[1, :, 31:255, 7:231][:, :, ::-1])
    np.testing.assert_array_equal(out[2], pixels[2, :, 0:224, 0:224])


def test_mean_image_and_pca_are_numpys_own() -> None:
    random = np.random.default_rng(0)
    mix = np.array([[60, 40, 20], [0, 30, 20], [0, 0, 10]])
    images = np.clip(random.normal(size=(4, 256, 256, 3)) @ mix + 120, 0, 255).astype(np.uint8)
    moments = Moments.zero()
    for image in images:
        moments.add(image)
    np.testing.assert_allclose(
        moments.mean_image().numpy(), images.mean(0).transpose(2, 0, 1), rtol=1e-6
    )
    covariance = np.cov(images.reshape(-1, 3).T / 255.0, bias=True)
    values, vectors = np.linalg.eigh(covariance)
    pca = moments.pca()
    np.testing.assert_allclose(pca.eigenvalues.numpy(), values[::-1], rtol=1e-5)
    for column in range(3):
        ours, numpys = pca.eigenvectors.numpy()[:, column], vectors[:, 2 - column]
        assert abs(abs(ours @ numpys) - 1) < 1e-5


def test_the_shift_is_the_sum_over_the_components() -> None:
    random = np.random.default_rng(1)
    vectors, _ = np.linalg.qr(random.normal(size=(3, 3)))
    values, alphas = np.array([0.2, 0.02, 0.004]), random.normal(0, 0.1, (5, 3))
    pca = Pca(torch.tensor(values), torch.tensor(vectors))
    ours = colour_shift(pca, torch.from_numpy(alphas)).numpy()
    for row in range(5):
        sought = np.zeros(3)
        for i in range(3):
            sought += vectors[:, i] * alphas[row, i] * values[i]
        np.testing.assert_allclose(ours[row], 255 * sought, rtol=1e-12)


def test_the_colours_of_the_training_set_vary_by_a_few_grey_levels() -> None:
    # ImageNet's eigenvalues on the 0–1 scale, as published with many re-implementations.
    pca = Pca(torch.tensor([0.2175, 0.0188, 0.0045]), torch.eye(3))
    shifts = colour_shift(pca, torch.from_numpy(draw(10_000, 0.1, 0, 1).alphas))
    assert 5 < shifts[:, 0].std().item() < 6

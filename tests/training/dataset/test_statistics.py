"""Mean image and principal components against NumPy."""

import numpy as np
import pytest

from training.dataset.statistics import PixelSums, sum_outer_products


def images(count: int = 4) -> np.ndarray:
    random = np.random.default_rng(0)
    mix = np.array([[60, 40, 20], [0, 30, 20], [0, 0, 10]])
    colours = random.normal(size=(count, 32, 32, 3)) @ mix + 120
    return np.clip(colours, 0, 255).astype(np.uint8)


def moments_of(several: np.ndarray) -> PixelSums:
    moments = PixelSums.zero(32)
    for image in several:
        moments.add(image, sum_outer_products(image))
    return moments


def test_mean_image_and_pca_are_numpys_own() -> None:
    several = images()
    moments = moments_of(several)
    np.testing.assert_allclose(
        moments.mean_image().numpy(), several.mean(0).transpose(2, 0, 1), rtol=1e-6
    )
    covariance = np.cov(several.reshape(-1, 3).T / 255.0, bias=True)
    values, vectors = np.linalg.eigh(covariance)
    pca = moments.pca()
    np.testing.assert_allclose(pca.eigenvalues.numpy(), values[::-1], rtol=1e-5)
    for column in range(3):
        ours, numpys = pca.eigenvectors.numpy()[:, column], vectors[:, 2 - column]
        assert abs(abs(ours @ numpys) - 1) < 1e-5


def test_the_sums_are_exact_whatever_the_order_and_the_parts() -> None:
    several = images(10)
    forwards, backwards = moments_of(several), moments_of(several[7:][::-1])
    backwards.merge(moments_of(several[:7]))
    assert forwards.count == backwards.count == 10
    flat = several.reshape(-1, 3).astype(object)  # Python's own whole numbers
    assert (forwards.outer == flat.T @ flat).all()
    assert (forwards.image == several.astype(object).sum(0)).all()
    assert (forwards.outer == backwards.outer).all()
    assert (forwards.image == backwards.image).all()


def test_a_white_image_of_256_by_256_is_summed_exactly() -> None:
    assert sum_outer_products(np.full((256, 256, 3), 255, np.uint8))[0, 2] == 255**2 * 256**2


@pytest.mark.parametrize("grey", [0, 77])
def test_images_of_one_colour_have_no_variance_and_no_negative_one(grey: int) -> None:
    values = moments_of(np.full((3, 32, 32, 3), grey, np.uint8)).pca().eigenvalues.numpy()
    assert (values >= 0).all()
    np.testing.assert_allclose(values, 0, atol=1e-9)

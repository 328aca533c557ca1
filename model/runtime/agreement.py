"""How far a runtime may depart from torch in float32, measured before it is used.

What the limits keep: the labels of a page, which shows probabilities in whole per cent, and the
neighbours of an image, whose distances are about half as large as the features themselves or
larger. So an index and its queries may come from different runtimes.
"""

import numpy as np

from model.runtime.protocol import Disagreement, Floats, Pixels, Runtime

TEST_IMAGES = 4


def measure_disagreement(
    runtime: Runtime, reference: Runtime, images: Pixels, *, features: bool = False
) -> Disagreement:
    """Run both on the same images, uint8 [N, 256, 256, 3].

    features: whether to compare `run_centre_crop` as well, which compiles it.
    """
    found, truth = runtime.run_ten_crops(images), reference.run_ten_crops(images)
    change = np.abs(found.probabilities.mean(1) - truth.probabilities.mean(1)).max()
    error = measure_feature_error(found.fc7, truth.fc7)
    if features:
        again = runtime.run_centre_crop(images)
        error = max(error, measure_feature_error(again, truth.fc7))
    worst = [float(value) if np.isfinite(value) else np.inf for value in (change, error)]
    return Disagreement(probability=worst[0], feature=worst[1])


def measure_feature_error(found: Floats, truth: Floats) -> float:
    """Return the largest relative error of a row: float32 [N, 4096] each."""
    lengths = np.linalg.norm(truth, axis=1)
    errors = np.linalg.norm(found - truth, axis=1)
    return float((errors / np.maximum(lengths, np.finfo(np.float32).tiny)).max())


def make_test_images(side: int, count: int = TEST_IMAGES, seed: int = 2012) -> Pixels:
    """Make images with the spectrum of photographs, 1/f, from a seed: uint8 [N, side, side, 3]."""
    random = np.random.default_rng(seed)
    across = np.fft.fftfreq(side)
    frequency = np.hypot(across[:, None], across[None, :])
    frequency[0, 0] = np.inf  # the mean is set below
    noise = random.standard_normal((count, 3, side, side))
    # Photographs' colours vary less than their brightness.
    noise = 0.3 * noise + noise[:, :1]
    waves = np.fft.ifft2(np.fft.fft2(noise) / frequency).real
    waves *= 60 / waves.std(axis=(1, 2, 3), keepdims=True)
    images: Pixels = (120 + waves).clip(0, 255).astype(np.uint8).transpose(0, 2, 3, 1)
    return np.ascontiguousarray(images)

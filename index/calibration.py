"""How far an answer can be trusted: what is usual for validation images, measured at the build.

The file `calibration.npz` of a version holds each validation image's distance from its nearest
training image, relative to the length of its own features; the temperature that makes the
probabilities fit how often they are right (Guo et al., *On Calibration of Modern Neural Networks*,
2017); and the margin between the two most probable labels below which the first is right at most
every second time.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from index.arrays import Array, load_arrays, save_arrays
from index.manifest import REBUILD_HINT, StoreError
from index.vectors import Doubles, Floats, Ids

CALIBRATION_FILE = "calibration.npz"
MAX_FALSE_ALARMS = 0.05
"""The share of images of known classes that may be taken for something unknown."""
MIN_ACCURACY = 0.5
"""Labels that are right less often than this are not named alone."""
INVERSE_TEMPERATURES = (0.02, 50.0)
"""Range in which the temperature is sought, as its inverse."""
SEARCH_STEPS = 80
"""Each narrows the range by the golden ratio: to below float64's precision of the minimum."""
COLUMNS = ("distances", "temperature", "margin", "losses", "labelled")

Verdict = Literal["sure", "unsure", "unlike"]


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """What is usual for validation images.

    distances: float64 [V], each one's distance from its nearest training image in fc7, divided by
    the norm of its own fc7 (blurred images have small features, and so lie near everything),
    ascending.
    temperature: divides the logarithm of probabilities; None if no validation image has a class
    that the network knows. margin: between the two most probable labels at this temperature, 0–1;
    images with a smaller one get the right label at most every second time. losses: mean negative
    log-likelihood of the right labels before and after. labelled: of how many images.
    """

    distances: Doubles
    temperature: float | None
    margin: float
    losses: tuple[float, float]
    labelled: int

    def judge(self, probabilities: Floats, distance: float | None) -> "Certainty":
        """Judge an answer by its probabilities, float32 [classes], and its relative distance."""
        scaled = scale_probabilities(probabilities[None], self.temperature or 1.0)[0]
        farther = nearer = None
        if distance is not None and len(self.distances):
            nearer = int(np.searchsorted(self.distances, distance, side="left"))
            farther = len(self.distances) - nearer
        verdict: Verdict = "sure"
        is_improbable = self.temperature is not None and scaled.max() < MIN_ACCURACY
        if is_improbable or compute_margins(scaled[None])[0] < self.margin:
            verdict = "unsure"
        # The p-value of conformal prediction (Vovk et al. 2005): among images like the validation
        # images, a share of at most MAX_FALSE_ALARMS has one as small.
        if farther is not None and (farther + 1) / (len(self.distances) + 1) <= MAX_FALSE_ALARMS:
            verdict = "unlike"
        return Certainty(
            verdict=verdict,
            nearer=nearer,
            images=len(self.distances),
            temperature=self.temperature,
            scaled=scaled.astype(np.float32),
        )


@dataclass(frozen=True, kw_only=True)
class Certainty:
    """How sure an answer is.

    verdict: `unlike` if the image is farther from all training images than is usual, `unsure` if
    the most probable label is less probable than not, at the temperature, or the first two are too
    close. nearer: how many of the `images` validation images
    are nearer to a training image; None without a distance. scaled: float32 [classes], the
    probabilities at the temperature; as they were if there is none.
    """

    verdict: Verdict
    nearer: int | None
    images: int
    temperature: float | None
    scaled: Floats


def calibrate(distances: Doubles, probabilities: Floats, labels: Ids) -> Calibration:
    """Calibrate with validation images.

    distances: float64 [V], relative. probabilities: float32 [N, classes] of those with a class that
    the network knows. labels: int64 [N], the index of this class.
    """
    found = np.sort(np.asarray(distances, np.float64))
    if not len(labels):
        return Calibration(distances=found, temperature=None, margin=0.0, losses=(0, 0), labelled=0)
    temperature = fit_temperature(probabilities, labels)
    scaled = scale_probabilities(probabilities, temperature)
    return Calibration(
        distances=found,
        temperature=temperature,
        margin=choose_margin(scaled, labels),
        losses=(
            compute_loss(scale_probabilities(probabilities, 1.0), labels),
            compute_loss(scaled, labels),
        ),
        labelled=len(labels),
    )


def compute_relative_distances(distances: Doubles, features: Floats) -> Doubles:
    """Divide distances, float64 [N], by the norms of the features, float32 [N, 4096]."""
    norms = np.linalg.norm(features.astype(np.float64), axis=1)
    relative: Doubles = distances / np.maximum(norms, np.finfo(np.float32).tiny)
    return relative


def scale_probabilities(probabilities: Floats, temperature: float) -> Doubles:
    """Divide the logarithms by the temperature and normalise: [N, classes] → float64 [N, classes].

    For one crop this is the softmax of fc8 divided by the temperature; here it is applied to the
    mean of ten crops.
    """
    logs = np.log(np.maximum(probabilities.astype(np.float64), np.finfo(np.float32).tiny))
    logs /= temperature
    powers = np.exp(logs - logs.max(axis=1, keepdims=True))
    scaled: Doubles = powers / powers.sum(axis=1, keepdims=True)
    return scaled


def fit_temperature(probabilities: Floats, labels: Ids) -> float:
    """Find the temperature with the least negative log-likelihood of the labels.

    The loss is convex in the inverse temperature, so a golden-section search finds its minimum.
    """
    low, high = INVERSE_TEMPERATURES
    ratio = (5**0.5 - 1) / 2

    def loss(inverse: float) -> float:
        return compute_loss(scale_probabilities(probabilities, 1 / inverse), labels)

    first, second = high - ratio * (high - low), low + ratio * (high - low)
    losses = [loss(first), loss(second)]
    for _ in range(SEARCH_STEPS):
        if losses[0] <= losses[1]:
            high, second = second, first
            first = high - ratio * (high - low)
            losses = [loss(first), losses[0]]
        else:
            low, first = first, second
            second = low + ratio * (high - low)
            losses = [losses[1], loss(second)]
    return 2 / (low + high)


def compute_loss(probabilities: Doubles, labels: Ids) -> float:
    """Compute the mean negative log-likelihood of labels, int64 [N], under [N, classes]."""
    own = probabilities[np.arange(len(labels)), labels]
    return float(-np.log(np.maximum(own, np.finfo(np.float64).tiny)).mean())


def compute_margins(probabilities: Doubles) -> Doubles:
    """Compute the difference of the two largest of each row: [N, classes] → float64 [N]."""
    if probabilities.shape[1] < 2:
        return np.ones(len(probabilities))
    best = np.partition(probabilities, -2, axis=1)[:, -2:]
    return np.asarray(best[:, 1] - best[:, 0], np.float64)


def choose_margin(probabilities: Doubles, labels: Ids) -> float:
    """Choose the largest margin below which at most half of the images get the right label.

    0 if there is none: then the label is right more often than not, however small the margin.
    Above 1, so that every answer is unsure, if at most half of all images get the right label.
    """
    margins = compute_margins(probabilities)
    order = np.argsort(margins, kind="stable")
    right = probabilities.argmax(axis=1)[order] == labels[order]
    counts = np.arange(1, len(order) + 1)
    below = np.flatnonzero(np.cumsum(right) <= MIN_ACCURACY * counts)
    if not len(below):
        return 0.0
    largest = 1.0 if below[-1] == len(order) - 1 else margins[order[below[-1]]]
    return float(np.nextafter(largest, np.inf))


def write_calibration(folder: Path, calibration: Calibration) -> None:
    """Write a calibration into a version's folder. Raises OSError."""
    values = (
        np.asarray(calibration.distances, "<f8"),
        np.array(np.nan if calibration.temperature is None else calibration.temperature),
        np.array(calibration.margin),
        np.array(calibration.losses),
        np.array(calibration.labelled, np.int64),
    )
    save_arrays(folder / CALIBRATION_FILE, dict(zip(COLUMNS, values, strict=True)))


def read_calibration(folder: Path) -> Calibration | None:
    """Read a version's calibration; None if it has none. Raises StoreError."""
    file = folder / CALIBRATION_FILE
    if not file.exists():
        return None
    found: dict[str, Array] = load_arrays(file, *COLUMNS)
    shapes = [found[name].shape for name in COLUMNS]
    if found["distances"].ndim != 1 or shapes[1:] != [(), (), (2,), ()]:
        raise StoreError(f"{file} is damaged: it has other shapes; {REBUILD_HINT}")
    temperature = float(found["temperature"])
    return Calibration(
        distances=found["distances"],
        temperature=None if np.isnan(temperature) else temperature,
        margin=float(found["margin"]),
        losses=(float(found["losses"][0]), float(found["losses"][1])),
        labelled=int(found["labelled"]),
    )

"""Vectors whose statistics are those of fc7, for sizes that no photographs are at hand for.

Each is a drawn combination of fixed directions, rectified. The variances of the directions fall
like those of fc7's principal components (`SPECTRUM`), and most of each combination is shared by the
vectors of a cluster, as images of a class share it. So a projection onto a few hundred directions
holds as much of a distance as it does for real features.
"""

from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np
import numpy.typing as npt

from benchmarks.windows import ROWS_PER_SLICE, Float16s
from model.network.config import FEATURES

SPECTRUM = {
    **{1: 0.115, 2: 0.105, 4: 0.086, 8: 0.057, 16: 0.0036, 32: 0.0014, 64: 0.0007},
    **{128: 0.00045, 256: 0.00029, 512: 0.00017, 1024: 0.00007},
}
"""The share of the variance in the i-th direction, before the numbers are rectified; between these
points the logarithms are interpolated, and what is left is the same in every direction. Rectified,
the components have nearly the shares of fc7's, which were measured with 1,800 of Imagenette's
training photographs and the weights that ship."""
DIRECTIONS = max(SPECTRUM)
CLUSTERS = 1000
SHARED = 0.8
"""Share of the variance within the directions that a cluster's vectors have in common. With it the
proof of an exact search in 1,500 vectors reads 235, and 178 in as many of Imagenette's."""
VARIANCE = 83.0
"""Of a vector, over all its numbers, before they are rectified; 28 after, as measured."""
QUERY_SLICE = 1 << 20
"""The number of the slice that queries come from, which no index reaches."""
Floats = npt.NDArray[np.float32]


def write_synthetic(
    folder: Path, count: int, on_progress: Callable[[int], None] = lambda _count: None
) -> None:
    """Write at least `count` vectors to `folder`, float16 [16384, 4096] per file.

    Existing slices are kept: a slice's vectors are determined by its number.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(-(-count // ROWS_PER_SLICE)):
        file = folder / f"{number:05}.npy"
        if not file.exists():
            part = file.with_suffix(".part")
            with part.open("wb") as out:
                np.save(out, draw_slice(number, ROWS_PER_SLICE))
            part.rename(file)
        on_progress((number + 1) * ROWS_PER_SLICE)


def draw_slice(number: int, rows: int) -> Float16s:
    """Draw the vectors of a slice: float16 [rows, 4096]."""
    rng = np.random.default_rng((2012, number))
    directions, centres, rest = draw_directions()
    found = np.empty((rows, FEATURES), np.float16)
    for start in range(0, rows, 1024):
        size = min(1024, rows - start)
        own = rng.standard_normal((size, DIRECTIONS), np.float32) * np.float32((1 - SHARED) ** 0.5)
        own += centres[rng.integers(CLUSTERS, size=size)]
        values = own @ directions
        values += rng.standard_normal((size, FEATURES), np.float32) * np.float32(rest)
        found[start : start + size] = np.maximum(values, 0)
    return found


@cache
def draw_directions() -> tuple[Floats, Floats, float]:
    """Draw the directions, float32 [1024, 4096], and the clusters' parts, float32 [1000, 1024].

    The last result is the standard deviation that every number has besides.
    """
    rng = np.random.default_rng(2012)
    axes = np.linalg.qr(rng.standard_normal((FEATURES, DIRECTIONS)))[0].T
    places, shares = np.log([*SPECTRUM]), np.log([*SPECTRUM.values()])
    variances = np.exp(np.interp(np.log(np.arange(1, DIRECTIONS + 1)), places, shares))
    rest = max(0.0, 1 - variances.sum()) / FEATURES
    centres = rng.standard_normal((CLUSTERS, DIRECTIONS)) * SHARED**0.5
    return (
        (axes * np.sqrt(VARIANCE * variances)[:, None]).astype(np.float32),
        centres.astype(np.float32),
        float(VARIANCE * rest) ** 0.5,
    )

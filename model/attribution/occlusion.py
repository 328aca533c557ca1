"""Occlusion (Zeiler and Fergus 2013): what a network says while a grey square covers a place.

The places are a grid of 27 × 27 over the centre crop. Every third in both directions makes the
coarse grid of 9 × 9, which is measured first; then follow nine strips of three rows each, in any
order. A square is a quarter of the crop wide, 56 of 224 pixels, and is cut off at the crop's edge.
"""

from collections.abc import Sequence

import numpy as np

from model.attribution.explain import find_centre_crop
from model.network.config import AlexNetConfig
from model.predict import Predictor
from model.runtime.protocol import Floats, Pixels

COARSE_SIDE, CELLS_PER_COARSE = 9, 3
FINE_SIDE = COARSE_SIDE * CELLS_PER_COARSE
PARTS = 1 + COARSE_SIDE
"""The coarse grid is part 0; part n is the strip of the fine grid's rows 3n − 3 to 3n − 1."""
SQUARES_PER_CROP = 4
"""Squares side by side that would cover the crop's width."""
IMAGES_PER_BATCH = 9
Cell = tuple[int, int]
"""A row and a column of the fine grid, from 0."""


def list_batches(part: int) -> list[list[Cell]]:
    """List the cells of a part, row by row, in batches. Raises ValueError for an unknown part."""
    if not 0 <= part < PARTS:
        raise ValueError(f"occlusion has parts 0 to {PARTS - 1}")
    columns = range(FINE_SIDE)
    rows = range(CELLS_PER_COARSE * (part - 1), CELLS_PER_COARSE * part)
    if part == 0:
        rows = columns = range(CELLS_PER_COARSE // 2, FINE_SIDE, CELLS_PER_COARSE)
    cells = [(row, column) for row in rows for column in columns]
    return [cells[n : n + IMAGES_PER_BATCH] for n in range(0, len(cells), IMAGES_PER_BATCH)]


def measure_occlusion(
    predictor: Predictor,
    square: Pixels,
    cells: Sequence[Cell],
    gains: Sequence[Floats] | None = None,
) -> Floats:
    """Compute the labels' probabilities with each of these cells covered: float32 [n, classes].

    square: uint8 [256, 256, 3]. gains: as of `Runtime`.
    """
    grey = round_mean(predictor.runtime.read_mean())
    covered = np.repeat(square[None], len(cells), axis=0)
    for image, cell in zip(covered, cells, strict=True):
        place = find_covered_place(predictor.config, cell)
        image[place] = grey[place]
    return compute_softmax(predictor.runtime.run_logits(covered, gains))


def find_covered_place(config: AlexNetConfig, cell: Cell) -> tuple[slice, slice]:
    """Return the rows and columns of the square that are grey while a cell is covered."""
    size = round(config.crop / SQUARES_PER_CROP)
    rows, columns = (
        slice(
            crop.start + max(0, first := round((place + 0.5) * config.crop / FINE_SIDE - size / 2)),
            crop.start + min(config.crop, first + size),
        )
        for place, crop in zip(cell, find_centre_crop(config), strict=True)
    )
    return rows, columns


def round_mean(mean: Floats) -> Pixels:
    """Round a mean image, float32 [3, side, side], to pixels: uint8 [side, side, 3].

    Less the mean, it is within half a grey level of zero, which the network sees beyond an edge.
    """
    return np.rint(mean).clip(0, 255).astype(np.uint8).transpose(1, 2, 0)


def compute_softmax(logits: Floats) -> Floats:
    """Compute probabilities of float32 [N, classes]."""
    exponentials = np.exp(logits - logits.max(axis=-1, keepdims=True))
    found: Floats = exponentials / exponentials.sum(axis=-1, keepdims=True)
    return found

"""Maps as pictures: where each lies, and how much ink a value gets."""

import itertools

import numpy as np
import pytest

from model.visualize import MIN_INK, draw_maps


def alpha(picture) -> np.ndarray:
    *colours, ink = np.moveaxis(np.asarray(picture.convert("RGBA")), -1, 0)
    assert not np.any(colours)
    return ink


@pytest.mark.parametrize(
    ("count", "columns", "side", "scale", "gap"), [(48, 8, 5, 2, 2), (5, 3, 1, 4, 0)]
)
def test_every_value_is_a_square_of_ink_by_the_root_of_its_share(
    count: int, columns: int, side: int, scale: int, gap: int
) -> None:
    maps = np.random.default_rng(0).random((count, side, side), dtype=np.float32)
    ink = alpha(draw_maps(maps, columns, scale=scale, largest=2.0, gap=gap))
    cell = side * scale + gap
    expected = np.zeros((-(-count // columns) * cell, columns * cell))
    for n, y, x in itertools.product(range(count), range(side), range(side)):
        top, left = n // columns * cell + y * scale, n % columns * cell + x * scale
        value = MIN_INK + (255 - MIN_INK) * (maps[n, y, x] / 2) ** 0.5
        expected[top : top + scale, left : left + scale] = value
    assert ink.shape == expected.shape
    assert np.abs(ink - expected).max() <= 0.51
    assert np.array_equal(ink == 0, expected == 0)


def test_nothing_has_faint_ink_and_the_largest_all_of_it() -> None:
    maps = np.array([[[0.0, 3.0], [-3.0, 5.0]]], np.float32)
    assert alpha(draw_maps(maps, 1, scale=1, largest=3.0, gap=0)).tolist() == [
        [MIN_INK, 255],
        [255, 255],
    ]
    assert np.unique(alpha(draw_maps(np.zeros_like(maps), 1, scale=1, largest=0.0, gap=0))) == [
        MIN_INK
    ]

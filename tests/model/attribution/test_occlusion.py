"""Occlusion: an object on grey is where covering matters, and nowhere else."""

from collections.abc import Callable

import numpy as np
import pytest
import skimage.data
import torch

from model.attribution.occlusion import (
    COARSE_SIDE,
    FINE_SIDE,
    PARTS,
    find_covered_place,
    list_batches,
    measure_occlusion,
)
from model.network.config import AlexNetConfig
from model.predict import Predictor
from model.weights.checkpoint import Weights


@pytest.fixture(scope="module")
def predictor(weights_of: Callable[..., Weights], two_towers: AlexNetConfig) -> Predictor:
    return Predictor.from_weights(weights_of(two_towers, mean=120.0, seed=3), "cpu")


def test_the_hottest_cell_is_where_the_object_is(predictor: Predictor) -> None:
    square = np.full((72, 72, 3), 120, np.uint8)
    square[46:54, 18:26] = skimage.data.astronaut()[90:106:2, 210:226:2]
    whole = torch.softmax(torch.from_numpy(predictor.runtime.run_logits(square[None])), 1)[0]
    cells = [cell for batch in list_batches(0) for cell in batch]
    covered = measure_occlusion(predictor, square, cells)
    assert covered.shape == (81, 5)
    change = np.abs(covered - whole.numpy()).sum(axis=1)
    rows, columns = find_covered_place(predictor.config, cells[int(change.argmax())])
    assert rows.start <= 50 < rows.stop
    assert columns.start <= 22 < columns.stop
    for cell, moved in zip(cells, change, strict=True):
        place = find_covered_place(predictor.config, cell)
        if (square[place] == 120).all():
            assert moved < 1e-5
    label = int((whole.numpy() - covered[int(change.argmax())]).argmax())
    drop = whole.numpy()[label] - covered[:, label]
    assert drop.argmax() == change.argmax()


def test_the_parts_cover_each_place_once() -> None:
    strips = [cell for part in range(1, PARTS) for batch in list_batches(part) for cell in batch]
    assert sorted(strips) == [tuple(cell) for cell in np.ndindex(FINE_SIDE, FINE_SIDE)]
    coarse = [cell for batch in list_batches(0) for cell in batch]
    assert len(set(coarse)) == COARSE_SIDE**2
    middles = {1, 4, 7, 10, 13, 16, 19, 22, 25}
    assert set(coarse) == {(row, column) for row in middles for column in middles}
    with pytest.raises(ValueError, match="parts"):
        list_batches(PARTS)


def test_a_square_is_a_quarter_of_the_crop_and_lies_within_it(
    two_towers: AlexNetConfig,
) -> None:
    rows, columns = find_covered_place(AlexNetConfig(), (13, 13))
    assert (rows, columns) == (slice(100, 156), slice(100, 156))
    rows, columns = find_covered_place(AlexNetConfig(), (0, 26))
    assert (rows.start, columns.stop) == (16, 240)
    for cell in ((0, 0), (26, 26), (13, 0)):
        for place in find_covered_place(two_towers, cell):
            assert 6 <= place.start < place.stop <= 66

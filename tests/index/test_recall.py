"""The share of queries whose nearest image has their class, against a count by hand."""

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import pytest

from index.recall import nearest_class_share
from index.store import Index
from model.config import FEATURES

Make = Callable[..., Index]


def corner(number: int) -> npt.NDArray[np.float32]:
    """A vector far from those of other numbers."""
    vector = np.zeros(FEATURES, np.float32)
    vector[number] = 10
    return vector


def test_share(make_index: Make) -> None:
    index = make_index(np.stack([corner(0), corner(1), corner(2)]), [10, 20, 30])
    class_of = {10: 0, 20: 1, 30: 1}
    queries = np.stack([corner(0), corner(1), corner(2), corner(2)]) + np.float32(0.001)
    assert nearest_class_share(index, queries, [0, 1, 1, 0], class_of) == 0.75
    assert nearest_class_share(index, queries, [1, 0, 0, 0], class_of) == 0


def test_more_queries_than_a_batch(
    make_index: Make, vectors: Callable[..., npt.NDArray[np.float32]]
) -> None:
    index = make_index(vectors(50, 1))
    class_of = {i: (i - 1) % 5 for i in range(1, 51)}
    queries = vectors(600, 2)
    assert nearest_class_share(index, queries, [i % 5 for i in range(600)], class_of) == 1


@pytest.mark.parametrize(("rows", "classes"), [(0, []), (2, [1])])
def test_queries_without_classes_are_refused(
    make_index: Make, rows: int, classes: list[int]
) -> None:
    index = make_index(np.stack([corner(0)]))
    with pytest.raises(ValueError, match="share"):
        nearest_class_share(index, np.zeros((rows, FEATURES), np.float32), classes, {1: 0})

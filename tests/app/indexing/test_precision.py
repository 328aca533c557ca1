"""The share of queries whose nearest image has their class, against a count by hand."""

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from app.indexing import precision
from app.indexing.precision import measure_nearest_class_share
from index.draft import draft_version
from index.id_map import write_id_map
from index.store import Index, open_version
from index.vectors import write_shard
from model.network.config import FEATURES

CLASS_OF = {10: 0, 20: 1, 30: 1}


def corners(*numbers: int) -> npt.NDArray[np.float32]:
    """Vectors far from those of other numbers."""
    vectors = np.zeros((len(numbers), FEATURES), np.float32)
    vectors[np.arange(len(numbers)), numbers] = 10
    return vectors


@pytest.fixture
def index(tmp_path: Path) -> Index:
    """The corners 0, 1 and 2."""
    with draft_version(tmp_path) as draft:
        shard = write_shard(draft.folder / "vectors-0.npy", [corners(0, 1, 2)], "float32")
        draft.shards.append(shard)
        write_id_map(draft.folder, np.array([*CLASS_OF]), np.arange(3), np.arange(3))
        name = draft.commit(
            weights="w", data="/d", unreadable=0, listing="l", images=3, vectors=3,
            dtype="float32", kind="exact", target=0.95,
        ).name  # fmt: skip
    return open_version(tmp_path, name)


@pytest.mark.parametrize("batch", [1, 256])
def test_share(index: Index, batch: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(precision, "QUERIES_PER_SEARCH", batch)
    queries = corners(0, 1, 2, 2) + np.float32(0.001)
    assert measure_nearest_class_share(index, queries, [0, 1, 1, 0], CLASS_OF) == 0.75
    assert measure_nearest_class_share(index, queries, [1, 0, 0, 0], CLASS_OF) == 0


@pytest.mark.parametrize(("rows", "classes"), [(0, []), (2, [1])])
def test_queries_without_classes_are_refused(index: Index, rows: int, classes: list[int]) -> None:
    with pytest.raises(ValueError, match=str(rows)):
        measure_nearest_class_share(index, np.zeros((rows, FEATURES), np.float32), classes, {1: 0})

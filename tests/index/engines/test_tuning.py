"""The effort chosen is the least that reaches the recall asked for, by measurement."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from index.engines.protocol import RowFilter
from index.engines.tuning import (
    TunedEffort,
    tune_effort,
    tune_within_classes,
    wilson_lower_bound,
)
from index.id_map import IdMap
from index.vectors import Vectors, write_shard

ALL = np.arange(600)
WIDTH = 32
"""Dimensions that are not 0, so that brute force is cheap."""


def random_vectors(count: int, seed: int) -> Any:
    vectors = np.zeros((count, 4096), np.float32)
    vectors[:, :WIDTH] = np.random.default_rng(seed).random((count, WIDTH))
    return vectors


class Lossy:
    """Finds the true nearest by brute force, then loses some: fewer the higher the effort."""

    exhaustive, filters = False, False

    def __init__(self, values: Any, found: list[float], most: int = 4096) -> None:
        self.values, self.found, self.most, self.levels = values, found, most, len(found)
        self.rng = np.random.default_rng(0)
        self.asked: list[int] = []

    def propose(self, queries: Any, count: int, row_filter: RowFilter, effort: int) -> Any:
        self.asked.append(len(queries))
        values = self.values[:, :WIDTH]
        squared = np.square(values).sum(axis=1) - 2 * queries[:, :WIDTH] @ values.T
        near = squared.argsort(axis=1)[:, : min(count, self.most)]
        near[self.rng.random(near.shape) > self.found[effort]] = -1
        return near


@pytest.fixture(autouse=True)
def equally_fast(monkeypatch: pytest.MonkeyPatch) -> None:
    """All trials take the same time: what else runs on the machine chooses nothing."""
    monkeypatch.setattr("index.engines.tuning.perf_counter", lambda: 0.0)


@pytest.fixture(scope="module")
def values() -> Any:
    return random_vectors(600, seed=3)


@pytest.fixture(scope="module")
def vectors(values: Any, tmp_path_factory: pytest.TempPathFactory) -> Vectors:
    folder: Path = tmp_path_factory.mktemp("vectors")
    return Vectors(folder, [write_shard(folder / "0.npy", [values], "float32")], "float32")


def test_the_least_effort_that_suffices(values: Any, vectors: Vectors) -> None:
    found = tune_effort(Lossy(values, [0.3, 0.6, 0.999, 1.0, 1.0]), vectors, ALL, 0.95)
    assert (found.effort, found.reached) == (2, True)
    assert found.candidates <= 64
    assert found.recall["recall@6"] == pytest.approx(0.999, abs=0.004)
    assert found.recall["queries"] == 256


def test_a_sample_that_flatters_is_not_trusted(values: Any, vectors: Vectors) -> None:
    """0.96 measured over 256 queries may well be 0.94."""
    found = tune_effort(Lossy(values, [0.96, 1.0]), vectors, ALL, 0.95)
    assert found.effort == 1


class Wary(Lossy):
    """Loses less of what is asked about its own vectors than about others."""

    def propose(self, queries: Any, count: int, row_filter: RowFilter, effort: int) -> Any:
        near = super().propose(queries, count, row_filter, self.levels - 1)
        own = (queries[:, None, :8] == self.values[None, :, :8]).all(axis=2).any(axis=1)
        lost = self.rng.random(near.shape) > self.found[effort]
        near[lost & ~own[:, None]] = -1
        return near


def test_images_that_are_not_in_the_index_have_to_find_their_neighbours_too(
    values: Any, vectors: Vectors
) -> None:
    others = random_vectors(200, seed=4)
    wary = Wary(values, [0.5, 0.8, 1.0])
    assert tune_effort(wary, vectors, ALL, 0.95).effort == 0
    found = tune_effort(wary, vectors, ALL, 0.95, held_out=others)
    assert (found.effort, found.reached) == (2, True)
    assert found.recall["queries"] == 456
    low = tune_effort(Wary(values, [0.5, 0.8, 0.8]), vectors, ALL, 0.95, held_out=others)
    assert low.recall["recall@6"] == pytest.approx(0.64, abs=0.05)


def test_where_nothing_suffices_the_best_is_given(values: Any, vectors: Vectors) -> None:
    found = tune_effort(Lossy(values, [0.2, 0.5, 0.8]), vectors, ALL, 0.95)
    assert (found.effort, found.reached) == (2, False)
    assert found.recall["recall@6"] == pytest.approx(0.8, abs=0.05)


def test_more_candidates_where_the_first_are_the_wrong_ones(values: Any, vectors: Vectors) -> None:
    class Late(Lossy):
        """Has the nearest among its candidates, but not among the first 200."""

        def propose(self, queries: Any, count: int, row_filter: RowFilter, effort: int) -> Any:
            near = super().propose(queries, count, row_filter, effort)
            return near if count > 200 else near[:, ::-1][:, : count // 2]

    found = tune_effort(Late(values, [1.0, 1.0]), vectors, ALL, 0.95)
    assert (found.candidates, found.effort) == (256, 0)


def test_only_living_rows_are_asked_about_and_counted(values: Any, vectors: Vectors) -> None:
    rows = np.arange(100, 400, 2)

    class Living(Lossy):
        def propose(self, queries: Any, count: int, row_filter: RowFilter, effort: int) -> Any:
            return rows[super().propose(queries, count, row_filter, effort)]

    living = Living(values[rows], [1.0])
    found = tune_effort(living, vectors, rows, 1.0)
    assert found == TunedEffort(
        effort=0,
        candidates=16,
        recall={"recall@6": 1.0, "recall@100": 1.0, "queries": 150.0},
        reached=True,
    )
    assert set(living.asked) == {150}


def test_a_row_is_not_its_own_neighbour(values: Any, vectors: Vectors) -> None:
    """What proposes nothing but the row itself finds nothing."""
    found = tune_effort(Lossy(values, [1.0], most=1), vectors, ALL, 0.5)
    assert found.recall["recall@6"] == 0
    assert not found.reached


@pytest.mark.parametrize("count", [1, 2, 7])
def test_a_handful_of_rows(values: Any, vectors: Vectors, count: int) -> None:
    found = tune_effort(Lossy(values[:count], [1.0]), vectors, np.arange(count), 0.95)
    assert found.reached
    assert found.recall["recall@6"] == 1


class Filtering(Lossy):
    """Applies filters, but under one it finds nothing below a certain effort."""

    filters = True

    def propose(self, queries: Any, count: int, row_filter: RowFilter, effort: int) -> Any:
        if row_filter.rows is None:
            return super().propose(queries, count, row_filter, effort)
        assert row_filter.classes is not None
        assert len(row_filter.classes) == 1
        if effort < 2:
            return np.full((len(queries), count), -1)
        values, rows = self.values[:, :WIDTH], row_filter.rows
        squared = np.square(values[rows]).sum(axis=1) - 2 * queries[:, :WIDTH] @ values[rows].T
        return rows[squared.argsort(axis=1)[:, :count]]


def test_the_target_is_reached_within_classes_too(values: Any, vectors: Vectors) -> None:
    id_map = IdMap(ALL, ALL, (ALL % 5).astype(np.int32))
    engine = Filtering(values, [1.0, 1.0, 1.0, 1.0])
    tuned = tune_effort(engine, vectors, ALL, 0.95)
    assert tuned.effort == 0
    found = tune_within_classes(engine, vectors, id_map, tuned, 0.95)
    assert found.effort == 2
    assert found.recall["recall@6 within classes"] == 1.0
    hopeless = tune_within_classes(Filtering(values, [1.0]), vectors, id_map, tuned, 0.95)
    assert hopeless.recall["recall@6 within classes"] == 0.0
    # What an engine does not filter is proven.
    lossy = Lossy(values, [0.5])
    asked = len(lossy.asked)
    assert (
        tune_within_classes(lossy, vectors, id_map, tuned, 0.95).recall["recall@6 within classes"]
        == 1.0
    )
    assert len(lossy.asked) == asked


def test_a_higher_target_asks_more_rows(values: Any, vectors: Vectors) -> None:
    found = tune_effort(Lossy(values, [1.0]), vectors, ALL, 0.98)
    assert found.recall["queries"] > 500


def test_progress_is_told(values: Any, vectors: Vectors) -> None:
    told: list[tuple[str, int, int]] = []
    report = lambda name, total: lambda done: told.append((name, total, done))  # noqa: E731
    tune_effort(Lossy(values, [1.0]), vectors, ALL, 0.95, report=report)
    assert told[-1][1:] == (600, 600)


def test_the_margin_is_wilson_s() -> None:
    """Against the textbook's example: 0.8 of 10, two-sided 90 %, begins at 0.541."""
    assert wilson_lower_bound(0.8, 10) == pytest.approx(0.541, abs=0.001)

"""Neighbours are those of a brute-force search in float64."""

from collections.abc import Callable
from pathlib import Path

import faiss
import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from index import search
from index.store import Index, open_version
from model.alexnet import FEATURES

Floats = npt.NDArray[np.float32]
Vectors = Callable[..., Floats]
Make = Callable[..., Index]


def brute_force(
    known: Floats, ids: npt.NDArray[np.int64], query: Floats, k: int
) -> tuple[list[int], list[float]]:
    """The k nearest by comparing with all, in float64, ties by id."""
    differences = known.astype(np.float64) - query.astype(np.float64)
    distances = np.sqrt((differences**2).sum(1))
    order = sorted(range(len(ids)), key=lambda i: (distances[i], ids[i]))[:k]
    return [int(ids[i]) for i in order], [float(distances[i]) for i in order]


def check_against_brute_force(index: Index, queries: Floats, k: int) -> None:
    ids, distances = index.search(queries, k)
    for row, query in enumerate(queries):
        expected = brute_force(index.features, index.ids, query, k)
        assert ids[row].tolist() == expected[0]
        assert distances[row] == pytest.approx(expected[1], rel=1e-12, abs=1e-12)


def test_neighbours_are_those_of_brute_force(vectors: Vectors, make_index: Make) -> None:
    index = make_index(vectors(300, 1), list(range(7, 907, 3)))
    check_against_brute_force(index, vectors(40, 2), 6)


def test_a_batch_gives_the_same_as_its_rows_alone(vectors: Vectors, make_index: Make) -> None:
    index, queries = make_index(vectors(200, 1)), vectors(30, 2)
    ids, distances = index.search(queries, 6)
    for row, query in enumerate(queries):
        alone = index.search(query[None], 6)
        assert (alone[0][0] == ids[row]).all()
        assert (alone[1][0] == distances[row]).all()


def test_an_image_is_at_distance_zero_from_itself(vectors: Vectors, make_index: Make) -> None:
    known = vectors(100, 1)
    ids, distances = make_index(known).search(known, 1)
    assert ids[:, 0].tolist() == list(range(1, 101))
    assert (distances == 0).all()


def test_the_image_left_out_is_not_among_its_neighbours(vectors: Vectors, make_index: Make) -> None:
    known = vectors(100, 1)
    index = make_index(known)
    ids, distances = index.search(known[41:42], 6, without=42)
    expected = brute_force(index.features, index.ids, known[41], 7)
    assert ids[0].tolist() == expected[0][1:]
    assert distances[0, 0] > 0
    assert index.search(known[41:42], 6, without=4242)[0][0, 0] == 42


def test_ties_go_to_the_smaller_id(vectors: Vectors, make_index: Make) -> None:
    # More duplicates than candidates are asked for, so that FAISS's own choice cannot settle it.
    known = vectors(400, 1)
    known[50:350] = known[50]
    ids, distances = make_index(known).search(known[50:51], 5)
    assert ids[0].tolist() == [51, 52, 53, 54, 55]
    assert (distances == 0).all()


def test_vectors_too_close_for_float32_are_told_apart(make_index: Make) -> None:
    # Norms of 1e4 and distances of about 1e-2: |x|² + |y|² − 2xy in float32 is noise here.
    rng = np.random.default_rng(3)
    centre = rng.uniform(100, 200, FEATURES)
    known = (centre + rng.normal(scale=1e-2, size=(150, FEATURES))).astype(np.float32)
    index = make_index(known)
    check_against_brute_force(index, known[:25], 6)
    check_against_brute_force(index, (centre[None]).astype(np.float32), 6)


def test_candidates_beyond_what_a_gpu_gives_are_searched_too(
    vectors: Vectors, make_index: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(search, "MOST", 50)
    known = vectors(300, 1)
    known[10:200] = known[10]
    index = make_index(known)
    check_against_brute_force(index, known[10:12], 6)
    check_against_brute_force(index, vectors(2, 5), 120)


def test_k_beyond_the_count_gives_fewer_columns(vectors: Vectors, make_index: Make) -> None:
    index, query = make_index(vectors(4, 1)), vectors(1, 2)
    assert index.search(query, 6)[0].shape == (1, 4)
    assert index.search(query, 6, without=2)[0].shape == (1, 3)
    only = make_index(vectors(1, 1))
    ids, distances = only.search(query, 6, without=1)
    assert ids.shape == distances.shape == (1, 0)


def test_no_queries_give_no_rows(vectors: Vectors, make_index: Make) -> None:
    ids, distances = make_index(vectors(9, 1)).search(np.empty((0, FEATURES), np.float32), 3)
    assert ids.shape == distances.shape == (0, 3)


@pytest.mark.parametrize("k", [0, -1, 2.5, True, None])
def test_a_bad_k_is_refused(vectors: Vectors, make_index: Make, k: object) -> None:
    with pytest.raises(ValueError, match="k must be"):
        make_index(vectors(9, 1)).search(vectors(1, 2), k)  # type: ignore[arg-type]


@pytest.mark.parametrize("shape", [(FEATURES,), (1, FEATURES - 1), (1, 1, FEATURES)])
def test_a_wrong_shape_is_refused(
    vectors: Vectors, make_index: Make, shape: tuple[int, ...]
) -> None:
    with pytest.raises(ValueError, match="shape"):
        make_index(vectors(9, 1)).search(np.zeros(shape, np.float32), 1)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_is_refused(vectors: Vectors, make_index: Make, value: float) -> None:
    query = vectors(1, 2)
    query[0, 7] = value
    with pytest.raises(ValueError, match="finite"):
        make_index(vectors(9, 1)).search(query, 1)


@given(seed=st.integers(0, 2**32 - 1), count=st.integers(1, 60), k=st.integers(1, 70))
@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_any_small_set_agrees_with_brute_force(
    make_index: Make, seed: int, count: int, k: int
) -> None:
    # Small whole numbers: many ties.
    rng = np.random.default_rng(seed)
    known = np.zeros((count, FEATURES), np.float32)
    known[:, :3] = rng.integers(0, 3, (count, 3))
    ids = np.sort(rng.choice(1000, count, replace=False)).tolist()
    check_against_brute_force(make_index(known, ids), known[:3], k)


@pytest.mark.gpu
@pytest.mark.skipif(faiss.get_num_gpus() == 0, reason="FAISS sees no GPU")
def test_a_gpu_gives_the_same_as_the_cpu(
    tmp_path: Path, vectors: Vectors, write: Callable[..., str]
) -> None:
    name = write(vectors(5000, 1))
    on_cpu, on_gpu = open_version(tmp_path, name, "cpu"), open_version(tmp_path, name, "auto")
    assert on_gpu.searcher.on_gpu
    for queries in (vectors(1, 2), vectors(300, 3)):
        for one, other in zip(on_cpu.search(queries, 6), on_gpu.search(queries, 6), strict=True):
            assert (one == other).all()

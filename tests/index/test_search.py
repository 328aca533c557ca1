"""Neighbours are those of a brute-force search in float64."""

from collections.abc import Callable, Collection
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from index.engines.protocol import RowFilter
from index.search import QueryError
from index.store import Index
from model.network.config import FEATURES

Floats = npt.NDArray[np.float32]
Vectors = Callable[..., Floats]
Make = Callable[..., Index]


def brute_force(
    index: Index,
    query: Floats,
    k: int,
    classes: Collection[int] | None = None,
    without: int | None = None,
) -> tuple[list[int], list[float], list[int]]:
    """The k nearest by comparing with every image, in float64: ids, distances, copies."""
    members = index.id_map
    features = index.vectors.take(np.arange(len(index.vectors))).astype(np.float64)
    distances = np.sqrt(((features - query.astype(np.float64)) ** 2).sum(1))
    entries: dict[int, list[int]] = {}
    for image, row, own in zip(members.ids, members.rows, members.classes, strict=True):
        if (classes is None or own in classes) and image != without:
            entries.setdefault(int(row), []).append(int(image))
    order = sorted(entries, key=lambda row: (distances[row], min(entries[row])))[:k]
    return (
        [min(entries[row]) for row in order],
        [float(distances[row]) for row in order],
        [len(entries[row]) for row in order],
    )


def check_against_brute_force(index: Index, queries: Floats, k: int, **told: Any) -> None:
    found = index.search(queries, k, **told)
    for row, query in enumerate(queries):
        ids, distances, copies = brute_force(index, query, k, **told)
        assert found.ids[row].tolist() == ids
        assert found.distances[row] == pytest.approx(distances, rel=1e-12, abs=1e-12)
        assert found.copies[row].tolist() == copies


def test_neighbours_are_those_of_brute_force(vectors: Vectors, make_index: Make) -> None:
    index = make_index(vectors(300, 1), list(range(7, 907, 3)))
    check_against_brute_force(index, vectors(40, 2), 6)


def test_a_batch_gives_the_same_as_its_rows_alone(vectors: Vectors, make_index: Make) -> None:
    index, queries = make_index(vectors(200, 1)), vectors(30, 2)
    found = index.search(queries, 6)
    for row, query in enumerate(queries):
        alone = index.search(query[None], 6)
        assert (alone.ids[0] == found.ids[row]).all()
        assert (alone.distances[0] == found.distances[row]).all()


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_an_image_is_at_distance_zero_from_itself(
    vectors: Vectors, make_index: Make, dtype: str
) -> None:
    index = make_index(vectors(100, 1), dtype=dtype, shard=33)
    found = index.search(index.read_features(range(1, 101)), 1)
    assert found.ids[:, 0].tolist() == list(range(1, 101))
    assert (found.distances == 0).all()


def test_queries_are_not_rounded_to_the_stored_precision(
    vectors: Vectors, make_index: Make
) -> None:
    known = vectors(60, 1)
    index = make_index(known, dtype="float16")
    check_against_brute_force(index, known[:9], 6)
    assert (index.search(known[:9], 1).distances > 0).all()


def test_half_precision_moves_distances_by_its_rounding_only(
    vectors: Vectors, make_index: Make
) -> None:
    known, queries = vectors(100, 1), vectors(10, 2)
    full = make_index(known).search(queries, 6).distances
    half = make_index(known, dtype="float16").search(queries, 6).distances
    assert half == pytest.approx(full, rel=2**-10)


def test_the_image_left_out_is_not_among_its_neighbours(vectors: Vectors, make_index: Make) -> None:
    known = vectors(100, 1)
    index = make_index(known)
    check_against_brute_force(index, known[41:42], 6, without=42)
    assert index.search(known[41:42], 6, without=4242).ids[0, 0] == 42


def test_images_of_equal_pixels_are_one_entry_with_a_count(
    vectors: Vectors, make_index: Make
) -> None:
    known = vectors(4, 1)
    index = make_index(known, [3, 4, 7, 8, 9, 12], rows=[0, 1, 0, 2, 0, 3])
    found = index.search(known[:1], 6)
    assert found.ids[0, 0] == 3
    assert found.copies[0].tolist() == [3, 1, 1, 1]
    # Of the three one is left out: the other two stay, at distance 0.
    other = index.search(known[:1], 6, without=3)
    assert (other.ids[0, 0], other.copies[0, 0], other.distances[0, 0]) == (7, 2, 0)
    assert index.search(known[:1], 6, without=9).ids[0, 0] == 3
    check_against_brute_force(index, known, 6, without=4)


def test_rows_that_no_image_has_are_not_found(vectors: Vectors, make_index: Make) -> None:
    known = vectors(300, 1)
    alive = list(range(0, 300, 3))
    index = make_index(known, list(range(1, 101)), rows=alive, shard=70)
    check_against_brute_force(index, known[:20], 6)
    few = make_index(known, [5, 6], rows=[250, 17])
    check_against_brute_force(few, known[:20], 6)


def test_a_class_filter_leaves_only_its_images(vectors: Vectors, make_index: Make) -> None:
    known = vectors(120, 1)
    index = make_index(known, classes=[i % 7 for i in range(120)], shard=50)
    for classes in ([3], [0, 5], range(7), [2, 99]):
        check_against_brute_force(index, known[:9], 6, classes=classes, without=4)
    assert index.search(known[:1], 1000, classes=[6]).ids.shape == (1, 17)


@pytest.mark.parametrize("classes", [[], [7], [-1]])
def test_a_class_without_images_is_refused(
    vectors: Vectors, make_index: Make, classes: list[int]
) -> None:
    with pytest.raises(QueryError, match="no image of the classes asked for"):
        make_index(vectors(9, 1)).search(vectors(1, 2), 3, classes=classes)


def test_copies_in_two_classes_count_in_each(vectors: Vectors, make_index: Make) -> None:
    index = make_index(vectors(2, 1), [1, 2, 3], rows=[0, 0, 1], classes=[5, 6, 6])
    check_against_brute_force(index, vectors(2, 1), 2)
    check_against_brute_force(index, vectors(2, 1), 2, classes=[6])
    check_against_brute_force(index, vectors(2, 1), 2, classes=[5])


def test_a_radius_finds_all_within_it(vectors: Vectors, make_index: Make) -> None:
    known = vectors(200, 1)
    index = make_index(known, classes=[i % 2 for i in range(200)])
    for query in known[:5]:
        _, distances, _ = brute_force(index, query, 200)
        radius = distances[17]
        (found,) = index.find_within_radius(query[None], radius)
        assert found.ids.shape == (1, 18)
        assert found.distances[0].tolist() == pytest.approx(distances[:18], abs=1e-12)
        (own,) = index.find_within_radius(query[None], radius, classes=[0])
        assert own.ids[0].tolist() == [i for i in found.ids[0] if i % 2]
    first, second = index.find_within_radius(known[:2], 0.0)
    assert (first.ids.tolist(), second.ids.tolist()) == ([[1]], [[2]])
    assert index.find_within_radius(known[:1], 1e9, most=50)[0].ids.shape == (1, 50)


@pytest.mark.parametrize("radius", [-1, float("nan"), float("inf"), "2", None])
def test_a_bad_radius_is_refused(vectors: Vectors, make_index: Make, radius: object) -> None:
    with pytest.raises(QueryError, match="radius"):
        make_index(vectors(9, 1)).find_within_radius(vectors(1, 2), radius)  # type: ignore[arg-type]


def test_ties_go_to_the_smaller_id(vectors: Vectors, make_index: Make) -> None:
    # More equal vectors than candidates are asked for, so that FAISS's own choice cannot settle it.
    known = vectors(400, 1)
    known[50:350] = known[50]
    found = make_index(known).search(known[50:51], 5)
    assert found.ids[0].tolist() == [51, 52, 53, 54, 55]
    assert (found.distances == 0).all()


def test_vectors_too_close_for_float32_are_told_apart(make_index: Make) -> None:
    # Norms of 1e4 and distances of about 1e-2: |x|² + |y|² − 2xy in float32 is noise here.
    rng = np.random.default_rng(3)
    centre = rng.uniform(100, 200, FEATURES)
    known = (centre + rng.normal(scale=1e-2, size=(150, FEATURES))).astype(np.float32)
    index = make_index(known)
    check_against_brute_force(index, known[:25], 6)
    check_against_brute_force(index, (centre[None]).astype(np.float32), 6)


class Poor:
    """Proposes rows that are of little use: what a kind gives that misses neighbours."""

    levels, exhaustive, filters = 3, False, False

    def __init__(self, rows: list[int]) -> None:
        self.rows, self.efforts = rows, list[int]()

    def propose(
        self, queries: Floats, count: int, view: RowFilter, effort: int
    ) -> npt.NDArray[np.int64]:
        """Always the same rows, as many as there are, and −1."""
        self.efforts.append(effort)
        found = np.full((len(queries), max(count, len(self.rows))), -1)
        found[:, : len(self.rows)] = self.rows
        return found


def test_where_a_kind_proposes_too_few_more_are_looked_at(
    vectors: Vectors, make_index: Make
) -> None:
    known = vectors(50, 1)
    exact = make_index(known)
    poor = Poor([7, 7, 3])
    index = Index(exact.manifest, exact.vectors, exact.id_map, poor)
    assert sorted(index.search(known[:1], 2).ids[0].tolist()) == [4, 8]
    assert poor.efforts == [0]
    check_against_brute_force(index, known[:2], 5)
    assert poor.efforts == [0, 0, 1, 2]


def test_under_a_filter_no_kind_is_trusted_that_does_not_filter(
    vectors: Vectors, make_index: Make
) -> None:
    known = vectors(50, 1)
    exact = make_index(known, classes=[i % 3 for i in range(50)])
    poor = Poor([1, 4, 7, 10, 13, 16])
    index = Index(exact.manifest, exact.vectors, exact.id_map, poor)
    check_against_brute_force(index, known[:2], 5, classes=[1])
    assert poor.efforts == []


def test_many_near_ties_are_all_compared(vectors: Vectors, make_index: Make) -> None:
    known = vectors(500, 1)
    known[10:400] = known[10]
    index = make_index(known)
    check_against_brute_force(index, known[10:12], 6)
    check_against_brute_force(index, vectors(2, 5), 120)


def test_k_beyond_the_count_gives_fewer_columns(vectors: Vectors, make_index: Make) -> None:
    index, query = make_index(vectors(4, 1)), vectors(1, 2)
    assert index.search(query, 6).ids.shape == (1, 4)
    assert index.search(query, 6, without=2).ids.shape == (1, 3)
    only = make_index(vectors(1, 1)).search(query, 6, without=1)
    assert only.ids.shape == only.distances.shape == only.copies.shape == (1, 0)


def test_no_queries_give_no_rows(vectors: Vectors, make_index: Make) -> None:
    found = make_index(vectors(9, 1)).search(np.empty((0, FEATURES), np.float32), 3)
    assert found.ids.shape == found.distances.shape == (0, 3)


@pytest.mark.parametrize("k", [0, -1, 1001, 1_000_000, 2.5, True, None])
def test_a_bad_k_is_refused(vectors: Vectors, make_index: Make, k: object) -> None:
    with pytest.raises(ValueError, match="k must be"):
        make_index(vectors(9, 1)).search(vectors(1, 2), k)  # type: ignore[arg-type]


def test_a_query_whose_distances_overflow_is_refused(vectors: Vectors, make_index: Make) -> None:
    index = make_index(vectors(9, 1))
    with pytest.raises(QueryError, match="norm"):
        index.search(np.full((1, FEATURES), 1e18, np.float32), 3)
    # Far away, but finite.
    check_against_brute_force(index, np.full((1, FEATURES), 1e16, np.float32), 3)


def test_several_images_are_left_out_with_their_copies(vectors: Vectors, make_index: Make) -> None:
    known = vectors(40, 1)
    index = make_index(known, list(range(1, 46)), rows=[*range(40), 3, 3, 5, 6, 7])
    found = index.search(known[3:5], 1000, without_copies=[4, 8, 45])
    assert found.ids.shape == (2, 38)
    assert not np.isin([4, 41, 42, 8, 45], found.ids).any()
    everything = index.search(known[3:5], 1000)
    kept = ~np.isin(everything.ids, [4, 8])
    assert (everything.ids[kept].reshape(2, 38) == found.ids).all()


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

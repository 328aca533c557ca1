"""The exact search reads a part of the vectors and gives what comparing all in float64 gives."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from index.exact import ExactSearch
from index.id_map import IdMap
from index.manifest import StoreError
from index.projection import (
    BASIS_FILE,
    PROJECTIONS_FILE,
    Projections,
    open_projections,
    write_projections,
)
from index.ranking import ImageFilter, RankedCandidates
from index.vectors import Vectors, map_kept_rows, write_shard
from model.network.config import FEATURES

Floats = npt.NDArray[np.float32]
COUNT, WIDTH = 900, 24


def low_dimensional(count: int, seed: int) -> Floats:
    """Vectors of few real dimensions with noise, in groups of near ones, none negative."""
    rng = np.random.default_rng(seed)
    axes = np.random.default_rng(0).normal(size=(12, FEATURES))
    groups = np.random.default_rng(1).normal(size=(40, 12))
    places = groups[rng.integers(40, size=count)] + rng.normal(0, 0.3, (count, 12))
    return np.maximum(places @ axes + rng.normal(0, 0.3, (count, FEATURES)), 0).astype(np.float32)


def find_by_brute_force(
    values: Floats, query: Floats, k: int, rows: Any
) -> tuple[list[int], list[float]]:
    """The k nearest of these rows, ties by number, and their squared distances in float64."""
    squared = np.square(values[rows].astype(np.float64) - query.astype(np.float64)).sum(axis=1)
    order = np.lexsort((rows, squared))[:k]
    return np.asarray(rows)[order].tolist(), squared[order].tolist()


def make_search(
    folder: Path, values: Floats, dtype: str = "float32", dimensions: int = WIDTH
) -> tuple[ExactSearch, Floats]:
    """Store and project vectors; return the search and the vectors as they are stored."""
    vectors = Vectors(folder, [write_shard(folder / "v.npy", [values], dtype)], dtype)
    projections = write_projections(folder, vectors, np.arange(len(values)), dimensions, 1)
    return ExactSearch(vectors, projections), vectors.take(np.arange(len(values)))


def make_filter(classes: Any, *args: Any, **kwargs: Any) -> ImageFilter:
    """A filter of images whose ids are the numbers of their rows."""
    numbers = np.arange(len(classes))
    return ImageFilter(IdMap(numbers, numbers, np.asarray(classes, np.int32)), *args, **kwargs)


def check(search: ExactSearch, stored: Floats, queries: Floats, k: int) -> list[RankedCandidates]:
    """Compare with brute force, without a filter, queries together and each alone; return these."""
    everything = make_filter([0] * len(stored))
    together = search.search(queries, k, everything)
    found = [search.search(query[None], k, everything)[0] for query in queries]
    for query, ranked, same in zip(queries, found, together, strict=True):
        assert (same.ids == ranked.ids).all()
        assert (same.squared == ranked.squared).all()
        ids, squared = find_by_brute_force(stored, query, k, np.arange(len(stored)))
        assert ranked.ids.tolist() == ids
        assert ranked.squared.tolist() == pytest.approx(squared, rel=1e-12)
    return found


def test_the_axes_are_the_principal_components(tmp_path: Path) -> None:
    values = low_dimensional(300, 4)
    axes = make_search(tmp_path, values)[0].projections.basis.axes
    np.testing.assert_allclose(axes @ axes.T, np.eye(WIDTH - 1), atol=1e-10)
    centred = values.astype(np.float64) - values.mean(axis=0, dtype=np.float64)
    most = np.square(np.linalg.svd(centred, compute_uv=False)[: WIDTH - 1]).sum()
    assert np.square(centred @ axes.T).sum() == pytest.approx(most, rel=1e-3)


@pytest.fixture(scope="module", params=["float16", "float32"])
def opened(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[ExactSearch, Floats]:
    return make_search(tmp_path_factory.mktemp("exact"), low_dimensional(COUNT, 2), request.param)


@pytest.mark.parametrize("k", [1, 6, 100])
def test_the_nearest_are_those_of_brute_force(opened: tuple[ExactSearch, Floats], k: int) -> None:
    search, stored = opened
    found = check(search, stored, low_dimensional(6, 3), k)
    # The proof is worth it: most vectors are never read.
    assert np.mean([ranked.rows for ranked in found]) < COUNT / 3 + k


def test_under_a_filter_too(opened: tuple[ExactSearch, Floats]) -> None:
    search, stored = opened
    classes = np.arange(COUNT) % 3
    queries = low_dimensional(6, 4)
    for wanted in ([1], [0, 2]):
        rows = np.flatnonzero(np.isin(classes, wanted))
        left = rows[(rows != 4) & (rows != 10)]
        chosen = make_filter(classes, wanted, 4, [10])
        together = search.search(queries, 9, chosen)
        for query, ranked in zip(queries, together, strict=True):
            assert ranked.ids.tolist() == find_by_brute_force(stored, query, 9, left)[0]
            assert (search.search(query[None], 9, chosen)[0].ids == ranked.ids).all()


def test_no_bound_is_greater_than_the_distance(opened: tuple[ExactSearch, Floats]) -> None:
    search, stored = opened
    queries = np.concatenate([low_dimensional(3, 5), stored[:3] * 1.001, stored[:1] * 50])
    for query, bounds in zip(
        queries, search.compute_bounds(queries, np.arange(COUNT)), strict=True
    ):
        squared = np.square(stored.astype(np.float64) - query.astype(np.float64)).sum(axis=1)
        limits = np.array([bounds.find_limit(one) for one in squared])
        assert (bounds.values <= limits).all()


@pytest.mark.parametrize(
    ("scale", "offset"), [(1e-15, 0.0), (1e12, 0.0), (1e-2, 1e3), (0.0, 0.0), (0.0, 3.0)]
)
def test_at_every_scale(scale: float, offset: float, tmp_path: Path) -> None:
    """Tiny, huge, far from the origin, and equal vectors."""
    values = (low_dimensional(200, 2) * scale + offset).astype(np.float32)
    search, stored = make_search(tmp_path, values)
    queries = np.concatenate([stored[:2], (low_dimensional(2, 3) * scale + offset).astype("f4")])
    check(search, stored, queries, 6)
    check(search, stored, queries * np.float32(1e3), 6)


@given(seed=st.integers(0, 2**32 - 1), k=st.integers(1, 40), dimensions=st.integers(1, 5))
@settings(
    max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_ties_are_broken_by_id(tmp_path: Path, seed: int, k: int, dimensions: int) -> None:
    rng = np.random.default_rng(seed)
    values = np.zeros((120, FEATURES), np.float32)
    values[:, :4] = rng.integers(0, 3, (120, 4))
    (tmp_path / "v.npy").unlink(missing_ok=True)
    search, stored = make_search(tmp_path, values, dimensions=dimensions)
    check(search, stored, stored[:2], k)


def test_a_query_far_beyond_the_vectors_reads_them_all_if_it_must(tmp_path: Path) -> None:
    search, stored = make_search(tmp_path, low_dimensional(200, 2) * np.float32(1e-10))
    check(search, stored, np.full((1, FEATURES), 1e16, np.float32), 6)


def test_an_update_projects_only_new_vectors(tmp_path: Path) -> None:
    values = low_dimensional(300, 2)
    shards = [
        write_shard(tmp_path / "0.npy", [values[:200]], "float16"),
        write_shard(tmp_path / "1.npy", [values[200:]], "float16"),
    ]
    (tmp_path / "old").mkdir()
    (tmp_path / "new").mkdir()
    before, after = (
        Vectors(tmp_path, some, "float16") for some in (shards[:1], [shards[1], shards[0]])
    )
    live = np.arange(0, 200, 2)
    old = write_projections(tmp_path / "old", before, live, WIDTH, 1)
    numbers = map_kept_rows(before.shards, after.shards)
    assert numbers.tolist() == [*[-1] * 100, *range(200)]
    # Half of the earlier rows are live, and of these two thirds still are.
    rows = np.concatenate([np.arange(100), 100 + live[live % 3 != 0]])
    new = write_projections(tmp_path / "new", after, rows, WIDTH, 1, earlier=(old, numbers))
    assert (new.basis.axes == old.basis.axes).all()
    kept = read_all(old)[live % 3 != 0]
    assert (read_all(new)[100:] == kept).all()
    search, stored = ExactSearch(after, new), after.take(np.arange(300))
    id_map = IdMap(rows, rows, np.zeros(len(rows), np.int32))
    for query in low_dimensional(4, 5):
        (ranked,) = search.search(query[None], 7, ImageFilter(id_map))
        assert ranked.ids.tolist() == find_by_brute_force(stored, query, 7, rows)[0]


def test_vectors_too_large_for_the_earlier_scale_are_projected_anew(tmp_path: Path) -> None:
    values = np.concatenate([low_dimensional(100, 2), low_dimensional(20, 3) * 1000])
    shards = [
        write_shard(tmp_path / "0.npy", [values[:100]], "float32"),
        write_shard(tmp_path / "1.npy", [values[100:]], "float32"),
    ]
    (tmp_path / "new").mkdir()
    old = write_projections(
        tmp_path, Vectors(tmp_path, shards[:1], "float32"), np.arange(100), WIDTH, 1
    )
    after = Vectors(tmp_path, shards, "float32")
    numbers = map_kept_rows(shards[:1], shards)
    new = write_projections(
        tmp_path / "new", after, np.arange(120), WIDTH, 1, earlier=(old, numbers)
    )
    assert new.basis.scale < old.basis.scale
    check(ExactSearch(after, new), values, values[[3, 110]], 6)


def read_all(projections: Projections) -> npt.NDArray[np.float16]:
    """All projections as they are stored."""
    return np.concatenate([block.copy() for _, block in projections.read_blocks()])


def test_faiss_reads_projections_as_an_index_of_its_own(
    vectors: Callable[..., Floats], tmp_path: Path
) -> None:
    search, _ = make_search(tmp_path, vectors(100, 1), dimensions=7)
    assert search.projections is not None
    index = faiss.read_index(str(tmp_path / PROJECTIONS_FILE))
    assert isinstance(index, faiss.IndexScalarQuantizer)
    assert (index.ntotal, index.d, index.is_trained) == (100, 7, True)
    assert (index.metric_type, index.sq.qtype) == (faiss.METRIC_L2, faiss.ScalarQuantizer.QT_fp16)
    stored = read_all(search.projections).astype(np.float32)
    np.testing.assert_array_equal(index.reconstruct_n(0, 100), stored)


def test_damaged_projections_are_refused(vectors: Callable[..., Floats], tmp_path: Path) -> None:
    make_search(tmp_path, vectors(100, 1))
    assert open_projections(tmp_path, np.arange(100)) is not None
    with pytest.raises(StoreError, match=PROJECTIONS_FILE):
        open_projections(tmp_path, np.arange(99))
    whole = (tmp_path / PROJECTIONS_FILE).read_bytes()
    for damaged in (b"", whole[:-1], b"x" * len(whole)):
        (tmp_path / PROJECTIONS_FILE).write_bytes(damaged)
        with pytest.raises(StoreError, match=PROJECTIONS_FILE):
            open_projections(tmp_path, np.arange(100))
    (tmp_path / BASIS_FILE).write_bytes(b"")
    with pytest.raises(StoreError, match=BASIS_FILE):
        open_projections(tmp_path, np.arange(100))
    (tmp_path / BASIS_FILE).unlink()
    assert open_projections(tmp_path, np.arange(100)) is None

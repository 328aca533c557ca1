"""The kind hnsw proposes the true neighbours from the projections that the version has anyway."""

import os
import shutil
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import numpy.typing as npt
import pytest

from index.damage import DamageError
from index.engines.faiss_file import FAISS_FILE
from index.engines.graph import open_graph, train_graph, update_graph
from index.engines.options import EngineOptions
from index.engines.protocol import EarlierEngine, RowFilter, SearchEngine, VersionData
from index.manifest import StoreError
from index.projection import BASIS_FILE, PROJECTIONS_FILE, open_projections, write_projections
from index.vectors import Vectors, map_kept_rows, write_shard
from storage.progress import ignore_progress

COUNT = 600
OPTIONS = EngineOptions(dimensions=32)
Floats = npt.NDArray[np.float32]
Open = Callable[..., Vectors]
VersionOf = Callable[..., VersionData]


def fc7_like(count: int, seed: int = 1) -> Floats:
    """Vectors that are not negative, of few real dimensions, in groups of near ones."""
    rng = np.random.default_rng(seed)
    axes = np.random.default_rng(0).normal(size=(24, 4096))
    groups = np.random.default_rng(1).normal(size=(75, 24))
    places = groups[rng.integers(75, size=count)] + rng.normal(0, 0.2, (count, 24))
    return np.maximum(places @ axes + rng.normal(0, 0.1, (count, 4096)), 0).astype(np.float32)


def project(version: VersionData) -> VersionData:
    """Write the projections of a version, as a build does before it trains."""
    rows = version.id_map.live_rows
    written = write_projections(version.folder, version.vectors, rows, OPTIONS.dimensions, 1)
    return replace(version, projections=written)


def reopen(version: VersionData, folder: Path, parameters: dict[str, Any]) -> SearchEngine:
    """Open a copy of a version's files in a folder."""
    for name in (FAISS_FILE, BASIS_FILE, PROJECTIONS_FILE):
        shutil.copy(version.folder / name, folder)
    projections = open_projections(folder, version.id_map.live_rows)
    return open_graph(replace(version, folder=folder, projections=projections), parameters)


@pytest.fixture(scope="module")
def values() -> Floats:
    return fc7_like(COUNT)


@pytest.fixture(scope="module")
def trained(
    values: Floats,
    open_vectors: Open,
    version_of: VersionOf,
    tmp_path_factory: pytest.TempPathFactory,
) -> tuple[VersionData, dict[str, Any]]:
    """A version of every second row, and its parameters."""
    folder = tmp_path_factory.mktemp("graph")
    version = project(version_of(folder, open_vectors(folder, values), range(0, COUNT, 2)))
    return version, train_graph(version, OPTIONS, ignore_progress)


def test_the_highest_effort_finds_the_nearest_live_rows(
    trained: tuple[VersionData, dict[str, Any]], values: Floats
) -> None:
    engine, queries, live = open_graph(*trained), fc7_like(40, 2), np.arange(0, COUNT, 2)
    squared = np.square(values[live].astype(np.float64)).sum(axis=1)
    squared = squared - 2 * queries.astype(np.float64) @ values[live].T
    truth = live[squared.argsort(axis=1)[:, :6]]
    recalls = []
    for effort in range(engine.levels):
        proposed = engine.propose(queries, 32, RowFilter(), effort)
        assert set(proposed.ravel()) <= {*live}
        recalls += [np.mean([np.isin(t, p).mean() for t, p in zip(truth, proposed, strict=True)])]
    assert recalls[-1] >= max(0.99, recalls[0])
    everything = engine.propose(queries[:1], COUNT, RowFilter(), engine.levels - 1)
    assert sorted(set(everything[0])) == [-1, *live]


def test_no_vector_is_stored_twice(trained: tuple[VersionData, dict[str, Any]]) -> None:
    links = (trained[0].folder / FAISS_FILE).stat().st_size
    # 64 links of four bytes for each vector, a few on higher levels, and nothing of 32 halves.
    assert links < COUNT // 2 * 64 * 4 * 1.15


def test_threads_do_not_interfere(
    trained: tuple[VersionData, dict[str, Any]], values: Floats
) -> None:
    engine = open_graph(*trained)

    def propose(number: int) -> Any:
        effort = number % engine.levels
        return engine.propose(values[number : number + 1], 20, RowFilter(), effort).tolist()

    alone = [propose(number) for number in range(20)]
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(propose, range(20))) == alone


def test_the_files_may_be_deleted_but_not_cut_short_while_they_are_searched(
    trained: tuple[VersionData, dict[str, Any]], values: Floats, tmp_path: Path
) -> None:
    version, parameters = trained
    for name in (FAISS_FILE, PROJECTIONS_FILE):
        folder = tmp_path / f"cut-{name}"
        folder.mkdir()
        engine = reopen(version, folder, parameters)
        os.truncate(folder / name, 100)
        with pytest.raises(DamageError, match=name):
            engine.propose(values[:1], 5, RowFilter(), 0)
    engine = reopen(version, tmp_path, parameters)
    for name in (FAISS_FILE, PROJECTIONS_FILE):
        (tmp_path / name).unlink()
    assert engine.propose(values[8:9], 5, RowFilter(), 0)[0, 0] == 8


def test_an_update_links_only_what_is_new_where_nothing_has_gone(
    trained: tuple[VersionData, dict[str, Any]],
    values: Floats,
    version_of: VersionOf,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    version, parameters = trained
    assert version.projections is not None
    old = [*version.vectors.shards]
    added = write_shard(
        version.vectors.files[0].path.with_name("added.npy"), [fc7_like(50, 5)], "float16"
    )
    folder = version.vectors.files[0].path.parent
    vectors = Vectors(folder, [*old, added], "float16")
    numbers = map_kept_rows(old, vectors.shards)
    before = EarlierEngine(folder=version.folder, shards=old, parameters=parameters)
    linked: list[int] = []
    real = faiss.IndexHNSWSQ.add
    monkeypatch.setattr(
        faiss.IndexHNSWSQ, "add", lambda self, x: (linked.append(len(x)), real(self, x))[1]
    )
    for name, first, expected in (("grown", 0, 50), ("shrunk", 2, COUNT // 2 - 1 + 50)):
        linked.clear()
        live = [*range(first, COUNT, 2), *range(COUNT, COUNT + 50)]
        later = version_of(tmp_path / name, vectors, live)
        earlier = version.projections, numbers
        written = write_projections(later.folder, vectors, np.array(live), 32, 1, earlier=earlier)
        later = replace(later, projections=written)
        again = update_graph(later, before, ignore_progress)
        assert again == parameters
        assert sum(linked) == expected
        engine = open_graph(later, again)
        queries = vectors.take([COUNT + 7, 40, 598])
        assert engine.propose(queries, 5, RowFilter(), 2)[:, 0].tolist() == [COUNT + 7, 40, 598]
    # The earlier version is as it was.
    assert open_graph(version, parameters).propose(values[:1], 5, RowFilter(), 0)[0, 0] == 0


def test_damaged_files_are_refused(
    trained: tuple[VersionData, dict[str, Any]], tmp_path: Path
) -> None:
    version, parameters = trained
    reopen(version, tmp_path, parameters)
    whole = (tmp_path / FAISS_FILE).read_bytes()
    projections = open_projections(tmp_path, version.id_map.live_rows)
    for damaged in (b"", whole[: len(whole) // 2]):
        (tmp_path / FAISS_FILE).write_bytes(damaged)
        with pytest.raises(StoreError, match=FAISS_FILE):
            open_graph(replace(version, folder=tmp_path, projections=projections), parameters)
    shutil.copy(tmp_path / PROJECTIONS_FILE, tmp_path / FAISS_FILE)
    with pytest.raises(StoreError, match="not of the kind hnsw"):
        open_graph(replace(version, folder=tmp_path, projections=projections), parameters)


def test_a_graph_from_before_it_shared_the_projections_is_still_searched(
    values: Floats, open_vectors: Open, version_of: VersionOf, tmp_path: Path
) -> None:
    index = faiss.index_factory(4096, "IDMap,PCA16,HNSW8_SQfp16")
    index.train(values)
    index.add_with_ids(values, np.arange(COUNT))
    faiss.write_index(index, str(tmp_path / FAISS_FILE))
    version = version_of(tmp_path, open_vectors(tmp_path, values))
    engine = open_graph(version, {})
    assert engine.propose(values[:9], 5, RowFilter(), 2)[:, 0].tolist() == list(range(9))

"""The kinds ivf and pq propose the true neighbours, whatever the size of the index."""

import os
import shutil
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from index.damage import DamageError
from index.engines.faiss_file import FAISS_FILE
from index.engines.faiss_search import open_faiss
from index.engines.faiss_train import train_faiss, update_faiss
from index.engines.options import EngineOptions
from index.engines.protocol import EarlierEngine, RowFilter, SearchEngine, VersionData
from index.manifest import StoreError
from index.vectors import Vectors, write_shard
from storage.progress import ignore_progress

KINDS = ("ivf", "pq")
COUNT = 600
SMALL = EngineOptions(dimensions=32, bytes=8)
Floats = npt.NDArray[np.float32]
Open = Callable[..., Vectors]
VersionOf = Callable[..., VersionData]


def fc7_like(count: int, seed: int = 1) -> Floats:
    """Vectors that are not negative, of few real dimensions, in groups of near ones."""
    rng = np.random.default_rng(seed)
    axes = np.random.default_rng(0).normal(size=(24, 4096))
    groups = rng.normal(size=(max(count // 8, 1), 24))
    places = groups[rng.integers(len(groups), size=count)] + rng.normal(0, 0.2, (count, 24))
    noise = rng.normal(0, 0.1, (count, 4096))
    return np.maximum(places @ axes + noise, 0).astype(np.float16).astype(np.float32)


def nearest(values: Floats, queries: Floats, rows: Any, k: int) -> Any:
    """The truth, in NumPy's float64."""
    some = values[rows].astype(np.float64)
    squared = np.square(some).sum(axis=1) - 2 * queries.astype(np.float64) @ some.T
    return np.asarray(rows)[squared.argsort(axis=1, kind="stable")[:, :k]]


def share(proposed: Any, truth: Any) -> float:
    return float(np.mean([np.isin(t, p).mean() for t, p in zip(truth, proposed, strict=True)]))


@dataclass(frozen=True)
class Trained:
    """A kind that was trained for a version."""

    kind: str
    version: VersionData
    parameters: dict[str, Any]

    def earlier(self) -> EarlierEngine:
        """What an update is given of it."""
        shards = self.version.vectors.shards
        return EarlierEngine(folder=self.version.folder, shards=shards, parameters=self.parameters)

    def open(self, folder: Path | None = None) -> SearchEngine:
        version = replace(self.version, folder=folder or self.version.folder)
        return open_faiss(self.kind, version, self.parameters)


@pytest.fixture(scope="module")
def values() -> Floats:
    return fc7_like(COUNT)


@pytest.fixture(scope="module")
def vectors(
    values: Floats, open_vectors: Open, tmp_path_factory: pytest.TempPathFactory
) -> Vectors:
    return open_vectors(tmp_path_factory.mktemp("vectors"), values)


@pytest.fixture(scope="module", params=KINDS)
def trained(
    request: Any, vectors: Vectors, version_of: VersionOf, tmp_path_factory: pytest.TempPathFactory
) -> Trained:
    version = version_of(tmp_path_factory.mktemp(request.param), vectors)
    parameters = train_faiss(request.param, version, EngineOptions(), ignore_progress)
    return Trained(request.param, version, parameters)


def test_the_highest_effort_finds_the_nearest(trained: Trained, values: Floats) -> None:
    engine, queries = trained.open(), fc7_like(40, seed=2)
    truth = nearest(values, queries, np.arange(COUNT), 6)
    recalls = [
        share(engine.propose(queries, 64, RowFilter(), effort), truth)
        for effort in range(engine.levels)
    ]
    assert recalls[-1] >= 0.99
    assert recalls[-1] >= recalls[0]


def test_more_candidates_than_rows_are_padded(trained: Trained, values: Floats) -> None:
    engine = trained.open()
    proposed = engine.propose(values[:1], COUNT + 500, RowFilter(), engine.levels - 1)[0]
    assert proposed.shape == (COUNT + 500,)
    rows = proposed[proposed >= 0]
    assert len(set(rows)) == len(rows) >= 0.99 * COUNT


def test_threads_with_different_efforts_do_not_interfere(trained: Trained, values: Floats) -> None:
    engine = trained.open()

    def propose(number: int) -> Any:
        query, effort = values[number : number + 1], number % engine.levels
        return engine.propose(query, 20, RowFilter(), effort).tolist()

    alone = [propose(number) for number in range(30)]
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(propose, range(30))) == alone


def test_the_file_is_mapped_and_may_be_deleted_while_it_is_searched(
    trained: Trained, values: Floats, tmp_path: Path
) -> None:
    folder = tmp_path / "version"
    folder.mkdir()
    shutil.copy(trained.version.folder / FAISS_FILE, folder)
    engine = trained.open(folder)
    engine.propose(values[:1], 5, RowFilter(), engine.levels - 1)
    maps = Path("/proc/self/maps")
    assert not maps.exists() or str(folder / FAISS_FILE) in maps.read_text()
    shutil.rmtree(folder)
    assert engine.propose(values[7:8], 5, RowFilter(), engine.levels - 1)[0, 0] == 7


def test_a_file_that_was_cut_short_is_not_touched(
    trained: Trained, values: Floats, tmp_path: Path
) -> None:
    """It is mapped: to touch what is gone would end the process."""
    shutil.copy(trained.version.folder / FAISS_FILE, tmp_path)
    engine = trained.open(tmp_path)
    os.truncate(tmp_path / FAISS_FILE, 10)
    with pytest.raises(DamageError, match=FAISS_FILE):
        engine.propose(values[:1], 5, RowFilter(), 0)


def test_an_update_reuses_the_training_and_proposes_no_dead_row(
    trained: Trained, values: Floats, version_of: VersionOf, tmp_path: Path
) -> None:
    kind, vectors, added = trained.kind, trained.version.vectors, fc7_like(100, seed=4)
    more, folder = np.concatenate([values, added]), vectors.files[0].path.parent
    shard = write_shard(folder / f"added-{kind}.npy", [added], "float16")
    live = np.arange(150, len(more))
    vectors = Vectors(folder, [*vectors.shards, shard], "float16")
    after = version_of(tmp_path / "after", vectors, live)
    parameters = update_faiss(kind, after, trained.earlier(), ignore_progress)
    assert parameters == trained.parameters
    engine, queries = open_faiss(kind, after, parameters), more[COUNT : COUNT + 40]
    proposed = engine.propose(queries, 64, RowFilter(), engine.levels - 1)
    assert set(proposed.ravel()) <= {*live}
    assert share(proposed, nearest(more, queries, live, 6)) >= 0.99
    # The earlier version is unchanged.
    earlier = trained.open()
    assert earlier.propose(values[:1], 5, RowFilter(), earlier.levels - 1)[0, 0] == 0


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("count", [1, 60])
def test_tiny_sets_work(
    kind: str,
    count: int,
    open_vectors: Open,
    version_of: VersionOf,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
) -> None:
    values = fc7_like(count)
    version = version_of(tmp_path, open_vectors(tmp_path, values))
    parameters = train_faiss(kind, version, SMALL, ignore_progress)
    engine = open_faiss(kind, version, parameters)
    proposed = engine.propose(values, 64, RowFilter(), engine.levels - 1)
    assert [row in found for row, found in enumerate(proposed)] == [True] * count
    assert sorted(set(proposed.ravel())) == [-1, *range(count)]
    assert "WARNING" not in "".join(capfd.readouterr())


@pytest.mark.parametrize("kind", KINDS)
def test_equal_vectors_can_be_indexed(
    kind: str, open_vectors: Open, version_of: VersionOf, tmp_path: Path
) -> None:
    version = version_of(tmp_path, open_vectors(tmp_path, np.ones((300, 4096), np.float32)))
    engine = open_faiss(kind, version, train_faiss(kind, version, SMALL, ignore_progress))
    query = np.ones((1, 4096), np.float32)
    assert (engine.propose(query, 20, RowFilter(), engine.levels - 1) >= 0).all()


def test_options_reach_faiss_and_a_seed_gives_the_same_file(
    vectors: Vectors, version_of: VersionOf, tmp_path: Path
) -> None:
    version, written = version_of(tmp_path, vectors), []
    for _ in range(2):
        options = EngineOptions(lists=5, dimensions=32, bytes=16)
        parameters = train_faiss("pq", version, options, ignore_progress)
        assert parameters["factory"] == "PCA32,OPQ16,IVF5,PQ16"
        assert open_faiss("pq", version, parameters).levels == 4
        written.append((tmp_path / FAISS_FILE).read_bytes())
    assert written[0] == written[1]


def test_a_damaged_or_missing_file_is_refused(trained: Trained, tmp_path: Path) -> None:
    whole = (trained.version.folder / FAISS_FILE).read_bytes()
    with pytest.raises(StoreError, match=FAISS_FILE):
        trained.open(tmp_path)
    for size in (0, 100, len(whole) // 2, int(0.99 * len(whole))):
        (tmp_path / FAISS_FILE).write_bytes(whole[:size])
        with pytest.raises(StoreError, match=FAISS_FILE):
            trained.open(tmp_path)
    with pytest.raises(StoreError, match=FAISS_FILE):
        replace(trained, kind="hnsw").open()


def test_a_full_disk_is_an_os_error(
    vectors: Vectors, version_of: VersionOf, tmp_path: Path
) -> None:
    if not Path("/dev/full").exists():
        pytest.skip("this system has no full device")
    (tmp_path / FAISS_FILE).symlink_to("/dev/full")
    with pytest.raises(OSError, match="No space"):
        train_faiss("ivf", version_of(tmp_path, vectors), SMALL, ignore_progress)


def peak_memory() -> int:
    """The most memory that this process has held since the last reset, in KiB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM"))


def reset_peak_memory() -> None:
    """Skips the test where the system cannot do that."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        pytest.skip("this system does not measure peaks of memory")


def test_a_build_holds_only_a_part_of_the_vectors(version_of: VersionOf, tmp_path: Path) -> None:
    """To build from 12 shards takes no more memory than from 4."""
    shard = write_shard(tmp_path / "0.npy", [fc7_like(64).repeat(32, axis=0)], "float16")
    for number in range(1, 12):
        os.link(tmp_path / "0.npy", tmp_path / f"{number}.npy")
    peaks = []
    for count in (4, 12):
        shards = [replace(shard, file=f"{number}.npy") for number in range(count)]
        version = version_of(tmp_path, Vectors(tmp_path, shards, "float16"))
        reset_peak_memory()
        train_faiss("ivf", version, replace(SMALL, lists=16), ignore_progress)
        peaks.append(peak_memory())
    # In float16 alone the 16384 vectors more are 128 MiB.
    assert peaks[1] - peaks[0] < 60 * 1024

"""Each kind proposes the true neighbours, whatever the size of the index."""

import os
import shutil
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from index.candidates import RowFilter
from index.engines.filed import FAISS_FILE
from index.engines.kinds import (
    MAX_EXACT_ROWS,
    EngineOptions,
    choose_kind,
    open_candidates,
    train,
    update_from,
)
from index.manifest import StoreError
from index.placing import SearchDevice
from index.vectors import Vectors, write_shard

KINDS = ("ivf", "hnsw", "pq")
CPU = SearchDevice(device="cpu")
GIB = 1 << 30
Floats = npt.NDArray[np.float32]


def silent(_name: str, _total: int) -> Callable[[int], None]:
    return lambda _done: None


def photographs(count: int, seed: int = 1) -> Floats:
    """Vectors like fc7's: not negative, of few real dimensions, in groups of near ones."""
    rng = np.random.default_rng(seed)
    axes = np.random.default_rng(0).normal(size=(24, 4096))
    groups = rng.normal(size=(max(count // 8, 1), 24))
    places = groups[rng.integers(len(groups), size=count)] + rng.normal(0, 0.2, (count, 24))
    noise = rng.normal(0, 0.1, (count, 4096))
    return np.maximum(places @ axes + noise, 0).astype(np.float16).astype(np.float32)


def open_vectors(folder: Path, values: Floats) -> Vectors:
    folder.mkdir(exist_ok=True)
    half = len(values) // 2 + 1
    parts = [part for part in (values[:half], values[half:]) if len(part)]
    shards = [
        write_shard(folder / f"vectors-{number}.npy", [part], "float16")
        for number, part in enumerate(parts)
    ]
    return Vectors(folder, shards, "float16")


def nearest(values: Floats, queries: Floats, rows: Any, k: int) -> Any:
    """The truth, in NumPy's float64."""
    some = values[rows].astype(np.float64)
    squared = np.square(some).sum(axis=1) - 2 * queries.astype(np.float64) @ some.T
    return np.asarray(rows)[squared.argsort(axis=1, kind="stable")[:, :k]]


def share(found: Any, truth: Any) -> float:
    return float(np.mean([np.isin(t, f).mean() for t, f in zip(truth, found, strict=True)]))


@pytest.fixture(scope="module")
def values() -> Floats:
    return photographs(1500)


@pytest.fixture(scope="module", params=KINDS)
def made(request: Any, values: Floats, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A kind, the folder it was made in, its parameters, the vectors."""
    folder = tmp_path_factory.mktemp(request.param)
    vectors = open_vectors(folder, values)
    parameters = train(request.param, vectors, None, folder, EngineOptions(), silent)
    return request.param, folder, parameters, vectors


def test_the_most_effort_finds_the_nearest(made: Any, values: Floats) -> None:
    kind, folder, parameters, _ = made
    found = open_candidates(kind, folder, parameters, CPU)
    queries = photographs(40, seed=2)
    truth = nearest(values, queries, np.arange(len(values)), 6)
    recalls = [
        share(found.propose(queries, 64, RowFilter(), effort), truth)
        for effort in range(found.levels)
    ]
    assert recalls[-1] >= 0.99
    assert recalls[-1] >= recalls[0]


def test_only_rows_of_the_view_are_proposed(made: Any, values: Floats) -> None:
    kind, folder, parameters, _ = made
    found = open_candidates(kind, folder, parameters, CPU)
    queries = photographs(10, seed=3)
    rows = np.arange(5, len(values), 9)
    proposed = found.propose(queries, 40, RowFilter(rows=rows), found.levels - 1)
    assert set(proposed.ravel()) <= {-1, *rows}
    assert share(proposed, nearest(values, queries, rows, 6)) >= 0.95
    none = found.propose(queries, 4, RowFilter(rows=np.empty(0, np.int64)), found.levels - 1)
    assert none.tolist() == [[-1] * 4] * 10


def test_more_than_there_are_is_filled_up(made: Any, values: Floats) -> None:
    kind, folder, parameters, _ = made
    found = open_candidates(kind, folder, parameters, CPU)
    proposed = found.propose(values[:1], 2000, RowFilter(), found.levels - 1)[0]
    assert proposed.shape == (2000,)
    there = proposed[proposed >= 0]
    assert len(set(there)) == len(there) >= 0.99 * len(values)


def test_threads_with_different_efforts_and_views_do_not_meet(made: Any, values: Floats) -> None:
    kind, folder, parameters, _ = made
    found = open_candidates(kind, folder, parameters, CPU)
    views = [RowFilter(), RowFilter(rows=np.arange(0, 700)), RowFilter(rows=np.arange(700, 1500))]

    def ask(number: int) -> Any:
        view, effort = views[number % 3], number % found.levels
        return found.propose(values[number : number + 1], 20, view, effort).tolist()

    alone = [ask(number) for number in range(60)]
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(ask, range(60))) == alone


def test_the_file_may_be_deleted_while_it_is_searched(
    made: Any, values: Floats, tmp_path: Path
) -> None:
    kind, folder, parameters, _ = made
    copy = tmp_path / "version"
    copy.mkdir()
    shutil.copy(folder / FAISS_FILE, copy)
    found = open_candidates(kind, copy, parameters, CPU)
    shutil.rmtree(copy)
    assert found.propose(values[7:8], 5, RowFilter(), found.levels - 1)[0, 0] == 7


def test_the_file_is_mapped(made: Any, values: Floats) -> None:
    kind, folder, parameters, _ = made
    maps = Path("/proc/self/maps")
    if not maps.exists():
        pytest.skip("this system does not list what is mapped")
    found = open_candidates(kind, folder, parameters, CPU)
    found.propose(values[:1], 5, RowFilter(), found.levels - 1)
    assert str(folder / FAISS_FILE) in maps.read_text()


def test_dead_rows_are_not_proposed_and_training_is_reused(
    made: Any, values: Floats, tmp_path: Path
) -> None:
    kind, folder, parameters, _ = made
    more = np.concatenate([values, photographs(200, seed=4)])
    vectors = open_vectors(tmp_path / "vectors", more)
    alive = np.ones(len(more), bool)
    alive[:300] = False
    after = tmp_path / "after"
    after.mkdir()
    again = update_from(kind, folder, vectors, alive, after, parameters, silent)
    assert again == parameters
    found = open_candidates(kind, after, again, CPU)
    queries = more[1500:1540]
    proposed = found.propose(queries, 64, RowFilter(), found.levels - 1)
    assert proposed.max() < len(more)
    assert not set(proposed.ravel()) & set(range(300))
    truth = nearest(more, queries, np.arange(300, len(more)), 6)
    assert share(proposed, truth) >= 0.99
    # The earlier version is what it was.
    before = open_candidates(kind, folder, parameters, CPU)
    assert before.propose(values[:1], 5, RowFilter(), before.levels - 1)[0, 0] == 0


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("count", [1, 2, 60])
def test_tiny_sets_work(
    kind: str, count: int, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    values = photographs(count)
    vectors = open_vectors(tmp_path, values)
    parameters = train(kind, vectors, None, tmp_path, EngineOptions(), silent)
    found = open_candidates(kind, tmp_path, parameters, CPU)
    proposed = found.propose(values, 64, RowFilter(), found.levels - 1)
    assert [row in found for row, found in enumerate(proposed)] == [True] * count
    assert sorted(set(proposed.ravel())) == [-1, *range(count)]
    assert "WARNING" not in "".join(capfd.readouterr())


@pytest.mark.parametrize("kind", KINDS)
def test_equal_vectors_are_no_obstacle(kind: str, tmp_path: Path) -> None:
    vectors = open_vectors(tmp_path, np.ones((300, 4096), np.float32))
    parameters = train(kind, vectors, None, tmp_path, EngineOptions(), silent)
    found = open_candidates(kind, tmp_path, parameters, CPU)
    proposed = found.propose(np.ones((1, 4096), np.float32), 20, RowFilter(), found.levels - 1)
    assert (proposed >= 0).all()


def test_the_same_seed_makes_the_same_file(values: Floats, tmp_path: Path) -> None:
    vectors = open_vectors(tmp_path, values[:400])
    written = []
    for _ in range(2):
        train("pq", vectors, None, tmp_path, EngineOptions(lists=8), silent)
        written.append((tmp_path / FAISS_FILE).read_bytes())
    assert written[0] == written[1]


@pytest.mark.parametrize("kept", [0, 100, 0.5, 0.99])
def test_a_damaged_file_is_told(made: Any, kept: float, tmp_path: Path) -> None:
    kind, folder, parameters, _ = made
    whole = (folder / FAISS_FILE).read_bytes()
    size = int(kept * len(whole)) if kept < 1 else int(kept)
    (tmp_path / FAISS_FILE).write_bytes(whole[:size])
    with pytest.raises(StoreError, match=FAISS_FILE):
        open_candidates(kind, tmp_path, parameters, CPU)


def test_a_missing_file_and_one_of_another_kind_are_told(made: Any, tmp_path: Path) -> None:
    kind, folder, parameters, _ = made
    with pytest.raises(StoreError, match=FAISS_FILE):
        open_candidates(kind, tmp_path, parameters, CPU)
    other = "ivf" if kind == "hnsw" else "hnsw"
    with pytest.raises(StoreError, match=FAISS_FILE):
        open_candidates(other, folder, parameters, CPU)


def test_a_full_disk_is_an_os_error(values: Floats, tmp_path: Path) -> None:
    if not Path("/dev/full").exists():
        pytest.skip("this system has no full device")
    vectors = open_vectors(tmp_path / "vectors", values[:300])
    (tmp_path / FAISS_FILE).symlink_to("/dev/full")
    with pytest.raises(OSError, match="No space"):
        train("hnsw", vectors, None, tmp_path, EngineOptions(), silent)


def test_what_cannot_be_is_refused(tmp_path: Path) -> None:
    vectors = open_vectors(tmp_path, photographs(4))
    for kind in ("exact", "milvus", "annoy"):
        with pytest.raises(StoreError, match=kind):
            train(kind, vectors, None, tmp_path, EngineOptions(), silent)
    with pytest.raises(StoreError, match="nothing to index"):
        train("ivf", vectors, np.zeros(4, bool), tmp_path, EngineOptions(), silent)
    for wrong in ({"bytes": 33}, {"dimensions": 0}, {"links": 1}, {"lists": -1}):
        with pytest.raises(StoreError, match=next(iter(wrong))):
            EngineOptions(**wrong)


def test_options_reach_faiss(values: Floats, tmp_path: Path) -> None:
    vectors = open_vectors(tmp_path, values[:400])
    chosen = EngineOptions(lists=5, dimensions=32, bytes=16)
    parameters = train("pq", vectors, None, tmp_path, chosen, silent)
    assert parameters["factory"] == "PCA32,OPQ16,IVF5,PQ16"
    assert open_candidates("pq", tmp_path, parameters, CPU).levels == 4


def peak() -> int:
    """The most memory this process has held, in KiB, since it was last forgotten."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM"))


def forget_peak() -> None:
    """Begin anew. Skips the test where the system does not do that."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        pytest.skip("this system does not measure peaks of memory")


def test_building_holds_a_part_of_the_vectors_only(tmp_path: Path) -> None:
    """To build from 12 shards takes no more than from 4."""
    shard = write_shard(tmp_path / "0.npy", [photographs(2048)], "float16")
    for number in range(1, 12):
        os.link(tmp_path / "0.npy", tmp_path / f"{number}.npy")
    peaks = []
    for count in (4, 12):
        shards = [replace(shard, file=f"{number}.npy") for number in range(count)]
        forget_peak()
        vectors = Vectors(tmp_path, shards, "float16")
        train("ivf", vectors, None, tmp_path, EngineOptions(lists=16), silent)
        peaks.append(peak())
    # In float16 alone the 16384 vectors more are 128 MiB.
    assert peaks[1] - peaks[0] < 60 * 1024


@pytest.mark.parametrize(
    ("count", "memory", "kind"),
    [
        (1, GIB, "exact"),
        (MAX_EXACT_ROWS, 16 * GIB, "exact"),
        (MAX_EXACT_ROWS + 1, 16 * GIB, "pq"),
        (1_281_167, 1024 * GIB, "pq"),
        (MAX_EXACT_ROWS, GIB, "pq"),
        (16384, GIB, "exact"),
        (16385, GIB, "pq"),
    ],
)
def test_the_kind_follows_size_and_memory(count: int, memory: int, kind: str) -> None:
    choice = choose_kind(count, memory)
    assert choice.kind == kind
    assert f"{count:,} vectors" in choice.reason
    assert choice.reason.endswith(".")


def test_half_precision_fits_twice_as_many() -> None:
    assert choose_kind(16385, GIB, "float16").kind == "exact"

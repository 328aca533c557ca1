"""Where an index goes is decided from what there is, and a failing GPU is no failure."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import faiss
import numpy as np
import pytest

from index.candidates import RowFilter
from index.engines import device, faiss_search
from index.engines.device import (
    MAX_GPU_NEIGHBOURS,
    RESERVED_BYTES,
    GpuExactSearch,
    Placement,
    choose_placement,
    gpu_bytes_needed,
    open_exact_on_gpus,
    place_index,
)
from index.engines.faiss_search import FaissSearch, GpuFaissSearch
from index.vectors import Vectors, write_shard

GIB = 1 << 30


@pytest.mark.parametrize(
    ("asked", "kind", "needed", "free", "gpus"),
    [
        ("auto", "exact", GIB, [], ()),
        ("gpu", "exact", GIB, [], ()),
        ("gpus", "exact", GIB, [], ()),
        ("cpu", "exact", GIB, [80 * GIB], ()),
        ("auto", "exact", GIB, [8 * GIB], (0,)),
        ("gpu", "ivf", GIB, [8 * GIB], (0,)),
        ("gpus", "pq", GIB, [8 * GIB], (0,)),
        ("auto", "hnsw", GIB, [80 * GIB], ()),
        ("gpus", "binary", GIB, [80 * GIB], ()),
        ("gpu", "milvus", GIB, [80 * GIB], ()),
        # Exactly what fits beside what is spared, and a byte more.
        ("auto", "exact", 8 * GIB - RESERVED_BYTES, [8 * GIB], (0,)),
        ("auto", "exact", 8 * GIB - RESERVED_BYTES + 1, [8 * GIB], ()),
        # One GPU: the emptiest, and the first of equals.
        ("auto", "exact", GIB, [4 * GIB, 8 * GIB], (1,)),
        ("gpu", "exact", GIB, [8 * GIB, 8 * GIB], (0,)),
        # Too large for one: shared by as few as have room, unless one was asked for.
        ("auto", "exact", 10 * GIB, [8 * GIB, 8 * GIB], (0, 1)),
        ("auto", "exact", 10 * GIB, [8 * GIB, 8 * GIB, 8 * GIB], (0, 1)),
        ("auto", "exact", 16 * GIB, [8 * GIB, 8 * GIB, 8 * GIB], (0, 1, 2)),
        ("gpu", "exact", 10 * GIB, [8 * GIB, 8 * GIB], ()),
        ("auto", "exact", 40 * GIB, [8 * GIB, 8 * GIB], ()),
        # `gpus` shares even what would fit on one, and leaves out a GPU that is full.
        ("gpus", "ivf", GIB, [8 * GIB, 8 * GIB, 8 * GIB], (0, 1, 2)),
        ("gpus", "ivf", GIB, [8 * GIB, GIB, 8 * GIB], (0, 2)),
        ("gpus", "ivf", GIB, [GIB, GIB], ()),
    ],
)
def test_placement(
    asked: str, kind: str, needed: int, free: list[int], gpus: tuple[int, ...]
) -> None:
    placement = choose_placement(asked, kind, needed, free)
    assert placement.gpus == gpus
    assert placement.where == ("cpu" if not gpus else "gpu" if len(gpus) == 1 else "gpus")
    assert placement.reason


def test_the_reason_says_what_lacks() -> None:
    assert choose_placement("auto", "exact", 1, []).reason == "FAISS sees no GPU"
    assert "hnsw" in choose_placement("auto", "hnsw", 1, [80 * GIB]).reason
    assert "10,240 MiB" in choose_placement("gpu", "exact", 10 * GIB, [8 * GIB, GIB]).reason
    assert "9,216 MiB free" in choose_placement("auto", "exact", 20 * GIB, [8 * GIB, GIB]).reason


def test_only_four_places_can_be_asked_for() -> None:
    with pytest.raises(ValueError, match="cuda"):
        choose_placement("cuda", "exact", 1, [])


def test_half_precision_is_kept_where_it_was_asked_for_on_a_gpu() -> None:
    assert choose_placement("auto", "exact", GIB, [8 * GIB], float16=True).float16
    assert not choose_placement("auto", "exact", GIB, [8 * GIB]).float16
    assert not choose_placement("cpu", "exact", GIB, [8 * GIB], float16=True).float16


def test_memory_needed() -> None:
    assert gpu_bytes_needed("exact", 1000, {}, float16=False) == 1000 * (4096 * 4 + 4)
    assert gpu_bytes_needed("exact", 1000, {}, float16=True) == 1000 * (4096 * 2 + 4)
    ivf = {"dimensions": 128, "lists": 16, "bytes": 256}
    assert gpu_bytes_needed("ivf", 1000, ivf, float16=False) >= 1000 * (256 + 8) + 16 * 128 * 4
    assert gpu_bytes_needed("pq", 1000, ivf | {"bytes": 32}, False) < gpu_bytes_needed(
        "ivf", 1000, ivf, False
    )


def test_the_log_says_why_it_is_the_cpu(caplog: pytest.LogCaptureFixture) -> None:
    """As a warning where a GPU was asked for."""
    caplog.set_level("INFO")
    assert not place_index("gpus", "hnsw", GIB).gpus
    assert not place_index("cpu", "exact", GIB).gpus
    assert [record.levelname for record in caplog.records] == ["WARNING", "INFO"]
    assert "hnsw" in caplog.text


class FailingGpu:
    """What FAISS does when a GPU runs out of memory in the middle of a search."""

    def search(self, *_what: Any, **_how: Any) -> None:
        raise RuntimeError("cudaMalloc failed")


@pytest.fixture
def lists() -> FaissSearch:
    index = faiss.index_factory(4096, "PCA8,IVF1,SQfp16")
    values = np.random.default_rng(0).random((64, 4096), np.float32)
    index.train(values)
    index.add(values)
    return FaissSearch("ivf", index)


def test_a_gpu_that_fails_gives_way_to_the_cpu(
    lists: FaissSearch, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(faiss_search, "copy_to_gpus", lambda _index, _placement: FailingGpu())
    there = GpuFaissSearch(lists, Placement(gpus=(0,), reason=""))
    queries = np.random.default_rng(0).random((64, 4096), np.float32)[:3]
    for _ in range(2):
        found = there.propose(queries, 5, RowFilter(), 0)
        assert found.tolist() == lists.propose(queries, 5, RowFilter(), 0).tolist()
    assert caplog.text.count("cudaMalloc failed") == 1


def test_a_view_and_many_candidates_are_not_asked_of_a_gpu(
    lists: FaissSearch, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(faiss_search, "copy_to_gpus", lambda _index, _placement: FailingGpu())
    there = GpuFaissSearch(lists, Placement(gpus=(0,), reason=""))
    query = np.ones((1, 4096), np.float32)
    some = RowFilter(rows=np.array([3, 5]))
    assert sorted(there.propose(query, 2, some, 0)[0]) == [3, 5]
    assert there.propose(query, MAX_GPU_NEIGHBOURS + 1, RowFilter(), 0).shape == (
        1,
        MAX_GPU_NEIGHBOURS + 1,
    )
    assert there.copy is not None


def test_an_index_that_cannot_go_to_a_gpu_stays(
    lists: FaissSearch, caplog: pytest.LogCaptureFixture
) -> None:
    if faiss.get_num_gpus():
        pytest.skip("there is a GPU")
    there = GpuFaissSearch(lists, Placement(gpus=(0,), reason=""))
    query = np.ones((1, 4096), np.float32)
    assert there.propose(query, 2, RowFilter(), 0).shape == (1, 2)
    assert "cannot go to the GPU" in caplog.text


def open_vectors(folder: Path, values: Any) -> Vectors:
    shard = write_shard(folder / "vectors-0.npy", [values], "float32")
    return Vectors(folder, [shard], "float32")


class Nobody:
    """Stands where the CPU's exact search would; tells when it was asked."""

    levels, exhaustive = 1, True

    def propose(self, queries: Any, count: int, view: RowFilter, effort: int) -> Any:
        return np.full((len(queries), count), -7)


@pytest.mark.parametrize("gpus", [(0,), (0, 1, 2)])
def test_vectors_parted_among_gpus_are_one_index(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, gpus: tuple[int, ...]
) -> None:
    """The GPUs are CPUs here: FAISS's own flat index stands for each."""
    monkeypatch.setattr(faiss, "StandardGpuResources", SimpleNamespace, raising=False)
    monkeypatch.setattr(device, "empty_gpu_index", lambda *_: faiss.IndexFlatL2(4096))
    values = np.random.default_rng(1).random((100, 4096), np.float32)
    alive = np.ones(100, bool)
    alive[::7] = False
    flat = GpuExactSearch(
        open_vectors(tmp_path, values), alive, Nobody(), Placement(gpus=gpus, reason="")
    )
    queries = values[:9] + 0.01
    truth = np.square(queries[:, None] - values[alive]).sum(axis=2).argsort(axis=1)[:, :6]
    assert (
        flat.propose(queries, 6, RowFilter(), 0).tolist() == np.flatnonzero(alive)[truth].tolist()
    )
    everything = flat.propose(queries[:1], 200, RowFilter(), 0)
    assert sorted(set(everything[0])) == [-1, *np.flatnonzero(alive)]
    assert (flat.propose(queries, 2, RowFilter(rows=np.array([3])), 0) == -7).all()
    flat.flats[0] = FailingGpu()
    assert (flat.propose(queries, 2, RowFilter(), 0) == -7).all()
    assert (flat.propose(queries, 2, RowFilter(), 0) == -7).all()


def test_without_gpus_the_exact_search_is_the_cpu_s(tmp_path: Path) -> None:
    vectors = open_vectors(tmp_path, np.ones((3, 4096), np.float32))
    nobody = Nobody()
    assert (
        open_exact_on_gpus(vectors, None, nobody, choose_placement("auto", "exact", 1, []))
        is nobody
    )
    if not faiss.get_num_gpus():
        failing = Placement(gpus=(0,), reason="")
        assert open_exact_on_gpus(vectors, None, nobody, failing) is nobody


@pytest.mark.gpu
def test_a_gpu_finds_what_the_cpu_finds(tmp_path: Path) -> None:
    if not faiss.get_num_gpus():
        pytest.skip("FAISS sees no GPU")
    values = np.random.default_rng(1).random((500, 4096), np.float32)
    placement = choose_placement("gpu", "exact", 1, device.free_gpu_bytes())
    flat = open_exact_on_gpus(open_vectors(tmp_path, values), None, Nobody(), placement)
    assert flat.propose(values[:20], 1, RowFilter(), 0)[:, 0].tolist() == list(range(20))

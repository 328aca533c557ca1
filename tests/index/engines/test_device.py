"""An index is placed where there is room, and a GPU that fails gives way to the CPU."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import faiss
import numpy as np
import pytest

from index.engines import exact
from index.engines.device import (
    MAX_GPU_NEIGHBOURS,
    RESERVED_BYTES,
    GpuSearch,
    Placement,
    choose_placement,
    estimate_gpu_bytes,
    open_on_gpus,
    place_index,
    query_free_gpu_bytes,
)
from index.engines.exact import GpuVectors, open_exact
from index.engines.faiss_search import FaissSearch, GpuLists
from index.engines.options import SearchDevice
from index.engines.protocol import RowFilter, VersionData
from index.vectors import Vectors

GIB = 1 << 30


@pytest.mark.parametrize(
    ("requested", "kind", "needed", "free", "gpus"),
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
        # Exactly what fits beside the reserved bytes, and a byte more.
        ("auto", "exact", 8 * GIB - RESERVED_BYTES, [8 * GIB], (0,)),
        ("auto", "exact", 8 * GIB - RESERVED_BYTES + 1, [8 * GIB], ()),
        # One GPU: the emptiest, and the first of equals.
        ("auto", "exact", GIB, [4 * GIB, 8 * GIB], (1,)),
        ("gpu", "exact", GIB, [8 * GIB, 8 * GIB], (0,)),
        # Too large for one: shared by as few as have room, unless one was requested.
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
    requested: str, kind: str, needed: int, free: list[int], gpus: tuple[int, ...]
) -> None:
    placement = choose_placement(requested, kind, needed, free)
    assert placement.gpus == gpus
    assert placement.where == ("cpu" if not gpus else "gpu" if len(gpus) == 1 else "gpus")
    assert placement.reason


def test_the_reason_names_what_is_missing() -> None:
    assert "hnsw" in choose_placement("auto", "hnsw", 1, [80 * GIB]).reason
    assert "10,240 MiB" in choose_placement("gpu", "exact", 10 * GIB, [8 * GIB, GIB]).reason
    assert "9,216 MiB free" in choose_placement("auto", "exact", 20 * GIB, [8 * GIB, GIB]).reason


def test_only_four_devices_can_be_requested() -> None:
    with pytest.raises(ValueError, match="cuda"):
        choose_placement("cuda", "exact", 1, [])


def test_half_precision_is_for_gpus_only() -> None:
    assert choose_placement("auto", "exact", GIB, [8 * GIB], float16=True).float16
    assert not choose_placement("auto", "exact", GIB, [8 * GIB]).float16
    assert not choose_placement("cpu", "exact", GIB, [8 * GIB], float16=True).float16


def test_memory_needed() -> None:
    assert estimate_gpu_bytes("exact", 1000, {}, float16=False) == 1000 * (4096 * 4 + 4)
    assert estimate_gpu_bytes("exact", 1000, {}, float16=True) == 1000 * (4096 * 2 + 4)
    ivf = {"dimensions": 128, "lists": 16, "bytes": 256}
    assert estimate_gpu_bytes("ivf", 1000, ivf, float16=False) >= 1000 * (256 + 8) + 16 * 128 * 4
    assert estimate_gpu_bytes("pq", 1000, ivf | {"bytes": 32}, False) < estimate_gpu_bytes(
        "ivf", 1000, ivf, False
    )


def test_the_log_says_why_it_is_the_cpu(caplog: pytest.LogCaptureFixture) -> None:
    """As a warning if a GPU was requested."""
    caplog.set_level("INFO")
    assert not place_index(SearchDevice(device="gpus"), "hnsw", 5).gpus
    assert not place_index(SearchDevice(device="cpu"), "exact", 5).gpus
    assert [record.levelname for record in caplog.records] == ["WARNING", "INFO"]
    assert "hnsw" in caplog.text


class FailingGpu:
    """What FAISS does when a GPU runs out of memory in the middle of a search."""

    def search(self, *_: Any, **__: Any) -> Any:
        raise RuntimeError("cudaMalloc failed")


@pytest.fixture(scope="module")
def values() -> Any:
    return np.random.default_rng(0).random((64, 4096), np.float32)


@pytest.fixture(scope="module")
def lists(values: Any) -> FaissSearch:
    index = faiss.index_factory(4096, "PCA8,IVF1,SQfp16")
    index.train(values)
    index.add(values)
    return FaissSearch("ivf", index)


def test_a_gpu_that_fails_gives_way_to_the_cpu(
    lists: FaissSearch, values: Any, caplog: pytest.LogCaptureFixture
) -> None:
    search = GpuSearch(FailingGpu(), lists, exhaustive=False)
    for _ in range(2):
        found = search.propose(values[:3], 5, RowFilter(), 0)
        assert found.tolist() == lists.propose(values[:3], 5, RowFilter(), 0).tolist()
    assert caplog.text.count("cudaMalloc failed") == 1


def test_many_candidates_stay_on_the_cpu(lists: FaissSearch) -> None:
    search = GpuSearch(FailingGpu(), lists, exhaustive=False)
    query, many = np.ones((1, 4096), np.float32), MAX_GPU_NEIGHBOURS + 1
    assert search.propose(query, many, RowFilter(), 0).shape == (1, many)
    assert search.on_gpus is not None


def test_an_index_that_cannot_be_copied_to_a_gpu_stays_on_the_cpu(
    lists: FaissSearch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail() -> Any:
        raise RuntimeError("out of memory")

    on_gpu = Placement(gpus=(0,), reason="")
    assert open_on_gpus(lists, on_gpu, fail) is lists
    assert "out of memory" in caplog.text
    if not faiss.get_num_gpus():
        assert open_on_gpus(lists, on_gpu, lambda: GpuLists(lists, on_gpu)) is lists


@pytest.mark.parametrize("gpus", [(0,), (0, 1, 2)])
def test_vectors_shared_by_gpus_are_one_index(
    tmp_path: Path,
    open_vectors: Callable[..., Vectors],
    values: Any,
    monkeypatch: pytest.MonkeyPatch,
    gpus: tuple[int, ...],
) -> None:
    """The GPUs are CPUs here: FAISS's own flat index stands for each."""
    monkeypatch.setattr(faiss, "StandardGpuResources", SimpleNamespace, raising=False)
    monkeypatch.setattr(exact, "make_empty_gpu_index", lambda *_: faiss.IndexFlatL2(4096))
    live = np.flatnonzero(np.arange(64) % 7)
    vectors = open_vectors(tmp_path, values, "float32")
    on_gpus = GpuVectors(vectors, live, Placement(gpus=gpus, reason=""))
    queries = values[:9] + 0.01
    squared = np.square(queries[:, None] - values[live]).sum(axis=2)
    truth = live[squared.argsort(axis=1)[:, :6]]
    assert on_gpus.search(queries, 6, 0).tolist() == truth.tolist()
    everything = on_gpus.search(queries, 64, 0)
    assert all(sorted(row[row >= 0]) == live.tolist() for row in everything)


def test_without_gpus_there_is_no_engine_for_exact(
    tmp_path: Path,
    open_vectors: Callable[..., Vectors],
    version_of: Callable[..., VersionData],
    values: Any,
) -> None:
    version = version_of(tmp_path, open_vectors(tmp_path, values))
    assert open_exact(version, {}) is None


@pytest.mark.gpu
def test_a_gpu_finds_what_the_cpu_finds(
    tmp_path: Path,
    open_vectors: Callable[..., Vectors],
    version_of: Callable[..., VersionData],
    values: Any,
) -> None:
    if not query_free_gpu_bytes():
        pytest.skip("FAISS sees no GPU")
    version = version_of(tmp_path, open_vectors(tmp_path, values))
    search = open_exact(replace(version, device=SearchDevice(device="gpu")), {})
    assert isinstance(search, GpuSearch)
    assert search.propose(values[:20], 1, RowFilter(), 0)[:, 0].tolist() == list(range(20))

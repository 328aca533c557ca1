"""FAISS on the GPU: whether it finds what the CPU finds, how fast, and in how much memory.

The vectors are like fc7's: not negative, half of them zero, within a few dozen directions. They are
stored as float16. The truth is torch's own comparison with every vector.
"""

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmarks.gpu_harness.job import Job
from benchmarks.gpu_parts.timing import median_seconds

NEIGHBOURS = 6
QUERIES = 256
DIRECTIONS = 64
"""Dimension of the space in which the vectors differ before the ReLU."""
EFFORT = 4
"""2⁴ lists are searched."""
LARGE = 1_200_000
SECONDS_OF_LARGE = 40.0
"""Below this the large index is left out."""
BATCHES = (1, 64, 256)


def measure(job: Job) -> None:
    """Measure exact search, inverted lists and product quantization, then a large exact search."""
    import faiss

    job.record(faiss=faiss.__version__, gpus=faiss.get_num_gpus())
    rows = 2000 if job.quick else 100_000
    vectors = make_vectors(job, rows)
    for kind in ("exact", "ivf", "pq"):
        job.attempt(f"{kind}, {rows:,}", partial(measure_kind, kind, vectors, job))
    if job.quick or job.seconds_left < SECONDS_OF_LARGE:
        return
    large = make_vectors(job, LARGE)
    job.record(**{f"exact, {LARGE:,}": measure_kind("exact", large, job, on_cpu=False)})


@dataclass(frozen=True)
class TestVectors:
    """Vectors on disk, queries, and which vectors are nearest.

    version: index.engines.protocol.VersionData. queries: float32 [Q, 4096]. truth: int64 [Q, 6].
    """

    version: Any
    queries: Any
    truth: Any
    seconds: float


def make_vectors(job: Job, rows: int) -> TestVectors:
    """Draw vectors, write them as the index does, and find each query's nearest."""
    from index.engines.protocol import VersionData
    from index.id_map import IdMap
    from index.vectors import ROWS_PER_SHARD, Vectors, write_shard

    started, folder = time.monotonic(), job.work / f"vectors-{rows}"
    folder.mkdir(parents=True, exist_ok=True)
    for file in folder.iterdir():
        file.unlink()
    device = job.torch_device
    queries = draw_features(QUERIES, device, seed=1)
    best = torch.full((QUERIES, NEIGHBOURS), torch.inf, device=device)
    numbers = torch.zeros((QUERIES, NEIGHBOURS), dtype=torch.int64, device=device)
    writing = []
    with ThreadPoolExecutor(4) as pool:
        for start in range(0, rows, ROWS_PER_SHARD):
            part = draw_features(min(ROWS_PER_SHARD, rows - start), device, seed=2 + start)
            found = torch.cat([best, torch.cdist(queries.float(), part.float())], 1)
            own = torch.arange(start, start + len(part), device=device).expand(QUERIES, -1)
            best, places = found.topk(NEIGHBOURS, largest=False)
            numbers = torch.cat([numbers, own], 1).gather(1, places)
            path = folder / f"{start:09}.npy"
            writing.append(pool.submit(write_shard, path, [part.cpu().numpy()], "float16"))
        shards = [shard.result() for shard in writing]
    ids = np.arange(rows)
    version = VersionData(
        name="noise",
        folder=folder,
        vectors=Vectors(folder, shards, "float16"),
        id_map=IdMap(ids, ids, np.zeros(rows, np.int32)),
    )
    wanted = queries.float().cpu().numpy(), numbers.cpu().numpy()
    return TestVectors(version, *wanted, time.monotonic() - started)


def draw_features(count: int, device: torch.device, seed: int) -> Tensor:
    """Draw vectors like fc7's features: float16 [count, 4096]."""
    axes = torch.randn(DIRECTIONS, 4096, generator=torch.Generator().manual_seed(0)).to(device)
    random = torch.Generator(device).manual_seed(seed)
    places = torch.randn(count, DIRECTIONS, generator=random, device=device)
    noise = 0.5 * torch.randn(count, 4096, generator=random, device=device)
    return (places @ axes / 8 + noise).relu().half()


def measure_kind(
    kind: str, vectors: TestVectors, job: Job, *, on_cpu: bool = True
) -> dict[str, Any]:
    """Build a kind of index; search it on the GPU and, unless it takes too long, on the CPU."""
    from index.engines.device import GpuSearch, estimate_gpu_bytes
    from index.engines.options import SearchDevice

    figures: dict[str, Any] = {"vectors_seconds": vectors.seconds}
    version, options = vectors.version, {"device": "gpu" if job.device == "cuda" else "cpu"}
    started = time.monotonic()
    if kind != "exact":
        train_kind(kind, version)
    figures["train_seconds"] = time.monotonic() - started
    before = free_memory(job)
    started = time.monotonic()
    device = SearchDevice(device=options["device"], float16=True)
    engine = open_kind(kind, replace(version, device=device))
    figures |= {
        "open_seconds": time.monotonic() - started,
        "on_gpu": isinstance(engine, GpuSearch),
        "bytes_taken": before - free_memory(job),
        "bytes_estimated": estimate_gpu_bytes(
            kind, len(version.vectors), getattr(cpu_engine(engine), "list_shape", {}), True
        ),
    }
    figures |= ask(engine, vectors, job)
    figures["bytes_taken_searching"] = before - free_memory(job)
    if on_cpu and job.device == "cuda":
        cpu = open_kind(kind, replace(version, device=SearchDevice(device="cpu")))
        figures["cpu"] = ask(cpu, vectors, job)
        figures["same_as_cpu"] = overlap(propose(engine, vectors), propose(cpu, vectors))
    return figures


def train_kind(kind: str, version: Any) -> None:
    """Train a kind and write its file, as `flask index build` does."""
    from index.engines.faiss_train import train_faiss
    from index.engines.options import EngineOptions

    train_faiss(kind, version, EngineOptions(), lambda *_: lambda _done: None)


def open_kind(kind: str, version: Any) -> Any:
    """Open a kind on the version's device."""
    from index.engines.exact import open_exact
    from index.engines.faiss_search import open_faiss

    return open_exact(version, {}) if kind == "exact" else open_faiss(kind, version, {})


def cpu_engine(engine: Any) -> Any:
    """Return the engine that searches on the CPU."""
    return getattr(engine, "on_cpu", engine)


def free_memory(job: Job) -> int:
    """Return the free bytes of the GPU; 0 for a CPU."""
    if job.device != "cuda":
        return 0
    torch.cuda.empty_cache()
    return torch.cuda.mem_get_info()[0]


def propose(engine: Any, vectors: TestVectors) -> Any:
    """Ask for the nearest of all queries: int64 [Q, 6]."""
    from index.engines.protocol import RowFilter

    return engine.propose(vectors.queries, NEIGHBOURS, RowFilter(), EFFORT)


def ask(engine: Any, vectors: TestVectors, job: Job) -> dict[str, Any]:
    """Measure queries a second by size of batch, and the recall of the candidates themselves."""
    from index.engines.protocol import RowFilter

    speeds = {}
    for batch in BATCHES:
        queries = vectors.queries[:batch]
        search: Callable[[], Any] = lambda q=queries: engine.propose(  # type: ignore[misc]  # noqa: E731
            q, NEIGHBOURS, RowFilter(), EFFORT
        )
        rounds = 1 if job.quick else 10 if job.device == "cuda" and on_gpu(engine) else 2
        speeds[str(batch)] = batch / median_seconds(search, job.torch_device, rounds, warm_up=1)
    recall = overlap(propose(engine, vectors), vectors.truth)
    return {"queries_per_second": speeds, "recall": recall}


def on_gpu(engine: Any) -> bool:
    """Whether an engine searches on a GPU."""
    return getattr(engine, "on_gpus", None) is not None


def overlap(found: Any, wanted: Any) -> float:
    """Return the share of wanted rows that were found: int64 [Q, 6] each."""
    pairs = zip(found.tolist(), wanted.tolist(), strict=True)
    return float(sum(len(set(a) & set(b)) for a, b in pairs) / wanted.size)

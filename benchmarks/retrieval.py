"""The workers of benchmarks/index.py: find the true neighbours, build a kind, query a kind."""

import json
import os
import re
import resource
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import numpy.typing as npt
import torch

from benchmarks.windows import ROWS_PER_SLICE
from benchmarks.workers import write_answer
from index import store
from index.draft import VersionDraft, draft_version
from index.engines.factory import MAX_EXACT_ROWS, IndexSpec, build_engine
from index.engines.protocol import VersionData
from index.id_map import IdMap, write_id_map
from index.manifest import Manifest, Shard
from index.search import Index
from index.store import open_version
from index.vectors import Floats, bound_squared_norm, compute_file_sha256, write_shard

TRUE_NEIGHBOURS = 100
"""True neighbours that are found for each query, for recall@100."""
BATCH_QUERIES = 64
"""Queries in the batch that is timed."""
SINGLE_QUERIES, SINGLE_QUERIES_IF_SLOW = 40, 2
"""Queries timed one by one in a turn; fewer if one takes more than half a second."""
Job = dict[str, Any]


def run_part(part: str, job: Job) -> None:
    """Run one part, which answers in lines of JSON."""
    PARTS[part](job)


def list_slices(job: Job) -> list[tuple[Path, Shard]]:
    """List the slices that make up a size, the last one cut to fit, each with its description."""
    folder, left, found = Path(job["work"], "windows"), job["size"], []
    for number in range(-(-left // ROWS_PER_SLICE)):
        file = folder / f"{number:05}.npy"
        if left < ROWS_PER_SLICE:
            part = folder / f"{number:05}-{left}.npy"
            if not part.exists():
                write_shard(part, [np.load(file, mmap_mode="r")[:left].astype("f4")], "float16")
            file = part
        found.append((file, describe_slice(file)))
        left -= ROWS_PER_SLICE
    return found


def describe_slice(file: Path) -> Shard:
    """Describe a slice as a shard of an index; the description is kept beside it."""
    note = file.with_suffix(".json")
    if not note.exists():
        rows = np.load(file, mmap_mode="r")
        largest = max(bound_squared_norm(rows[i : i + 1024]) for i in range(0, len(rows), 1024))
        size = file.stat().st_size
        shard = {"file": file.name, "rows": len(rows), "largest": largest, "bytes": size}
        note.write_text(json.dumps(shard | {"sha256": compute_file_sha256(file)}))
    return Shard(**json.loads(note.read_text()))


def fill_draft(draft: VersionDraft, job: Job, dtype: str = "float16") -> IdMap:
    """Put the vectors of a size into a draft of an index, one image each."""
    for path, shard in list_slices(job):
        if dtype == "float16":
            draft.link_shard(path, shard)
        else:
            values = np.load(path, mmap_mode="r")
            parts = (values[i : i + 1024] for i in range(0, len(values), 1024))
            draft.shards.append(write_shard(draft.folder / shard.file, parts, dtype))
    numbers = np.arange(job["size"], dtype=np.int64)
    lists = numbers + 1, numbers, np.zeros(len(numbers), np.int32)
    write_id_map(draft.folder, *lists)
    return IdMap(*lists)


def commit_draft(draft: VersionDraft, job: Job, **facts: Any) -> Manifest:
    """Make a draft a version, without weights and photographs."""
    counts = {"images": job["size"], "vectors": job["size"], "unreadable": 0}
    return draft.commit(weights="", data="", listing="", **counts, **facts)


def index_folder(job: Job, kind: str) -> Path:
    """Return the folder of the index of a size and kind."""
    return Path(job["work"], "indexes", f"{job['size']}-{kind}")


def build_kind(job: Job) -> None:
    """Build a kind unless it is there already; answer with what it cost."""
    root = index_folder(job, "exact" if job["kind"] == "flat" else job["kind"])
    note = root / "built.json"
    if not note.exists():
        root.mkdir(parents=True, exist_ok=True)
        note.write_text(json.dumps(measure_build(root, job)))
    write_answer(json.loads(note.read_text()))


def measure_build(root: Path, job: Job) -> Job:
    """Build a kind as `flask index build` does once the features are computed."""
    began = time.perf_counter()
    kind = "exact" if job["kind"] == "flat" else job["kind"]
    with draft_version(root) as draft:
        # The same choice as a build makes by default.
        dtype = "float32" if kind == "exact" and job["size"] <= MAX_EXACT_ROWS else "float16"
        members = fill_draft(draft, job, dtype)
        made = build_engine(
            IndexSpec(kind=kind, target=job["recall"]),
            VersionData(
                name=draft.name,
                folder=draft.folder,
                vectors=draft.open_vectors(dtype),
                id_map=members,
            ),
            lambda _name, _total: lambda _done: None,
            held_out=np.load(Path(job["work"], "held_out.npy")),
        )
        manifest = commit_draft(
            draft,
            job,
            dtype=dtype,
            kind=made.kind,
            target=job["recall"],
            parameters=made.parameters,
            recall=made.recall,
        )
    store.publish_version(root, manifest.name)
    return {
        "build_seconds": time.perf_counter() - began,
        "build_gib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20,
        "megabytes": sum(f.bytes for n, f in manifest.files.items() if n[:4] == "cand") / 1e6,
        "made": made.kind,
        "parameters": made.parameters,
        "tuned": made.recall,
    }


def find_truth(job: Job) -> None:
    """Find the true neighbours of every query by comparing it with every vector."""
    root = index_folder(job, "truth")
    with draft_version(root) as draft:
        members = fill_draft(draft, job)
        manifest = commit_draft(draft, job, dtype="float16", kind="exact", target=1.0)
    index = open_version(root, manifest.name)
    assert len(members) == len(index)
    ids = index.search(read_queries(job), TRUE_NEIGHBOURS).ids
    np.savez(Path(job["work"], f"truth-{job['size']}.npz"), ids=ids)
    write_answer({})


def read_queries(job: Job) -> Floats:
    """Read the features to query with."""
    found: Floats = np.load(Path(job["work"], "queries.npy"))[: job["queries"]]
    return found


Search = Callable[[Floats, int], npt.NDArray[np.int64]]


def answer_queries(job: Job) -> None:
    """Open a kind, answer with its recall, then with its query times at each turn."""
    torch.set_num_threads(1)
    began = time.perf_counter()
    search = open_search(job)
    seconds = time.perf_counter() - began
    asked = read_queries(job)
    right = np.load(Path(job["work"], f"truth-{job['size']}.npz"))["ids"]
    shares = {f"recall@{k}": measure_recall(search, asked, right, k) for k in (6, TRUE_NEIGHBOURS)}
    began = time.perf_counter()
    search(asked[:1], 6)
    alone = SINGLE_QUERIES if time.perf_counter() - began < 0.5 else SINGLE_QUERIES_IF_SLOW
    write_answer({"open_seconds": seconds, **shares})
    for number, _ in enumerate(sys.stdin):
        some = np.roll(asked, -number * alone, axis=0)
        times = [time_search(search, some[i : i + 1]) for i in range(alone)]
        many = time_search(search, some[:BATCH_QUERIES])
        write_answer(
            {
                "one_ms": 1000 * float(np.median(times)),
                "late_ms": 1000 * float(np.quantile(times, 0.95)),
                "many_ms": 1000 * many / min(BATCH_QUERIES, len(some)),
                **read_memory(),
            }
        )


def open_search(job: Job) -> Search:
    """Open an index and return its search function."""
    if job["kind"] == "flat":
        flat = faiss.IndexFlatL2(4096)
        for path, _ in list_slices(job):
            flat.add(np.load(path).astype(np.float32))
        return lambda some, k: flat.search(some, k)[1] + 1
    root = index_folder(job, job["kind"])
    index: Index = open_version(root, store.read_current_version(root) or "")
    return lambda some, k: index.search(some, k).ids


def measure_recall(search: Search, asked: Floats, right: npt.NDArray[np.int64], k: int) -> float:
    """Measure the share of the true k nearest neighbours that are found."""
    found = search(asked, k)
    hits = sum(
        len(np.intersect1d(a, b[:k])) for a, b in zip(found, right[: len(asked)], strict=True)
    )
    return hits / (k * len(asked))


def time_search(search: Search, some: Floats) -> float:
    """Measure the seconds that a search takes."""
    began = time.perf_counter()
    search(some, 6)
    return time.perf_counter() - began


def read_memory() -> dict[str, float]:
    """Read this process's resident memory in GiB: all of it, and without mapped files."""
    status = Path(f"/proc/{os.getpid()}/status").read_text()
    found = {
        name: int(re.search(rf"^{name}:\s+(\d+) kB", status, re.MULTILINE)[1]) / 2**20  # type: ignore[index]
        for name in ("VmRSS", "RssAnon")
    }
    return {"resident_gib": found["VmRSS"], "own_gib": found["RssAnon"]}


PARTS = {"truth": find_truth, "build": build_kind, "ask": answer_queries}

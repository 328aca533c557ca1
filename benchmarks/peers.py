"""`python benchmarks/peers.py`: the exact search and `hnsw` beside other libraries' graphs.

All of them answer in this process, on one thread, by turns, so that other load on the machine falls
on all alike. The vectors are float16 on disk: synthetic ones (benchmarks/synthetic.py), or with
`--data DIR` those of benchmarks/index.py. The answers are compared with brute force in float64.

The peers are FAISS (HNSW32,SQfp16), hnswlib and usearch (`pip install -e ".[peers]"`). Each has the
graph's width and construction effort of `hnsw`, and the least search effort with which it finds
`--recall` of the six nearest. They hold all vectors in memory, so they are measured up to
`--peers-up-to` vectors.
"""

import json
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

if not __package__:
    # Run as a script, Python puts this file's folder on the path, not the project's root.
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import faiss
import numpy as np
import numpy.typing as npt
import torch
import tyro
from rich.console import Console
from threadpoolctl import threadpool_limits

from benchmarks.index import Options as IndexOptions
from benchmarks.index import make_table, prepare_features
from benchmarks.retrieval import commit_draft, fill_draft, index_folder, list_slices, read_queries
from benchmarks.synthetic import QUERY_SLICE, draw_slice, write_synthetic
from index import store
from index.draft import draft_version
from index.engines.factory import IndexSpec, build_engine
from index.engines.graph import EF_CONSTRUCTION
from index.engines.options import EngineOptions
from index.engines.protocol import VersionData
from index.ranking import ImageFilter
from index.search import Index
from index.store import open_version
from storage.home import home_from_environment
from storage.machine import read_processor_name

RESULTS = Path(__file__).parent / "results"
K = 6
BATCH = 64
LINKS = EngineOptions().links
EFFORTS = (8, 16, 32, 64, 128, 256, 512, 1024)
"""Search efforts of a peer to try."""
HELD_OUT = 256
Floats = npt.NDArray[np.float32]
Ids = npt.NDArray[np.int64]
Job = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Options:
    """Measure exact search, hnsw and other libraries' graphs, by turns in one process."""

    data: Path | None = None
    """Folder of photographs whose features are indexed; without it, vectors are synthetic."""
    weights: Path = field(default_factory=lambda: home_from_environment().weights)
    """Weights file that computes the features."""
    work: Path = field(default_factory=lambda: home_from_environment().root / "benchmark")
    """Folder for vectors and indexes, 10 GB for 1.2 million vectors; existing ones are reused."""
    sizes: tuple[int, ...] = (10_000, 100_000)
    """Numbers of vectors."""
    contenders: tuple[str, ...] = ("exact", "hnsw", "faiss", "hnswlib", "usearch")
    """Which to measure; the last three are other libraries."""
    peers_up_to: int = 100_000
    """Most vectors with which other libraries and hnsw are measured."""
    queries: int = 200
    """Number of queries."""
    rounds: int = 5
    """Turns per contender."""
    recall: float = 0.995
    """recall@6 that the graphs have to reach."""
    json: Path = RESULTS / "peers.json"
    """File to write the figures to."""


@dataclass(frozen=True)
class Contender:
    """What answers queries.

    search: float32 [N, 4096] → rows, int64 [N, 6]. megabytes: what it takes beside the vectors on
    disk. facts: further figures.
    """

    search: Callable[[Floats], Ids]
    megabytes: float
    facts: dict[str, float] = field(default_factory=dict)


def main() -> None:
    """Measure, then print and write the figures."""
    options = tyro.cli(Options)
    faiss.omp_set_num_threads(1)
    torch.set_num_threads(1)
    with threadpool_limits(1):
        prepare_vectors(options)
        figures: list[Job] = []
        for size in options.sizes:
            figures += measure_size(options, size)
            write_figures(options, figures)
    Console(width=120).print(make_table(figures, COLUMNS))


def prepare_vectors(options: Options) -> None:
    """Write the vectors, in slices, and the queries."""
    say = Console(stderr=True).print
    if options.data is not None:
        prepare_features(
            IndexOptions(
                data=options.data,
                weights=options.weights,
                work=options.work,
                sizes=options.sizes,
                queries=options.queries,
            )
        )
        return
    folder = options.work / "windows"
    write_synthetic(folder, max(options.sizes), lambda done: say(f"{done:,} vectors"))
    queries = options.work / "queries.npy"
    if not queries.exists() or len(np.load(queries)) < options.queries:
        drawn = draw_slice(QUERY_SLICE, options.queries + HELD_OUT).astype(np.float32)
        np.save(queries, drawn[: options.queries])
        np.save(options.work / "held_out.npy", drawn[options.queries :])


def measure_size(options: Options, size: int) -> list[Job]:
    """Measure every contender at one size."""
    job = {"size": size, "work": str(options.work), "queries": options.queries}
    queries = read_queries(job)
    truth = find_truth(job, queries)
    names = [n for n in options.contenders if n == "exact" or size <= options.peers_up_to]
    contenders = {}
    for name in names:
        Console(stderr=True).print(f"opening {name}, {size:,} vectors")
        contenders[name] = open_contender(name, job, queries, truth, options.recall)
    turns: dict[str, list[tuple[float, float]]] = {name: [] for name in names}
    for _ in range(options.rounds):
        for name, contender in contenders.items():
            turns[name].append(time_turn(contender, queries))
    return [
        {
            "size": size,
            "contender": name,
            "recall": measure_recall(contender.search(queries), truth),
            "one_ms": median(one for one, _ in turns[name]),
            "many_ms": median(many for _, many in turns[name]),
            "megabytes": contender.megabytes,
            **contender.facts,
        }
        for name, contender in contenders.items()
    ]


def find_truth(job: Job, queries: Floats) -> Ids:
    """Find the six nearest rows by brute force in float64, ties by row: int64 [N, 6]."""
    file = Path(job["work"], f"nearest-{job['size']}-{len(queries)}.npy")
    if file.exists():
        found: Ids = np.load(file)
        return found
    wide = queries.astype(np.float64)
    norms = np.square(wide).sum(axis=1)
    best = np.full((len(queries), 0), 0, np.int64), np.full((len(queries), 0), 0.0)
    for first, values in read_vectors(job):
        known = values.astype(np.float64)
        rough = norms[:, None] + np.square(known).sum(axis=1) - 2 * wide @ known.T
        # The rough sums cancel; what may be among the nearest is summed anew from differences.
        near = np.argpartition(rough, min(2 * K, len(known)) - 1, axis=1)[:, : 2 * K]
        exact = np.stack(
            [np.square(known[n] - q).sum(axis=1) for n, q in zip(near, wide, strict=True)]
        )
        rows = np.concatenate([best[0], near + first], axis=1)
        squared = np.concatenate([best[1], exact], axis=1)
        order = np.lexsort((rows, squared))[:, :K]
        best = np.take_along_axis(rows, order, 1), np.take_along_axis(squared, order, 1)
    np.save(file, best[0])
    return best[0]


def read_vectors(job: Job, count: int = 2048) -> Iterator[tuple[int, npt.NDArray[np.float16]]]:
    """Yield the vectors of a size: the first one's row, and float16 [n, 4096]."""
    first = 0
    for file, _ in list_slices(job):
        values = np.load(file, mmap_mode="r")
        for start in range(0, len(values), count):
            part = values[start : start + count]
            yield first + start, np.ascontiguousarray(part)
        first += len(values)


def open_contender(name: str, job: Job, queries: Floats, truth: Ids, recall: float) -> Contender:
    """Build or open a contender."""
    if name in ("exact", "hnsw"):
        return open_own(name, job, queries, recall)
    return choose_effort(PEERS[name](job), queries, truth, recall)


def open_own(kind: str, job: Job, queries: Floats, recall: float) -> Contender:
    """Open an index of this project, built as `flask index build --storage float16` does."""
    root = index_folder(job, f"{kind}-float16")
    if store.read_current_version(root) is None:
        root.mkdir(parents=True, exist_ok=True)
        build_own(kind, root, job, recall)
    index = open_version(root, store.read_current_version(root) or "")
    files = index.manifest.files
    own = sum(f.bytes for n, f in files.items() if n.startswith(("candidates", "projection")))
    facts = {} if kind == "hnsw" else {"rows_read": count_rows_read(index, queries)}
    return Contender(lambda some: index.search(some, K).ids - 1, own / 1e6, facts)


def build_own(kind: str, root: Path, job: Job, recall: float) -> None:
    """Build an index of this project."""
    with draft_version(root) as draft:
        id_map = fill_draft(draft, job)
        vectors = draft.open_vectors("float16")
        version = VersionData(name=draft.name, folder=draft.folder, vectors=vectors, id_map=id_map)
        made = build_engine(
            IndexSpec(kind=kind, target=recall),
            version,
            lambda _name, _total: lambda _done: None,
            held_out=np.load(Path(job["work"], "held_out.npy")),
        )
        facts = {"parameters": made.parameters, "recall": made.recall}
        manifest = commit_draft(draft, job, dtype="float16", kind=made.kind, target=recall, **facts)
    store.publish_version(root, manifest.name)


def count_rows_read(index: Index, queries: Floats) -> float:
    """Count the vectors that a proof reads: the median over queries, each alone."""
    everything = ImageFilter(index.id_map)
    return median(
        index.exact.search(queries[i : i + 1], K, everything)[0].rows for i in range(len(queries))
    )


@dataclass(frozen=True)
class Peer:
    """Another library's graph. search: with an effort. megabytes: in memory, vectors included."""

    search: Callable[[Floats, int], Ids]
    megabytes: float


def choose_effort(peer: Peer, queries: Floats, truth: Ids, recall: float) -> Contender:
    """Choose the least effort that reaches the recall, or the greatest."""
    effort = EFFORTS[-1]
    for effort in EFFORTS:
        if measure_recall(peer.search(queries, effort), truth) >= recall:
            break
    return Contender(
        lambda some: peer.search(some, effort), peer.megabytes, {"effort": float(effort)}
    )


def build_faiss(job: Job) -> Peer:
    """Build FAISS's HNSW32,SQfp16."""
    untyped: Any = faiss
    graph = untyped.IndexHNSWSQ(4096, untyped.ScalarQuantizer.QT_fp16, LINKS)
    graph.hnsw.efConstruction = EF_CONSTRUCTION
    graph.train(np.zeros((1, 4096), np.float32))
    for _, values in read_vectors(job):
        graph.add(values.astype(np.float32))
    size = 2 * 4096 * graph.ntotal + 4 * graph.hnsw.neighbors.size()

    def search(some: Floats, effort: int) -> Ids:
        found: Ids = graph.search(some, K, params=untyped.SearchParametersHNSW(efSearch=effort))[1]
        return found

    return Peer(search, size / 1e6)


def build_hnswlib(job: Job) -> Peer:
    """Build hnswlib's index, which stores float32."""
    import hnswlib

    graph = hnswlib.Index(space="l2", dim=4096)
    graph.init_index(job["size"], ef_construction=EF_CONSTRUCTION, M=LINKS)
    graph.set_num_threads(1)
    for first, values in read_vectors(job):
        numbers = np.arange(first, first + len(values))
        graph.add_items(values.astype(np.float32), numbers, num_threads=1)

    def search(some: Floats, effort: int) -> Ids:
        graph.set_ef(max(effort, K))
        return np.asarray(graph.knn_query(some, K, num_threads=1)[0], np.int64)

    return Peer(search, graph.index_file_size() / 1e6)


def build_usearch(job: Job) -> Peer:
    """Build usearch's index of float16."""
    from usearch.index import Index as Graph

    graph = Graph(
        ndim=4096, metric="l2sq", dtype="f16", connectivity=LINKS, expansion_add=EF_CONSTRUCTION
    )
    for first, values in read_vectors(job):
        graph.add(np.arange(first, first + len(values)), values, threads=1)

    def search(some: Floats, effort: int) -> Ids:
        graph.expansion_search = max(effort, K)
        keys = graph.search(some.astype(np.float16), K, threads=1).keys
        return np.asarray(keys, np.int64).reshape(len(some), K)

    return Peer(search, graph.memory_usage / 1e6)


PEERS: dict[str, Callable[[Job], Peer]] = {
    "faiss": build_faiss,
    "hnswlib": build_hnswlib,
    "usearch": build_usearch,
}


def measure_recall(found: Ids, truth: Ids) -> float:
    """Measure the share of the true six that are found."""
    hits = [len(np.intersect1d(a, b)) for a, b in zip(found, truth, strict=True)]
    return sum(hits) / truth.size


def time_turn(contender: Contender, queries: Floats) -> tuple[float, float]:
    """Measure the milliseconds of a query alone, the median, and of each of 64 together."""
    alone = []
    for number in range(len(queries)):
        began = time.perf_counter()
        contender.search(queries[number : number + 1])
        alone.append(time.perf_counter() - began)
    some = queries[:BATCH]
    began = time.perf_counter()
    contender.search(some)
    return 1000 * median(alone), 1000 * (time.perf_counter() - began) / len(some)


def write_figures(options: Options, figures: list[Job]) -> None:
    """Write the figures so far to a file, with the processor and the options."""
    options.json.parent.mkdir(parents=True, exist_ok=True)
    chosen = {name: getattr(options, name) for name in ("queries", "rounds", "recall")}
    chosen["vectors"] = "synthetic" if options.data is None else "photographs"
    content = {"processor": read_processor_name(), **chosen, "figures": figures}
    options.json.write_text(json.dumps(content, indent=1) + "\n")


COLUMNS: dict[str, Callable[[Job], str]] = {
    "vectors": lambda f: f"{f['size']:,}",
    "contender": lambda f: f["contender"],
    "recall@6": lambda f: f"{f['recall']:.4f}",
    "ms alone": lambda f: f"{f['one_ms']:,.2f}",
    "ms of 64": lambda f: f"{f['many_ms']:,.2f}",
    "MB": lambda f: f"{f['megabytes']:,.0f}",
    "rows read": lambda f: f"{f['rows_read']:,.0f}" if "rows_read" in f else "–",
    "effort": lambda f: f"{f['effort']:.0f}" if "effort" in f else "–",
}


if __name__ == "__main__":
    main()

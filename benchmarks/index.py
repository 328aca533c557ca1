"""`python benchmarks/index.py --data DIR`: cost and recall of each kind of index.

The vectors are real: fc7 features of the folder's training photographs, and of as many crops of
them as a size needs (benchmarks/windows.py). The queries are its validation photographs. Each kind
is built by the code that `flask index build` runs, in a process of its own. Then the kinds take
turns in answering the queries (benchmarks/workers.py). The ground truth is a comparison with every
vector, whose time is measured as well: as this project does it, from float16 on disk (`exact`), and
by FAISS with float32 in memory if that fits (`flat`).
"""

import json
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

if not __package__:
    # Run as a script, Python puts this file's folder on the path, not the project's root.
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
import tyro
from rich.console import Console
from rich.table import Table

from app.indexing.build import MAX_HELD_OUT_IMAGES
from benchmarks.drawing import draw_query_times
from benchmarks.retrieval import PARTS, run_part
from benchmarks.windows import make_slices
from benchmarks.workers import Worker, read_answer, start_turn, start_worker
from index.building.pipeline import compute_features
from model.dataset.folder import scan_folder
from model.predict import Predictor
from model.weights.checkpoint import load_weights
from storage.home import home_from_environment
from storage.machine import read_processor_name

RESULTS = Path(__file__).parent / "results"
MEASURED = ("exact", "flat", "ivf", "hnsw", "pq", "binary")


@dataclass(frozen=True, kw_only=True)
class Options:
    """Measure how long kinds of index take to build and to query, and their recall."""

    data: Path
    """Folder of photographs."""
    weights: Path = field(default_factory=lambda: home_from_environment().weights)
    """Weights file whose features are indexed; by default the selected weights."""
    work: Path = field(default_factory=lambda: home_from_environment().root / "benchmark")
    """Folder for features and indexes, 11 GB for 1.2 million vectors; existing ones are reused."""
    sizes: tuple[int, ...] = (10_000, 100_000, 1_200_000)
    """Numbers of vectors."""
    kinds: tuple[str, ...] = MEASURED
    """Names of the kinds."""
    large: tuple[str, ...] = ("exact", "pq")
    """Kinds that are measured beyond 200,000 vectors."""
    queries: int = 300
    """Number of validation photographs to query with."""
    rounds: int = 5
    """Turns per kind."""
    recall: float = 0.95
    """recall@6 to tune the kinds to."""
    json: Path = RESULTS / "index.json"
    """File to write the figures to."""
    picture: Path = RESULTS / "index.svg"
    """File to plot the query times to."""


MAX_ROWS_OF_ALL_KINDS = 200_000
"""Vectors up to which every kind is measured; beyond, only those of `--large`."""
MAX_FLAT_BYTES = 6 << 30
"""Bytes of float32 vectors up to which `flat` is measured."""


def main() -> None:
    """Measure, then print, write and plot the figures."""
    options = tyro.cli(Options)
    prepare_features(options)
    figures = []
    for size in options.sizes:
        figures += measure_size(options, size)
        write_figures(options, figures)
    Console(width=140).print(make_table(figures, COLUMNS))
    draw_query_times(figures, options.picture)


def prepare_features(options: Options) -> None:
    """Compute the features to index, in slices on disk, and those to query with, in one file."""
    folder, weights = scan_folder(options.data), load_weights(options.weights)
    predictor = Predictor.from_weights(weights)
    say = Console(stderr=True).print
    train = [folder.root / photograph.path for photograph in folder.train]
    make_slices(
        predictor,
        train,
        max(options.sizes),
        options.work / "windows",
        lambda done: say(f"{done:,} vectors"),
    )
    queries = options.work / "queries.npy"
    if not queries.exists() or len(np.load(queries)) < options.queries:
        order = np.random.default_rng(0).permutation(len(folder.val)).tolist()
        files = [(n, folder.root / folder.val[i].path) for n, i in enumerate(order)]
        asked, others = files[: options.queries], files[options.queries :][:MAX_HELD_OUT_IMAGES]
        np.save(queries, compute_features(predictor, asked).features)
        # The kinds are tuned with other photographs than those that measure their recall.
        np.save(options.work / "held_out.npy", compute_features(predictor, others).features)


def measure_size(options: Options, size: int) -> list[dict[str, Any]]:
    """Measure every kind at one size."""
    kinds = [k for k in options.kinds if size <= MAX_ROWS_OF_ALL_KINDS or k in options.large]
    kinds = [k for k in kinds if k != "flat" or size * 16384 <= MAX_FLAT_BYTES]
    job = {
        "size": size,
        "work": str(options.work),
        "queries": options.queries,
        "recall": options.recall,
    }
    truth = options.work / f"truth-{size}.npz"
    if not truth.exists():
        run_once("truth", job)
    built = {kind: run_once("build", job | {"kind": kind}) for kind in kinds}
    asked = measure_queries(options, {kind: job | {"kind": kind} for kind in kinds})
    return [{"size": size, "kind": kind, **built[kind], **asked[kind]} for kind in kinds]


def run_once(part: str, job: dict[str, Any]) -> dict[str, Any]:
    """Run a part of the measurement in a process of its own, and return its answer."""
    Console(stderr=True).print(f"{part} {job['size']:,} {job.get('kind', '')}")
    worker = start_part(part, job)
    answer = read_answer(worker)
    worker.communicate()
    return answer


def measure_queries(options: Options, jobs: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Let the kinds take turns in answering queries; return the medians over the rounds."""
    workers = {kind: start_part("ask", job) for kind, job in jobs.items()}
    try:
        opened = {kind: read_answer(worker) for kind, worker in workers.items()}
        turns: dict[str, list[dict[str, Any]]] = {kind: [] for kind in workers}
        for _ in range(options.rounds):
            for kind, worker in workers.items():
                start_turn(worker)
                turns[kind].append(read_answer(worker))
        for worker in workers.values():
            worker.communicate()
    finally:
        for worker in workers.values():
            worker.kill()
            worker.wait()
    return {kind: opened[kind] | take_medians(own) for kind, own in turns.items()}


def take_medians(turns: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Take the median of each time, and the last of all other values, which can only grow."""
    return {
        name: median(turn[name] for turn in turns) if name.endswith("_ms") else value
        for name, value in turns[-1].items()
    }


def start_part(part: str, job: dict[str, Any]) -> Worker:
    """Start a worker for a part of the measurement."""
    assert part in PARTS
    return start_worker(__file__, "--part", part, json.dumps(job))


def write_figures(options: Options, figures: list[dict[str, Any]]) -> None:
    """Write the figures so far to a file, with the processor and the options."""
    options.json.parent.mkdir(parents=True, exist_ok=True)
    chosen = {name: getattr(options, name) for name in ("queries", "rounds", "recall")}
    content = {"processor": read_processor_name(), **chosen, "figures": figures}
    options.json.write_text(json.dumps(content, indent=1) + "\n")


COLUMNS: dict[str, Callable[[dict[str, Any]], str]] = {
    "vectors": lambda f: f"{f['size']:,}",
    "kind": lambda f: f["kind"],
    "build s": lambda f: f"{f['build_seconds']:,.0f}",
    "GiB building": lambda f: f"{f['build_gib']:.2f}",
    "MB": lambda f: f"{f['megabytes']:,.0f}",
    "recall@6": lambda f: f"{f['recall@6']:.3f}",
    "recall@100": lambda f: f"{f['recall@100']:.3f}",
    "ms alone": lambda f: f"{f['one_ms']:,.1f}",
    "95 %": lambda f: f"{f['late_ms']:,.1f}",
    "ms of 64": lambda f: f"{f['many_ms']:,.2f}",
    "GiB resident": lambda f: f"{f['resident_gib']:.2f}",
    "open s": lambda f: f"{f['open_seconds']:.1f}",
}


def make_table(
    figures: Sequence[Mapping[str, Any]], columns: Mapping[str, Callable[[Any], str]]
) -> Table:
    """Format the figures, a row each: the names of columns, and what writes them."""
    table = Table(title=read_processor_name())
    for name in columns:
        table.add_column(name, justify="left" if name in {"kind", "contender"} else "right")
    for values in figures:
        table.add_row(*(write(values) for write in columns.values()))
    return table


if __name__ == "__main__":
    if sys.argv[1:2] == ["--part"]:
        run_part(sys.argv[2], json.loads(sys.argv[3]))
    else:
        main()

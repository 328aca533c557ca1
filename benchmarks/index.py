"""`python benchmarks/index.py --data DIR`: what each kind of index costs, and what it finds.

The vectors are real: fc7 of the folder's training photographs and of as many crops of them as a
size needs (benchmarks/windows.py); the queries are its validation photographs. Every kind is built
by the code that `flask index build` runs, in a process of its own. Then all are asked, each in a
process of its own that stands still until it is its turn, round after round, so that what else the
machine does falls on all of them alike. Their answers are compared with those of a comparison with
every vector, which is also asked for its time: as this project does it from float16 on disk
(`exact`), and by FAISS with float32 in memory (`flat`), where that fits.
"""

import json
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
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

from app.indexing.build import HELD_OUT
from benchmarks.drawing import draw
from benchmarks.retrieval import PARTS, act
from benchmarks.windows import make_slices
from index.building.build import compute_features
from model.checkpoint import load_weights
from model.dataset import scan_folder
from model.predict import Predictor
from storage.home import home_from_environment
from training.reporting import read_processor_name

RESULTS = Path(__file__).parent / "results"
MEASURED = ("exact", "flat", "ivf", "hnsw", "pq", "binary")


@dataclass(frozen=True, kw_only=True)
class Options:
    """Measure building and asking the kinds of index."""

    data: Path
    """Folder of photographs."""
    weights: Path = field(default_factory=lambda: home_from_environment().weights)
    """Weights file whose features are indexed; by default the weights in use."""
    work: Path = field(default_factory=lambda: home_from_environment().root / "benchmark")
    """Folder for features and indexes; 11 GB for 1.2 million. What is there is not made again."""
    sizes: tuple[int, ...] = (10_000, 100_000, 1_200_000)
    """How many vectors."""
    kinds: tuple[str, ...] = MEASURED
    """Kinds, by name."""
    large: tuple[str, ...] = ("exact", "pq")
    """Kinds that are measured beyond 200,000 vectors."""
    queries: int = 300
    """Validation photographs asked about."""
    rounds: int = 5
    """Turns of each kind."""
    recall: float = 0.95
    """The recall@6 asked of the kinds."""
    json: Path = RESULTS / "index.json"
    """File to keep the figures in."""
    picture: Path = RESULTS / "index.svg"
    """File to draw the query times to."""


LARGE = 200_000
LIMIT = 6 << 30
"""Bytes of float32 beyond which `flat` is not asked."""


def main() -> None:
    """Measure, print, keep and draw."""
    options = tyro.cli(Options)
    prepare(options)
    figures = []
    for size in options.sizes:
        figures += measure(options, size)
        keep(options, figures)
    Console(width=140).print(table(figures))
    draw(figures, options.picture)


def prepare(options: Options) -> None:
    """Have the features on disk: those to index in slices, those to ask about in one file."""
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
        asked, others = files[: options.queries], files[options.queries :][:HELD_OUT]
        np.save(queries, compute_features(predictor, asked).features)
        # The effort is chosen by other photographs than those that measure what it finds.
        np.save(options.work / "held_out.npy", compute_features(predictor, others).features)


def measure(options: Options, size: int) -> list[dict[str, Any]]:
    """The figures of every kind at one size."""
    kinds = [k for k in options.kinds if size <= LARGE or k in options.large]
    kinds = [k for k in kinds if k != "flat" or size * 16384 <= LIMIT]
    told = {
        "size": size,
        "work": str(options.work),
        "queries": options.queries,
        "recall": options.recall,
    }
    truth = options.work / f"truth-{size}.npz"
    if not truth.exists():
        once("truth", told)
    built = {kind: once("build", told | {"kind": kind}) for kind in kinds}
    asked = ask(options, {kind: told | {"kind": kind} for kind in kinds})
    return [{"size": size, "kind": kind, **built[kind], **asked[kind]} for kind in kinds]


def once(part: str, told: dict[str, Any]) -> dict[str, Any]:
    """What a process of its own finds that does one thing and ends."""
    Console(stderr=True).print(f"{part} {told['size']:,} {told.get('kind', '')}")
    process = start(part, told)
    found = answer(process)
    process.communicate()
    return found


def ask(options: Options, told: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """What every kind's process finds, taking turns; medians of the rounds."""
    processes = {kind: start("ask", words) for kind, words in told.items()}
    try:
        opened = {kind: answer(process) for kind, process in processes.items()}
        turns: dict[str, list[dict[str, Any]]] = {kind: [] for kind in processes}
        for _ in range(options.rounds):
            for kind, process in processes.items():
                turns[kind].append(turn(process))
        for process in processes.values():
            process.communicate()
    finally:
        for process in processes.values():
            process.kill()
            process.wait()
    return {kind: opened[kind] | middle(found) for kind, found in turns.items()}


def middle(turns: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The medians of times, and the last of everything else, which does not vary or only grows."""
    last = turns[-1]
    return {
        name: median(t[name] for t in turns) if name.endswith("_ms") else value
        for name, value in last.items()
    }


def start(part: str, told: dict[str, Any]) -> "subprocess.Popen[str]":
    """A process that does a part of the measurement."""
    assert part in PARTS
    words = [sys.executable, __file__, "--part", part, json.dumps(told)]
    return subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def turn(process: "subprocess.Popen[str]") -> dict[str, Any]:
    """Let a kind have its turn."""
    assert process.stdin is not None
    process.stdin.write("go\n")
    process.stdin.flush()
    return answer(process)


def answer(process: "subprocess.Popen[str]") -> dict[str, Any]:
    """The next line that a process writes."""
    assert process.stdout is not None
    line = process.stdout.readline()
    if not line:
        raise SystemExit(f"benchmarks/index.py: a process ended with {process.wait()}")
    found: dict[str, Any] = json.loads(line)
    return found


def keep(options: Options, figures: list[dict[str, Any]]) -> None:
    """Write the figures so far, with the machine's description."""
    options.json.parent.mkdir(parents=True, exist_ok=True)
    told = {k: str(v) if isinstance(v, Path) else v for k, v in asdict(options).items()}
    told = {k: told[k] for k in ("queries", "rounds", "recall")}
    content = {"processor": read_processor_name(), **told, "figures": figures}
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


def table(figures: list[dict[str, Any]]) -> Table:
    """The figures for people."""
    made = Table(title=read_processor_name())
    for name in COLUMNS:
        made.add_column(name, justify="left" if name == "kind" else "right")
    for found in figures:
        made.add_row(*(write(found) for write in COLUMNS.values()))
    return made


if __name__ == "__main__":
    if sys.argv[1:2] == ["--part"]:
        act(sys.argv[2], json.loads(sys.argv[3]))
    else:
        main()

"""`python benchmarks/codes.py`: short codes of the features, one kind against another (§6.1).

Every kind gets the same bits an image. It proposes 200 images a query, of which the nearest six
by the full vectors are taken, as the index does.

- autoencoder: ours, searched by Hamming distance.
- PCA + sign: the signs of the first principal components, by Hamming distance.
- ITQ: the same after the rotation that makes signs lose least.
- RaBitQ: one bit a principal component, and factors that make up for what that loses.
- OPQ + PQ: product quantization of the first 256 principal components; no bits to compare.

With `--data` and `--weights` the queries are the validation photographs and the database is the
training set. With `--features`, a folder of .npy files, float [n, 4096], the last rows ask.
"""

import json
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

if not __package__:
    # Run as a script, Python puts this file's folder on the path, not the project's root.
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import faiss
import numpy as np
import numpy.typing as npt
import tyro
from rich.console import Console
from rich.progress import track
from rich.table import Table

from index.engines import binary
from index.engines.options import EngineOptions
from index.engines.protocol import RowFilter, VersionData
from index.engines.reduction import PCA_SAMPLE_ROWS, draw_rows, fit_pca
from index.id_map import IdMap
from index.vectors import Vectors, write_shard
from model.checkpoint import load_weights
from model.dataset import Photograph, scan_folder
from model.predict import Predictor
from model.preprocess import read_square
from training.reporting import read_processor_name

K, PROPOSED = 6, 200
MOST = 256
"""Principal components that FAISS's kinds may use."""
Floats = npt.NDArray[np.float32]
Ids = npt.NDArray[np.int64]
Propose = Callable[[Floats, int], Ids]


@dataclass(frozen=True, kw_only=True)
class Options:
    """Compare short codes of features."""

    features: Path | None = None
    """Folder of features, .npy files: float [n, 4096]."""
    data: Path | None = None
    """Folder of photographs."""
    weights: Path | None = None
    """The network's weights, for `data`."""
    cache: Path = Path("var/codes")
    """Folder that keeps the features of `data`."""
    bits: tuple[int, ...] = (64, 128, 256)
    """Sizes of a code."""
    rows: int = 50_000
    """Images of the database, at most."""
    queries: int = 1000
    """Queries, at most; every so-manieth is taken."""
    only: tuple[str, ...] = ()
    """Kinds, by name; all by default."""
    seed: int = 0
    """Of the autoencoder."""
    json: Path = Path(__file__).parent / "results" / "codes.json"
    """File to write the figures to."""


@dataclass(frozen=True)
class Sides:
    """The database and the queries: float32 [n, 4096]; their classes where they are known."""

    rows: Floats
    queries: Floats
    row_classes: Ids | None = None
    query_classes: Ids | None = None


@dataclass(frozen=True)
class Figures:
    """What was measured of a kind at a size.

    recall and precision: of the code's own six, and of the six chosen from the 200 by the full
    vectors; 0–1. Precision is the share of the six that have the query's class.
    """

    kind: str
    bits: int
    bytes: int
    """Of an image's code, with all that is kept beside it."""
    recall: float
    refined: float
    precision: float | None
    refined_precision: float | None
    milliseconds: float
    """Processor time of a query, one at a time, to propose the 200: the median."""
    training: float
    """Seconds of processor time; the principal components that FAISS's kinds share not counted."""


def main() -> None:
    """Measure and print."""
    options = tyro.cli(Options)
    figures = compare(sides(options), options)
    console = Console(width=110)
    console.print(table(figures))
    for line in verdict(figures):
        console.print(line)
    found = {"processor": read_processor_name(), "kinds": [asdict(f) for f in figures]}
    options.json.parent.mkdir(parents=True, exist_ok=True)
    options.json.write_text(json.dumps(found, indent=2) + "\n")


def sides(options: Options) -> Sides:
    """The features to compare on."""
    if options.data and options.weights:
        return photographed(options)
    if not options.features:
        raise SystemExit("Give --features, or --data and --weights")
    files = sorted(options.features.glob("*.npy"))
    parts: list[Floats] = []
    while files and sum(map(len, parts)) < options.rows + options.queries:
        parts.append(np.load(files.pop(0)).astype(np.float32))
    everything = np.concatenate(parts)[: options.rows + options.queries]
    split = len(everything) - options.queries
    return Sides(everything[:split], everything[split:])


def photographed(options: Options) -> Sides:
    """The features of the photographs: computed, or as they were kept."""
    assert options.data
    assert options.weights
    folder = scan_folder(options.data)
    predictor = Predictor.from_weights(load_weights(options.weights))
    found = {}
    for side, photographs in (("train", folder.train), ("val", folder.val)):
        file = options.cache / f"{predictor.identity}-{side}.npy"
        if not file.exists():
            options.cache.mkdir(parents=True, exist_ok=True)
            np.save(file, features(predictor, folder.root, photographs, side))
        found[side] = np.load(file)
    train = np.array([p.class_index for p in folder.train])
    val = np.array([p.class_index for p in folder.val])
    step = -(-len(val) // options.queries)
    return Sides(
        found["train"][: options.rows], found["val"][::step], train[: options.rows], val[::step]
    )


def features(
    predictor: Predictor, root: Path, photographs: Sequence[Photograph], side: str
) -> Floats:
    """fc7 of every photograph: float32 [n, 4096]."""
    files = [root / photograph.path for photograph in photographs]
    parts = []
    with ThreadPoolExecutor() as pool:
        for start in track(range(0, len(files), 64), f"Features of {side}"):
            pixels = np.stack(list(pool.map(read_square, files[start : start + 64])))
            parts.append(predictor.extract_features(pixels))
    return np.concatenate(parts)


def compare(of: Sides, options: Options) -> list[Figures]:
    """All kinds at all sizes, after the full vectors themselves."""
    flat = faiss.IndexFlatL2(of.rows.shape[1])
    flat.add(of.rows)
    truth = flat.search(of.queries, K)[1]
    found = [measure("full vectors", 0, 4 * flat.d, lambda q, k: flat.search(q, k)[1], of, truth)]
    some = draw_rows(np.arange(len(of.rows)), PCA_SAMPLE_ROWS, options.seed)
    transform = fit_pca(of.rows[some], MOST, options.seed)
    for kind, make in KINDS.items():
        if options.only and kind not in options.only:
            continue
        for bits in options.bits:
            start = time.process_time()
            size, propose = make(of.rows, bits, transform, options.seed)
            seconds = time.process_time() - start
            found.append(measure(kind, bits, size, propose, of, truth, seconds))
    return found


def measure(
    kind: str,
    bits: int,
    size: int,
    propose: Propose,
    of: Sides,
    truth: Ids,
    training: float = 0.0,
) -> Figures:
    """Ask all queries for what they find, and some one at a time for how long they take."""
    most = min(PROPOSED, len(of.rows))
    proposed = propose(of.queries, most)
    refined = np.stack([nearest(of, q, rows) for q, rows in zip(of.queries, proposed, strict=True)])
    times = []
    for query in of.queries[:100, None]:
        start = time.process_time()
        propose(query, most)
        times.append(time.process_time() - start)
    return Figures(
        kind=kind,
        bits=bits,
        bytes=size,
        recall=share(proposed[:, :K], truth),
        refined=share(refined, truth),
        precision=same_class(of, proposed[:, :K]),
        refined_precision=same_class(of, refined),
        milliseconds=1000 * median(times),
        training=training,
    )


def nearest(of: Sides, query: Floats, rows: Ids) -> Ids:
    """The nearest six of some rows, by the full vectors."""
    distances = np.square(of.rows[rows] - query).sum(axis=1)
    chosen: Ids = rows[np.argsort(distances, kind="stable")[:K]]
    return chosen


def share(found: Ids, truth: Ids) -> float:
    """Recall: the share of the true ones that were found."""
    hits = [np.isin(true, some).mean() for true, some in zip(truth, found, strict=True)]
    return float(np.mean(hits))


def same_class(of: Sides, found: Ids) -> float | None:
    """The share of what was found that has its query's class."""
    if of.row_classes is None or of.query_classes is None:
        return None
    return float((of.row_classes[found] == of.query_classes[:, None]).mean())


def autoencoder(rows: Floats, bits: int, _: Any, seed: int) -> tuple[int, Propose]:
    """Ours, as the index has it."""
    with TemporaryDirectory() as home:
        folder = Path(home)
        vectors = Vectors(folder, [write_shard(folder / "rows.npy", [rows], "float32")], "float32")
        everything = np.arange(len(rows))
        version = VersionData(
            name="rows",
            folder=folder,
            vectors=vectors,
            id_map=IdMap(everything, everything, np.zeros(len(rows), np.int32)),
        )
        wanted = EngineOptions(bits=bits, seed=seed)
        told = binary.train_binary(version, wanted, lambda _name, _total: lambda _done: None)
        found = binary.open_binary(version, told)
    return bits // 8, lambda queries, count: found.propose(queries, count, RowFilter(), 0)


def signs(rows: Floats, bits: int, transform: Any, _: int) -> tuple[int, Propose]:
    """Signs of principal components."""
    return chained(rows, [first(transform, bits)], faiss.IndexLSH(bits, bits, False))


def itq(rows: Floats, bits: int, transform: Any, _: int) -> tuple[int, Propose]:
    """Iterative quantization."""
    chain = [first(transform, bits), faiss.ITQMatrix(bits)]
    return chained(rows, chain, faiss.IndexLSH(bits, bits, False))


def rabitq(rows: Floats, bits: int, transform: Any, _: int) -> tuple[int, Propose]:
    """RaBitQ, which wants a random rotation before it."""
    turn = faiss.RandomRotationMatrix(bits, bits)
    turn.init(12345)
    return chained(rows, [first(transform, bits), turn], faiss.IndexRaBitQ(bits))


def product(rows: Floats, bits: int, transform: Any, _: int) -> tuple[int, Propose]:
    """Product quantization, a byte a part."""
    parts = bits // 8
    width = transform.d_out // parts * parts
    turn = faiss.OPQMatrix(width, parts)
    turn.niter = 8
    return chained(rows, [first(transform, width), turn], faiss.IndexPQ(width, parts, 8))


KINDS: Mapping[str, Callable[[Floats, int, Any, int], tuple[int, Propose]]] = {
    "autoencoder": autoencoder,
    "PCA + sign": signs,
    "ITQ": itq,
    "RaBitQ": rabitq,
    "OPQ + PQ": product,
}


def first(transform: Any, count: int) -> faiss.LinearTransform:
    """The first principal components of those there are."""
    whole = faiss.vector_to_array(transform.A).reshape(-1, transform.d_in)
    some = faiss.LinearTransform(transform.d_in, count, True)
    faiss.copy_array_to_vector(np.ascontiguousarray(whole[:count]).ravel(), some.A)
    faiss.copy_array_to_vector(faiss.vector_to_array(transform.b)[:count], some.b)
    some.is_trained = True
    return some


def chained(rows: Floats, chain: Sequence[Any], last: Any) -> tuple[int, Propose]:
    """FAISS's index of codes after some transforms, trained and filled; bytes of a code."""
    index = faiss.IndexPreTransform(last)
    for transform in reversed(chain):
        index.prepend_transform(transform)
    index.train(rows)
    index.add(rows)

    def propose(queries: Floats, count: int) -> Ids:
        # Of the chain too: FAISS's index only points to its parts.
        assert chain
        found: Ids = index.search(queries, count)[1]
        return found

    return int(last.sa_code_size()), propose


def table(figures: Sequence[Figures]) -> Table:
    """The figures for people."""
    made = Table(title=f"{K} nearest; refined: chosen from {PROPOSED} by the full vectors")
    heads = ("code", "bits", "bytes", "recall@6", "refined", "class@6", "refined", "ms", "train s")
    for head in heads:
        made.add_column(head, justify="left" if head == "code" else "right")
    for f in figures:
        numbers = [f.recall, f.refined, f.precision, f.refined_precision]
        shares = ["–" if n is None else f"{n:.3f}" for n in numbers]
        times = [f"{f.milliseconds:.2f}", f"{f.training:.0f}"]
        made.add_row(f.kind, str(f.bits or "–"), f"{f.bytes:,}", *shares, *times)
    return made


def verdict(figures: Sequence[Figures]) -> list[str]:
    """A line for each size and measure: which code is best, and whether the autoencoder loses."""
    measures: dict[str, Callable[[Figures], float | None]] = {
        "recall@6 after refinement": lambda f: f.refined,
        "recall@6 by the codes alone": lambda f: f.recall,
        "class@6 by the codes alone": lambda f: f.precision,
    }
    lines = []
    for bits in sorted({f.bits for f in figures} - {0}):
        some = [f for f in figures if f.bits == bits]
        for name, value in measures.items():
            found = {f.kind: number for f in some if (number := value(f)) is not None}
            if found:
                lines.append(f"{bits} bits, {name}: {judged(found)}")
    return lines


def judged(found: Mapping[str, float]) -> str:
    """The best, and plainly whether the autoencoder is not."""
    best = max(found, key=lambda kind: found[kind])
    text = f"best is {best} ({found[best]:.3f})"
    own = found.get("autoencoder")
    return (
        text if own is None or own == found[best] else f"{text}; the autoencoder loses ({own:.3f})"
    )


if __name__ == "__main__":
    main()

"""`python benchmarks/codes.py`: short binary codes of the features compared (§6.1).

Every kind of code gets the same number of bits per image. It proposes 200 candidates per query, of
which the six nearest by the full vectors are taken, as in the index.

- autoencoder: ours, searched by Hamming distance.
- deep autoencoder: Krizhevsky and Hinton's (2011), by Hamming distance; of the features.
- deep autoencoder of pixels: the same of 32×32 thumbnails, as theirs, if there are photographs.
- PCA + sign: the signs of the first principal components, by Hamming distance.
- ITQ: the same after the rotation that minimises the quantization error.
- RaBitQ: one bit per principal component, and factors that correct the estimated distances.
- OPQ + PQ: product quantization of the first 256 principal components, without Hamming distance.

With `--data` and `--weights`, the database is the training set and the queries are the validation
photographs. With `--features`, a folder of .npy files, float [n, 4096], the last rows are the
queries.
"""

import json
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from functools import partial
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

from benchmarks.deep_autoencoder import train_deep_autoencoder
from index.engines import binary
from index.engines.options import EngineOptions
from index.engines.protocol import RowFilter, VersionData
from index.engines.reduction import PCA_SAMPLE_ROWS, draw_rows, fit_pca
from index.id_map import IdMap
from index.sample import make_thumbnail
from index.vectors import Vectors, write_shard
from model.dataset.folder import Photograph, scan_folder
from model.image.preprocess import read_square
from model.predict import Predictor
from model.weights.checkpoint import load_weights
from storage.machine import read_processor_name

K, CANDIDATES = 6, 200
MAX_COMPONENTS = 256
"""Principal components that FAISS's kinds can use."""
DEEP, PIXELS = "deep autoencoder", "deep autoencoder of pixels"
DEEP_BITS = (28, 256)
"""The code lengths of Krizhevsky and Hinton."""
Floats = npt.NDArray[np.float32]
Ids = npt.NDArray[np.int64]
Propose = Callable[[Floats, int], Ids]


@dataclass(frozen=True, kw_only=True)
class Options:
    """Compare short codes of the features."""

    features: Path | None = None
    """Folder of features, .npy files: float [n, 4096]."""
    data: Path | None = None
    """Folder of photographs."""
    weights: Path | None = None
    """Weights file that computes the features of `data`."""
    cache: Path = Path("var/codes")
    """Folder in which the features of `data` are cached."""
    bits: tuple[int, ...] = (64, 128, 256)
    """Bits per code."""
    rows: int = 50_000
    """Maximum number of images in the database."""
    queries: int = 1000
    """Maximum number of queries, taken at equal intervals."""
    only: tuple[str, ...] = ()
    """Names of the kinds; all by default."""
    seed: int = 0
    """Seed of the autoencoder."""
    json: Path = Path(__file__).parent / "results" / "codes.json"
    """File to write the figures to."""


@dataclass(frozen=True)
class Dataset:
    """The database and the queries, float32 [n, 4096], and their classes if known.

    row_pixels, query_pixels: their thumbnails, float32 [n, 3072].
    """

    rows: Floats
    queries: Floats
    row_classes: Ids | None = None
    query_classes: Ids | None = None
    row_pixels: Floats | None = None
    query_pixels: Floats | None = None


@dataclass(frozen=True)
class Figures:
    """What was measured of a kind of code at a number of bits.

    recall and precision are those of the code's own six nearest, the refined ones those of the six
    nearest of the 200 candidates by the full vectors; 0–1. Precision is the share of the six that
    have the query's class.
    """

    kind: str
    bits: int
    bytes: int
    """Bytes per image, with everything that is stored besides the code."""
    recall: float
    refined: float
    precision: float | None
    refined_precision: float | None
    milliseconds: float
    """Median CPU time of a single query for its 200 candidates."""
    training: float
    """CPU time of training in seconds, without the PCA that FAISS's kinds share."""


def main() -> None:
    """Measure, then print and write the figures."""
    options = tyro.cli(Options)
    figures = compare(load_features(options), options)
    console = Console(width=110)
    console.print(codes_table(figures))
    for line in summarise_winners(figures):
        console.print(line)
    found = {"processor": read_processor_name(), "kinds": [asdict(f) for f in figures]}
    options.json.parent.mkdir(parents=True, exist_ok=True)
    options.json.write_text(json.dumps(found, indent=2) + "\n")


def load_features(options: Options) -> Dataset:
    """Load or compute the features to compare the codes on."""
    if options.data and options.weights:
        return photograph_features(options)
    if not options.features:
        raise SystemExit("Give --features, or --data and --weights")
    files = sorted(options.features.glob("*.npy"))
    parts: list[Floats] = []
    while files and sum(map(len, parts)) < options.rows + options.queries:
        parts.append(np.load(files.pop(0)).astype(np.float32))
    everything = np.concatenate(parts)[: options.rows + options.queries]
    split = len(everything) - options.queries
    return Dataset(everything[:split], everything[split:])


def photograph_features(options: Options) -> Dataset:
    """Compute the features of photographs, or read them from the cache."""
    assert options.data
    assert options.weights
    folder = scan_folder(options.data)
    predictor = Predictor.from_weights(load_weights(options.weights))
    sides = {"train": folder.train, "val": folder.val}
    features, pixels = (
        [
            load_cached(options.cache / f"{name}-{side}.npy", compute, folder.root, some, side)
            for side, some in sides.items()
        ]
        for name, compute in (
            (predictor.identity, partial(compute_photograph_features, predictor)),
            ("pixels", read_thumbnails),
        )
    )
    classes = [np.array([p.class_index for p in some]) for some in sides.values()]
    step = -(-len(folder.val) // options.queries)
    return Dataset(
        *(features[0][: options.rows], features[1][::step]),
        *(classes[0][: options.rows], classes[1][::step]),
        *(pixels[0][: options.rows], pixels[1][::step]),
    )


def load_cached(file: Path, compute: Callable[..., Floats], *arguments: Any) -> Floats:
    """Load an array from a file, which is made if it is not there."""
    if not file.exists():
        file.parent.mkdir(parents=True, exist_ok=True)
        np.save(file, compute(*arguments))
    found: Floats = np.load(file)
    return found


def read_thumbnails(root: Path, photographs: Sequence[Photograph], side: str) -> Floats:
    """Read the thumbnails of photographs: float32 [n, 3072]."""
    files = [root / photograph.path for photograph in photographs]
    with ThreadPoolExecutor() as pool:
        squares = track(pool.map(read_square, files), f"Thumbnails of {side}", len(files))
        return np.stack([make_thumbnail(square).ravel().astype(np.float32) for square in squares])


def compute_photograph_features(
    predictor: Predictor, root: Path, photographs: Sequence[Photograph], side: str
) -> Floats:
    """Compute the fc7 features of photographs: float32 [n, 4096]."""
    files = [root / photograph.path for photograph in photographs]
    parts = []
    with ThreadPoolExecutor() as pool:
        for start in track(range(0, len(files), 64), f"Features of {side}"):
            pixels = np.stack(list(pool.map(read_square, files[start : start + 64])))
            parts.append(predictor.extract_features(pixels))
    return np.concatenate(parts)


def compare(dataset: Dataset, options: Options) -> list[Figures]:
    """Measure the full vectors, then every kind at every number of bits."""
    flat = faiss.IndexFlatL2(dataset.rows.shape[1])
    flat.add(dataset.rows)
    truth = flat.search(dataset.queries, K)[1]

    def find(queries: Floats, count: int) -> Ids:
        found: Ids = flat.search(queries, count)[1]
        return found

    found = [measure_code("full vectors", 0, 4 * flat.d, find, dataset, truth, dataset.queries)]
    some = draw_rows(np.arange(len(dataset.rows)), PCA_SAMPLE_ROWS, options.seed)
    transform = fit_pca(dataset.rows[some], MAX_COMPONENTS, options.seed)
    for kind, make in KINDS.items():
        if options.only and kind not in options.only:
            continue
        rows, queries = dataset.rows, dataset.queries
        if kind == PIXELS:
            if dataset.row_pixels is None or dataset.query_pixels is None:
                continue
            rows, queries = dataset.row_pixels, dataset.query_pixels
        for bits in DEEP_BITS if kind in (DEEP, PIXELS) else options.bits:
            start = time.process_time()
            size, propose = make(rows, bits, transform, options.seed)
            seconds = time.process_time() - start
            found.append(measure_code(kind, bits, size, propose, dataset, truth, queries, seconds))
    return found


def measure_code(
    kind: str,
    bits: int,
    size: int,
    propose: Propose,
    dataset: Dataset,
    truth: Ids,
    queries: Floats,
    training: float = 0.0,
) -> Figures:
    """Measure what all queries find, and how long some of them take one at a time.

    queries: what is encoded of them; the dataset has their vectors.
    """
    count = min(CANDIDATES, len(dataset.rows))
    proposed = propose(queries, count)
    refined = np.stack(
        [
            nearest_by_vectors(dataset, q, rows)
            for q, rows in zip(dataset.queries, proposed, strict=True)
        ]
    )
    times = []
    for query in queries[:100, None]:
        start = time.process_time()
        propose(query, count)
        times.append(time.process_time() - start)
    return Figures(
        kind=kind,
        bits=bits,
        bytes=size,
        recall=recall_at_k(proposed[:, :K], truth),
        refined=recall_at_k(refined, truth),
        precision=class_precision(dataset, proposed[:, :K]),
        refined_precision=class_precision(dataset, refined),
        milliseconds=1000 * median(times),
        training=training,
    )


def nearest_by_vectors(dataset: Dataset, query: Floats, rows: Ids) -> Ids:
    """Choose the six nearest of some rows by the full vectors."""
    distances = np.square(dataset.rows[rows] - query).sum(axis=1)
    chosen: Ids = rows[np.argsort(distances, kind="stable")[:K]]
    return chosen


def recall_at_k(found: Ids, truth: Ids) -> float:
    """Return the share of the true neighbours that were found."""
    hits = [np.isin(true, some).mean() for true, some in zip(truth, found, strict=True)]
    return float(np.mean(hits))


def class_precision(dataset: Dataset, found: Ids) -> float | None:
    """Return the share of the neighbours found that have the query's class; None if unknown."""
    if dataset.row_classes is None or dataset.query_classes is None:
        return None
    return float((dataset.row_classes[found] == dataset.query_classes[:, None]).mean())


def make_autoencoder(rows: Floats, bits: int, _: Any, seed: int) -> tuple[int, Propose]:
    """Train the autoencoder of the index."""
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


def make_deep_autoencoder(rows: Floats, bits: int, _: Any, seed: int) -> tuple[int, Propose]:
    """Train Krizhevsky and Hinton's autoencoder."""
    encode = train_deep_autoencoder(rows, bits, seed)
    size = -(-bits // 8)
    codes = faiss.IndexBinaryFlat(8 * size)
    codes.add(np.packbits(encode(rows), axis=1))

    def propose(queries: Floats, count: int) -> Ids:
        found: Ids = codes.search(np.packbits(encode(queries), axis=1), count)[1]
        return found

    return size, propose


def make_pca_signs(rows: Floats, bits: int, transform: Any, _: int) -> tuple[int, Propose]:
    """Train signs of principal components."""
    return build_chain(rows, [first_components(transform, bits)], faiss.IndexLSH(bits, bits, False))


def make_itq(rows: Floats, bits: int, transform: Any, _: int) -> tuple[int, Propose]:
    """Train iterative quantization."""
    chain = [first_components(transform, bits), faiss.ITQMatrix(bits)]
    return build_chain(rows, chain, faiss.IndexLSH(bits, bits, False))


def make_rabitq(rows: Floats, bits: int, transform: Any, _: int) -> tuple[int, Propose]:
    """Train RaBitQ after a random rotation, as it requires."""
    turn = faiss.RandomRotationMatrix(bits, bits)
    turn.init(12345)
    return build_chain(rows, [first_components(transform, bits), turn], faiss.IndexRaBitQ(bits))


def make_opq_pq(rows: Floats, bits: int, transform: Any, _: int) -> tuple[int, Propose]:
    """Train optimised product quantization, one byte per subvector."""
    parts = bits // 8
    width = transform.d_out // parts * parts
    turn = faiss.OPQMatrix(width, parts)
    turn.niter = 8
    return build_chain(
        rows, [first_components(transform, width), turn], faiss.IndexPQ(width, parts, 8)
    )


KINDS: Mapping[str, Callable[[Floats, int, Any, int], tuple[int, Propose]]] = {
    "autoencoder": make_autoencoder,
    DEEP: make_deep_autoencoder,
    PIXELS: make_deep_autoencoder,
    "PCA + sign": make_pca_signs,
    "ITQ": make_itq,
    "RaBitQ": make_rabitq,
    "OPQ + PQ": make_opq_pq,
}


def first_components(transform: Any, count: int) -> faiss.LinearTransform:
    """Reduce a PCA transform to its first components."""
    whole = faiss.vector_to_array(transform.A).reshape(-1, transform.d_in)
    some = faiss.LinearTransform(transform.d_in, count, True)
    faiss.copy_array_to_vector(np.ascontiguousarray(whole[:count]).ravel(), some.A)
    faiss.copy_array_to_vector(faiss.vector_to_array(transform.b)[:count], some.b)
    some.is_trained = True
    return some


def build_chain(rows: Floats, chain: Sequence[Any], last: Any) -> tuple[int, Propose]:
    """Train and fill a FAISS index after some transforms; return its bytes per code and search."""
    index = faiss.IndexPreTransform(last)
    for transform in reversed(chain):
        index.prepend_transform(transform)
    index.train(rows)
    index.add(rows)

    def propose(queries: Floats, count: int) -> Ids:
        # Keeps the chain alive: FAISS's index only points to its parts.
        assert chain
        found: Ids = index.search(queries, count)[1]
        return found

    return int(last.sa_code_size()), propose


def codes_table(figures: Sequence[Figures]) -> Table:
    """Format the figures."""
    table = Table(title=f"{K} nearest; refined: chosen from {CANDIDATES} by the full vectors")
    heads = ("code", "bits", "bytes", "recall@6", "refined", "class@6", "refined", "ms", "train s")
    for head in heads:
        table.add_column(head, justify="left" if head == "code" else "right")
    for f in figures:
        numbers = [f.recall, f.refined, f.precision, f.refined_precision]
        shares = ["–" if n is None else f"{n:.3f}" for n in numbers]
        times = [f"{f.milliseconds:.2f}", f"{f.training:.0f}"]
        table.add_row(f.kind, str(f.bits or "–"), f"{f.bytes:,}", *shares, *times)
    return table


def summarise_winners(figures: Sequence[Figures]) -> list[str]:
    """Say for each number of bits and each measure which code is best."""
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
                lines.append(f"{bits} bits, {name}: {describe_winner(found)}")
    return lines


def describe_winner(found: Mapping[str, float]) -> str:
    """Name the best code, and the autoencoder's figure if it is not the best."""
    best = max(found, key=lambda kind: found[kind])
    text = f"best is {best} ({found[best]:.3f})"
    own = found.get("autoencoder")
    return (
        text if own is None or own == found[best] else f"{text}; the autoencoder loses ({own:.3f})"
    )


if __name__ == "__main__":
    main()

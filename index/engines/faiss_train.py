"""How each kind is put together in FAISS: `ivf`, `pq` and `hnsw`.

All three search the principal components of the vectors, 4096 numbers made few; what they propose
is refined by the full vectors.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import faiss
import numpy as np

from index.engines.filed import read_faiss, write_faiss
from index.engines.options import EngineOptions
from index.engines.reduction import (
    PCA_SAMPLE_ROWS,
    Mask,
    draw_rows,
    fit_pca,
    linear_transform,
    live_chunks,
    live_rows,
    project_sample,
)
from index.progress import Report
from index.vectors import Floats, Ids, Vectors

Parameters = dict[str, int | float | str]
VECTORS_PER_LIST = 48
"""Vectors a list's centre is learned from."""
LIST_ITERATIONS = 10
"""Iterations of k-means over the lists' centres."""
PQ_TRAINING_VECTORS = 16384
"""Vectors that the codes of `pq` and their rotation are learned from."""
PQ_ITERATIONS = 8
"""Iterations of k-means over a code's 256 centres."""
OPQ_ITERATIONS = 6
"""Iterations of OPQ, each of which learns the codes anew."""
EF_CONSTRUCTION = 80
"""Neighbours looked at for each vector while the graph is built (efConstruction)."""
PQ_CENTRES = 256
"""What a byte of a code tells apart."""
MAX_LISTS = 65536
KINDS = ("ivf", "pq", "hnsw")


def train_faiss(
    kind: str,
    vectors: Vectors,
    alive: Mask | None,
    folder: Path,
    options: EngineOptions,
    report: Report,
) -> Parameters:
    """Train, add every living row, write; the parameters tell how. Raises StoreError, OSError."""
    rows = live_rows(vectors, alive)
    parameters = choose_parameters(kind, len(rows), options)
    index = train_empty_index(kind, vectors, rows, parameters, report)
    add_vectors(index, vectors, alive, len(rows), report)
    write_faiss(index, folder)
    return parameters


def update_faiss(
    kind: str,
    before: Path,
    vectors: Vectors,
    alive: Mask | None,
    folder: Path,
    parameters: Mapping[str, Any],
    report: Report,
) -> Parameters:
    """Add the living rows to what an earlier version in the folder `before` was trained to."""
    index = remove_vectors(kind, read_faiss(kind, before), parameters)
    add_vectors(index, vectors, alive, len(live_rows(vectors, alive)), report)
    write_faiss(index, folder)
    return dict(parameters)


def choose_parameters(kind: str, count: int, options: EngineOptions) -> Parameters:
    """The options, where they are 0 chosen by the number of vectors, and FAISS's factory string."""
    dimensions, seed = options.dimensions, options.seed
    found: Parameters = {"dimensions": dimensions, "seed": seed}
    if kind == "hnsw":
        factory = f"IDMap,PCA{dimensions},HNSW{options.links}_SQfp16"
        return found | {"links": options.links, "factory": factory}
    lists = min(options.lists or choose_list_count(count), count)
    found |= {"lists": lists}
    if kind == "ivf":
        return found | {"factory": f"PCA{dimensions},IVF{lists},SQfp16"}
    code = options.bytes
    return found | {"bytes": code, "factory": f"PCA{dimensions},OPQ{code},IVF{lists},PQ{code}"}


def choose_list_count(count: int) -> int:
    """How many lists: the power of two next to 4·√count, and at least 16 vectors in each."""
    power = round(np.log2(4 * np.sqrt(max(count, 1))))
    return int(max(1, min(2**power, count // 16, MAX_LISTS)))


def train_empty_index(
    kind: str, vectors: Vectors, rows: Ids, parameters: Parameters, report: Report
) -> faiss.Index:
    """The kind's FAISS index, trained and empty."""
    seed, dimensions = int(parameters["seed"]), int(parameters["dimensions"])
    steps = report("Training", 1 if kind == "hnsw" else 3)
    sample = vectors.take(draw_rows(rows, PCA_SAMPLE_ROWS, seed))
    transform = fit_pca(sample, dimensions, seed)
    del sample
    steps(1)
    if kind == "hnsw":
        return wrap_graph(transform, empty_graph(transform.d_out, int(parameters["links"])))
    lists = int(parameters["lists"])
    few = repeat_small_sample(
        project_sample(
            transform, vectors, rows, max(VECTORS_PER_LIST * lists, PQ_TRAINING_VECTORS), seed + 1
        )
    )
    steps(2)
    index = train_lists(kind, transform, few, parameters)
    steps(3)
    return index


def repeat_small_sample(sample: Floats) -> Floats:
    """A sample that k-means can make 256 centres of: a small one over and over."""
    return sample if len(sample) >= PQ_CENTRES else np.resize(sample, (PQ_CENTRES, sample.shape[1]))


def empty_graph(dimensions: int, links: int) -> faiss.IndexHNSWSQ:
    """An empty graph over half-precision numbers."""
    half: Any = faiss.ScalarQuantizer.QT_fp16
    index = faiss.IndexHNSWSQ(dimensions, half, links)
    index.hnsw.efConstruction = EF_CONSTRUCTION
    # Half precision has nothing to learn; FAISS wants to be told so.
    index.train(np.zeros((1, dimensions), np.float32))
    return index


def wrap_graph(transform: faiss.LinearTransform, sub: faiss.IndexHNSWSQ) -> faiss.IndexIDMap:
    """A graph behind the transform, whose answers are the numbers of rows."""
    return faiss.IndexIDMap(faiss.IndexPreTransform(transform, sub))


def train_lists(
    kind: str, transform: faiss.LinearTransform, few: Floats, parameters: Parameters
) -> faiss.IndexPreTransform:
    """Empty lists behind the transform, trained on reduced vectors."""
    seed = int(parameters["seed"])
    rotation = None
    if kind == "pq":
        rotation = train_rotation(few, int(parameters["bytes"]), seed)
        few = rotation.apply(few)
    core = empty_lists(kind, few.shape[1], parameters)
    limit_kmeans(core.cp, LIST_ITERATIONS, VECTORS_PER_LIST, seed)
    core.train(few)
    index = faiss.IndexPreTransform(core)
    for step in (rotation, transform):
        if step is not None:
            index.prepend_transform(step)
    return index


def empty_lists(kind: str, dimensions: int, parameters: Mapping[str, Any]) -> faiss.IndexIVF:
    """Empty inverted lists, untrained."""
    lists = int(parameters["lists"])
    nearest = faiss.IndexFlatL2(dimensions)
    if kind == "ivf":
        half = faiss.ScalarQuantizer.QT_fp16
        return faiss.IndexIVFScalarQuantizer(nearest, dimensions, lists, half)
    core = faiss.IndexIVFPQ(nearest, dimensions, lists, int(parameters["bytes"]), 8)
    limit_kmeans(
        core.pq.cp, PQ_ITERATIONS, PQ_TRAINING_VECTORS // PQ_CENTRES, int(parameters["seed"])
    )
    # A table for every list and process would be larger than the codes are.
    core.use_precomputed_table = -1
    return core


def train_rotation(few: Floats, code: int, seed: int) -> faiss.OPQMatrix:
    """OPQ's rotation, after which each byte of the code has as much to tell as the others."""
    rotation = faiss.OPQMatrix(few.shape[1], code)
    coder = faiss.ProductQuantizer(few.shape[1], code, 8)
    limit_kmeans(coder.cp, PQ_ITERATIONS, PQ_TRAINING_VECTORS // PQ_CENTRES, seed)
    rotation.pq = coder
    rotation.niter, rotation.niter_pq, rotation.niter_pq_0 = OPQ_ITERATIONS, 2, PQ_ITERATIONS
    rotation.max_train_points = PQ_TRAINING_VECTORS
    rotation.train(few)
    rotation.pq = None
    return rotation


def limit_kmeans(clustering: Any, rounds: int, points: int, seed: int) -> None:
    """Bound what k-means does; few points are its caller's to judge, not to be warned of."""
    clustering.niter, clustering.seed = rounds, seed
    clustering.max_points_per_centroid, clustering.min_points_per_centroid = points, 1


def remove_vectors(kind: str, index: Any, parameters: Mapping[str, Any]) -> faiss.Index:
    """An index as it was before anything was added, trained."""
    if kind == "hnsw":
        inner: Any = faiss.downcast_index(index.index)
        kept: Any = faiss.downcast_VectorTransform(inner.chain.at(0))
        transform = linear_transform(faiss.vector_to_array(kept.A), faiss.vector_to_array(kept.b))
        return wrap_graph(transform, empty_graph(transform.d_out, int(parameters["links"])))
    core: Any = faiss.extract_index_ivf(index)
    lists: Any = faiss.ArrayInvertedLists(core.nlist, core.code_size)
    core.replace_invlists(lists, True)
    lists.this.disown()
    core.ntotal = index.ntotal = 0
    found: faiss.Index = index
    return found


def add_vectors(
    index: faiss.Index, vectors: Vectors, alive: Mask | None, count: int, report: Report
) -> None:
    """Add every living row under its number."""
    step, done = report("Adding", count), 0
    for rows, values in live_chunks(vectors, alive):
        index.add_with_ids(values, rows)
        done += len(rows)
        step(done)

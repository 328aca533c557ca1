"""How each kind is put together in FAISS: `ivf`, `pq` and `hnsw`.

All three search the principal components of the vectors, 4096 numbers made few; what they propose
is refined by the full vectors.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import faiss
import numpy as np

from index.engines.filed import read_file, write_file
from index.engines.options import Options
from index.engines.reduction import (
    SAMPLE,
    Mask,
    components,
    drawn,
    linear,
    living,
    living_chunks,
    reduced,
)
from index.progress import Report
from index.vectors import Floats, Ids, Vectors

Parameters = dict[str, int | float | str]
POINTS = 48
"""Vectors a list's centre is learned from."""
ROUNDS = 10
"""Iterations of k-means over the lists' centres."""
CODED = 16384
"""Vectors that the codes of `pq` and their rotation are learned from."""
CODE_ROUNDS = 8
"""Iterations of k-means over a code's 256 centres."""
ROTATIONS = 6
"""Iterations of OPQ, each of which learns the codes anew."""
WIDTH = 80
"""Neighbours looked at for each vector while the graph is built (efConstruction)."""
CENTRES = 256
"""What a byte of a code tells apart."""
MOST_LISTS = 65536
KINDS = ("ivf", "pq", "hnsw")


def build(
    kind: str,
    vectors: Vectors,
    alive: Mask | None,
    folder: Path,
    options: Options,
    report: Report,
) -> Parameters:
    """Train, add every living row, write; the parameters tell how. Raises StoreError, OSError."""
    rows = living(vectors, alive)
    parameters = chosen(kind, len(rows), options)
    index = trained(kind, vectors, rows, parameters, report)
    fill(index, vectors, alive, len(rows), report)
    write_file(index, folder)
    return parameters


def build_from(
    kind: str,
    before: Path,
    vectors: Vectors,
    alive: Mask | None,
    folder: Path,
    parameters: Mapping[str, Any],
    report: Report,
) -> Parameters:
    """Add the living rows to what an earlier version in the folder `before` was trained to."""
    index = emptied(kind, read_file(kind, before), parameters)
    fill(index, vectors, alive, len(living(vectors, alive)), report)
    write_file(index, folder)
    return dict(parameters)


def chosen(kind: str, count: int, options: Options) -> Parameters:
    """The options, where they are 0 chosen by the number of vectors, and FAISS's factory string."""
    dimensions, seed = options.dimensions, options.seed
    found: Parameters = {"dimensions": dimensions, "seed": seed}
    if kind == "hnsw":
        factory = f"IDMap,PCA{dimensions},HNSW{options.links}_SQfp16"
        return found | {"links": options.links, "factory": factory}
    lists = min(options.lists or lists_for(count), count)
    found |= {"lists": lists}
    if kind == "ivf":
        return found | {"factory": f"PCA{dimensions},IVF{lists},SQfp16"}
    code = options.bytes
    return found | {"bytes": code, "factory": f"PCA{dimensions},OPQ{code},IVF{lists},PQ{code}"}


def lists_for(count: int) -> int:
    """How many lists: the power of two next to 4·√count, and at least 16 vectors in each."""
    power = round(np.log2(4 * np.sqrt(max(count, 1))))
    return int(max(1, min(2**power, count // 16, MOST_LISTS)))


def trained(
    kind: str, vectors: Vectors, rows: Ids, parameters: Parameters, report: Report
) -> faiss.Index:
    """The kind's FAISS index, trained and empty."""
    seed, dimensions = int(parameters["seed"]), int(parameters["dimensions"])
    steps = report("Training", 1 if kind == "hnsw" else 3)
    sample = vectors.take(drawn(rows, SAMPLE, seed))
    transform = components(sample, dimensions, seed)
    del sample
    steps(1)
    if kind == "hnsw":
        return mapped(transform, graph(transform.d_out, int(parameters["links"])))
    lists = int(parameters["lists"])
    few = enough(reduced(transform, vectors, rows, max(POINTS * lists, CODED), seed + 1))
    steps(2)
    index = inverted(kind, transform, few, parameters)
    steps(3)
    return index


def enough(sample: Floats) -> Floats:
    """A sample that k-means can make 256 centres of: a small one over and over."""
    return sample if len(sample) >= CENTRES else np.resize(sample, (CENTRES, sample.shape[1]))


def graph(dimensions: int, links: int) -> faiss.IndexHNSWSQ:
    """An empty graph over half-precision numbers."""
    half: Any = faiss.ScalarQuantizer.QT_fp16
    index = faiss.IndexHNSWSQ(dimensions, half, links)
    index.hnsw.efConstruction = WIDTH
    # Half precision has nothing to learn; FAISS wants to be told so.
    index.train(np.zeros((1, dimensions), np.float32))
    return index


def mapped(transform: faiss.LinearTransform, sub: faiss.IndexHNSWSQ) -> faiss.IndexIDMap:
    """A graph behind the transform, whose answers are the numbers of rows."""
    return faiss.IndexIDMap(faiss.IndexPreTransform(transform, sub))


def inverted(
    kind: str, transform: faiss.LinearTransform, few: Floats, parameters: Parameters
) -> faiss.IndexPreTransform:
    """Empty lists behind the transform, trained on reduced vectors."""
    seed = int(parameters["seed"])
    rotation = None
    if kind == "pq":
        rotation = rotated(few, int(parameters["bytes"]), seed)
        few = rotation.apply(few)
    core = lists_of(kind, few.shape[1], parameters)
    prepare(core.cp, ROUNDS, POINTS, seed)
    core.train(few)
    index = faiss.IndexPreTransform(core)
    for step in (rotation, transform):
        if step is not None:
            index.prepend_transform(step)
    return index


def lists_of(kind: str, dimensions: int, parameters: Mapping[str, Any]) -> faiss.IndexIVF:
    """Empty inverted lists, untrained."""
    lists = int(parameters["lists"])
    nearest = faiss.IndexFlatL2(dimensions)
    if kind == "ivf":
        half = faiss.ScalarQuantizer.QT_fp16
        return faiss.IndexIVFScalarQuantizer(nearest, dimensions, lists, half)
    core = faiss.IndexIVFPQ(nearest, dimensions, lists, int(parameters["bytes"]), 8)
    prepare(core.pq.cp, CODE_ROUNDS, CODED // CENTRES, int(parameters["seed"]))
    # A table for every list and process would be larger than the codes are.
    core.use_precomputed_table = -1
    return core


def rotated(few: Floats, code: int, seed: int) -> faiss.OPQMatrix:
    """OPQ's rotation, after which each byte of the code has as much to tell as the others."""
    rotation = faiss.OPQMatrix(few.shape[1], code)
    coder = faiss.ProductQuantizer(few.shape[1], code, 8)
    prepare(coder.cp, CODE_ROUNDS, CODED // CENTRES, seed)
    rotation.pq = coder
    rotation.niter, rotation.niter_pq, rotation.niter_pq_0 = ROTATIONS, 2, CODE_ROUNDS
    rotation.max_train_points = CODED
    rotation.train(few)
    rotation.pq = None
    return rotation


def prepare(clustering: Any, rounds: int, points: int, seed: int) -> None:
    """Bound what k-means does; few points are its caller's to judge, not to be warned of."""
    clustering.niter, clustering.seed = rounds, seed
    clustering.max_points_per_centroid, clustering.min_points_per_centroid = points, 1


def emptied(kind: str, index: Any, parameters: Mapping[str, Any]) -> faiss.Index:
    """An index as it was before anything was added, trained."""
    if kind == "hnsw":
        inner: Any = faiss.downcast_index(index.index)
        kept: Any = faiss.downcast_VectorTransform(inner.chain.at(0))
        transform = linear(faiss.vector_to_array(kept.A), faiss.vector_to_array(kept.b))
        return mapped(transform, graph(transform.d_out, int(parameters["links"])))
    core: Any = faiss.extract_index_ivf(index)
    lists: Any = faiss.ArrayInvertedLists(core.nlist, core.code_size)
    core.replace_invlists(lists, True)
    lists.this.disown()
    core.ntotal = index.ntotal = 0
    found: faiss.Index = index
    return found


def fill(
    index: faiss.Index, vectors: Vectors, alive: Mask | None, count: int, report: Report
) -> None:
    """Add every living row under its number."""
    step, done = report("Adding", count), 0
    for rows, values in living_chunks(vectors, alive):
        index.add_with_ids(values, rows)
        done += len(rows)
        step(done)

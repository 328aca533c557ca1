"""The kinds `ivf` and `pq`: training and filling their FAISS indexes.

Both search the first principal components instead of all 4096 numbers; the rows they propose
are then compared by the full vectors.
"""

from collections.abc import Mapping
from typing import Any

import faiss
import numpy as np
import numpy.typing as npt

from index.engines.faiss_file import read_faiss, write_faiss
from index.engines.options import EngineOptions
from index.engines.protocol import EarlierEngine, VersionData
from index.engines.reduction import (
    PCA_SAMPLE_ROWS,
    draw_rows,
    fit_pca,
    project_sample,
)
from index.vectors import ROWS_PER_CHUNK, Floats, Ids, Vectors, map_kept_rows
from storage.progress import Report

VECTORS_PER_LIST = 48
"""Training vectors per list for k-means."""
LIST_ITERATIONS = 10
"""Iterations of k-means for the lists' centroids."""
PQ_TRAINING_VECTORS = 16384
"""Training vectors for the codes of `pq` and their rotation."""
PQ_ITERATIONS = 8
"""Iterations of k-means for the centroids of each byte of a code."""
PQ_CENTROIDS = 256
"""Values of one byte of a code."""
OPQ_ITERATIONS = 6
"""Iterations of OPQ, each of which trains the codes anew."""
MAX_LISTS = 65536


def train_faiss(
    kind: str, version: VersionData, options: EngineOptions, report: Report
) -> dict[str, Any]:
    """Train an index, add the live rows and write it; return the manifest's parameters.

    Raises OSError.
    """
    rows = version.id_map.live_rows
    parameters = choose_parameters(kind, len(rows), options)
    index = train_empty_index(kind, version.vectors, rows, parameters, report)
    add_vectors(index, version.vectors, rows, report)
    write_faiss(index, version.folder)
    return parameters


def update_faiss(
    kind: str, version: VersionData, earlier: EarlierEngine, report: Report
) -> dict[str, Any]:
    """As `train_faiss`, but reuse the training and the codes of an earlier version.

    Raises StoreError and OSError.
    """
    before, index = read_faiss(kind, earlier.folder), empty_lists(read_faiss(kind, earlier.folder))
    rows = version.id_map.live_rows
    numbers = map_kept_rows(earlier.shards, version.vectors.shards)
    copied = copy_lists(before, index, rows, numbers[rows])
    add_vectors(index, version.vectors, np.setdiff1d(rows, copied, assume_unique=True), report)
    write_faiss(index, version.folder)
    return dict(earlier.parameters)


def copy_lists(before: Any, index: Any, rows: Ids, numbers: Ids) -> Ids:
    """Copy the codes of rows that an earlier version's lists hold, under their present numbers.

    rows: int64 [n]. numbers: int64 [n], of these rows in the earlier version, −1 for new ones.
    Returns the rows that were copied.
    """
    source: Any = faiss.extract_index_ivf(before)
    target: Any = faiss.extract_index_ivf(index)
    known = numbers >= 0
    present = np.full(int(numbers.max(initial=-1)) + 2, -1, np.int64)
    present[numbers[known]] = rows[known]
    copied = [np.empty(0, np.int64)]
    for number in range(source.nlist):
        size = source.invlists.list_size(number)
        if not size:
            continue
        ids, codes = read_list(source.invlists, number, size)
        kept = present[np.minimum(ids, len(present) - 1)]
        chosen = kept >= 0
        kept, codes = np.ascontiguousarray(kept[chosen]), np.ascontiguousarray(codes[chosen])
        if len(kept):
            target.invlists.add_entries(
                number, len(kept), faiss.swig_ptr(kept), faiss.swig_ptr(codes)
            )
            copied.append(kept)
    whole = np.concatenate(copied)
    target.ntotal = index.ntotal = len(whole)
    return whole


def read_list(lists: Any, number: int, size: int) -> tuple[Ids, npt.NDArray[np.uint8]]:
    """Copy one list: the ids, int64 [size], and the codes, uint8 [size, bytes]."""
    ids, codes = lists.get_ids(number), lists.get_codes(number)
    try:
        return (
            faiss.rev_swig_ptr(ids, size).copy(),
            faiss.rev_swig_ptr(codes, size * lists.code_size).reshape(size, -1).copy(),
        )
    finally:
        lists.release_ids(number, ids)
        lists.release_codes(number, codes)


def choose_parameters(kind: str, count: int, options: EngineOptions) -> dict[str, Any]:
    """Derive the parameters from the options and the number of vectors, with a factory string."""
    dimensions = options.dimensions
    chosen: dict[str, Any] = {"dimensions": dimensions, "seed": options.seed}
    lists = min(options.lists or choose_list_count(count), count)
    chosen |= {"lists": lists}
    if kind == "ivf":
        return chosen | {"factory": f"PCA{dimensions},IVF{lists},SQfp16"}
    size = options.bytes
    return chosen | {"bytes": size, "factory": f"PCA{dimensions},OPQ{size},IVF{lists},PQ{size}"}


def choose_list_count(count: int) -> int:
    """Choose the power of two nearest to 4·√count, with at least 16 vectors per list."""
    power = round(np.log2(4 * np.sqrt(max(count, 1))))
    return int(max(1, min(2**power, count // 16, MAX_LISTS)))


def train_empty_index(
    kind: str, vectors: Vectors, rows: Ids, parameters: Mapping[str, Any], report: Report
) -> faiss.Index:
    """Train a kind's FAISS index, without adding vectors."""
    seed, dimensions = int(parameters["seed"]), int(parameters["dimensions"])
    done = report("Training", 3)
    sample = vectors.take(draw_rows(rows, PCA_SAMPLE_ROWS, seed))
    transform = fit_pca(sample, dimensions, seed)
    del sample
    done(1)
    count = max(VECTORS_PER_LIST * int(parameters["lists"]), PQ_TRAINING_VECTORS)
    reduced = project_sample(transform, vectors, rows, count, seed + 1)
    if len(reduced) < PQ_CENTROIDS:
        # k-means needs as many vectors as centroids.
        reduced = np.resize(reduced, (PQ_CENTROIDS, reduced.shape[1]))
    done(2)
    index = train_lists(kind, transform, reduced, parameters)
    done(3)
    return index


def train_lists(
    kind: str, transform: faiss.LinearTransform, reduced: Floats, parameters: Mapping[str, Any]
) -> faiss.IndexPreTransform:
    """Train empty inverted lists, behind the transform, on reduced vectors, float32 [N, d]."""
    seed = int(parameters["seed"])
    rotation = None
    if kind == "pq":
        rotation = train_rotation(reduced, int(parameters["bytes"]), seed)
        reduced = rotation.apply(reduced)
    lists = make_lists(kind, reduced.shape[1], parameters)
    limit_kmeans(lists.cp, LIST_ITERATIONS, VECTORS_PER_LIST, seed)
    lists.train(reduced)
    index = faiss.IndexPreTransform(lists)
    for step in (rotation, transform):
        if step is not None:
            index.prepend_transform(step)
    return index


def make_lists(kind: str, dimensions: int, parameters: Mapping[str, Any]) -> faiss.IndexIVF:
    """Make empty, untrained inverted lists."""
    count = int(parameters["lists"])
    quantizer = faiss.IndexFlatL2(dimensions)
    if kind == "ivf":
        half = faiss.ScalarQuantizer.QT_fp16
        return faiss.IndexIVFScalarQuantizer(quantizer, dimensions, count, half)
    lists = faiss.IndexIVFPQ(quantizer, dimensions, count, int(parameters["bytes"]), 8)
    points = PQ_TRAINING_VECTORS // PQ_CENTROIDS
    limit_kmeans(lists.pq.cp, PQ_ITERATIONS, points, int(parameters["seed"]))
    # A table for every list and process would be larger than the codes.
    lists.use_precomputed_table = -1
    return lists


def train_rotation(reduced: Floats, code_bytes: int, seed: int) -> faiss.OPQMatrix:
    """Train OPQ's rotation, which balances the variance among the bytes of a code."""
    rotation = faiss.OPQMatrix(reduced.shape[1], code_bytes)
    quantizer = faiss.ProductQuantizer(reduced.shape[1], code_bytes, 8)
    limit_kmeans(quantizer.cp, PQ_ITERATIONS, PQ_TRAINING_VECTORS // PQ_CENTROIDS, seed)
    rotation.pq = quantizer
    rotation.niter, rotation.niter_pq, rotation.niter_pq_0 = OPQ_ITERATIONS, 2, PQ_ITERATIONS
    rotation.max_train_points = PQ_TRAINING_VECTORS
    rotation.train(reduced)
    rotation.pq = None
    return rotation


def limit_kmeans(clustering: Any, iterations: int, points: int, seed: int) -> None:
    """Limit k-means' iterations and points per centroid, and silence warnings of too few points."""
    clustering.niter, clustering.seed = iterations, seed
    clustering.max_points_per_centroid, clustering.min_points_per_centroid = points, 1


def empty_lists(index: Any) -> faiss.Index:
    """Empty a trained index."""
    core: Any = faiss.extract_index_ivf(index)
    lists: Any = faiss.ArrayInvertedLists(core.nlist, core.code_size)
    core.replace_invlists(lists, True)
    # The index owns the lists now.
    lists.this.disown()
    core.ntotal = index.ntotal = 0
    empty_index: faiss.Index = index
    return empty_index


def add_vectors(index: faiss.Index, vectors: Vectors, rows: Ids, report: Report) -> None:
    """Add rows, int64 ascending, with their numbers as ids."""
    report_done = report("Adding", len(rows))
    for start in range(0, len(rows), ROWS_PER_CHUNK):
        numbers = rows[start : start + ROWS_PER_CHUNK]
        index.add_with_ids(vectors.take(numbers), numbers)
        report_done(start + len(numbers))

"""Fewer dimensions than 4096: principal components, learned from a sample of the vectors."""

from collections.abc import Iterator

import faiss
import numpy as np
import numpy.typing as npt
import torch

from index.vectors import ROWS_PER_CHUNK, Floats, Ids, Vectors
from model.config import FEATURES

Mask = npt.NDArray[np.bool_]
PCA_SAMPLE_ROWS = 8192
"""Vectors the components are learned from: 128 MiB while they are."""
POWER_ITERATIONS = 4
"""Power iterations: with fewer the last components are less exact."""
OVERSAMPLING = 32
"""Components computed beyond those kept, which makes those kept more exact."""


def live_rows(vectors: Vectors, alive: Mask | None) -> Ids:
    """The numbers of the rows that an image points to."""
    return np.arange(len(vectors)) if alive is None else np.flatnonzero(alive)


def live_chunks(vectors: Vectors, alive: Mask | None) -> Iterator[tuple[Ids, Floats]]:
    """Those rows in order, part by part: their numbers and their vectors."""
    return vectors.chunks_of(None if alive is None else np.flatnonzero(alive))


def draw_rows(rows: Ids, count: int, seed: int) -> Ids:
    """At most `count` of these numbers, drawn without repetition, rising."""
    if len(rows) <= count:
        return rows
    chosen: Ids = np.random.default_rng(seed).choice(rows, count, replace=False)
    chosen.sort()
    return chosen


def fit_pca(sample: Floats, dimensions: int, seed: int) -> faiss.LinearTransform:
    """FAISS's transform onto the principal components of float32 [N, 4096].

    The distance it leaves between two vectors is never larger than their own. With fewer vectors
    than dimensions the last components are arbitrary, and 0 for all of them.
    """
    least = dimensions + OVERSAMPLING
    if len(sample) < least:
        sample = np.resize(sample, (least, FEATURES))
    some = torch.from_numpy(sample)
    middle = some.mean(0)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        found = torch.pca_lowrank(some - middle, q=least, center=False, niter=POWER_ITERATIONS)[2]
    axes = found[:, :dimensions].T.contiguous()
    return linear_transform(axes.numpy().ravel(), (-(axes @ middle)).numpy())


def linear_transform(matrix: Floats, offset: Floats) -> faiss.LinearTransform:
    """FAISS's transform: a matrix, row by row in one piece, and what is added."""
    transform = faiss.LinearTransform(FEATURES, len(offset), True)
    faiss.copy_array_to_vector(matrix, transform.A)
    faiss.copy_array_to_vector(offset, transform.b)
    transform.is_trained = True
    return transform


def project_sample(
    transform: faiss.LinearTransform, vectors: Vectors, rows: Ids, count: int, seed: int
) -> Floats:
    """A sample of `count` rows in fewer dimensions: float32 [n, dimensions]."""
    chosen = draw_rows(rows, count, seed)
    found = np.empty((len(chosen), transform.d_out), np.float32)
    for start in range(0, len(chosen), ROWS_PER_CHUNK):
        part = chosen[start : start + ROWS_PER_CHUNK]
        found[start : start + len(part)] = transform.apply(vectors.take(part))
    return found

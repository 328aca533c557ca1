"""Dimensionality reduction: principal components, fitted to a sample of the vectors."""

from typing import TYPE_CHECKING

import numpy as np

from index.vectors import ROWS_PER_CHUNK, Floats, Ids, Vectors
from model.network.config import FEATURES

if TYPE_CHECKING:
    import faiss

PCA_SAMPLE_ROWS = 8192
"""Vectors to which the components are fitted: 128 MiB in memory."""
POWER_ITERATIONS = 4
"""Power iterations of the randomised PCA; with fewer, the last components are less exact."""
OVERSAMPLING = 32
"""Components computed beyond those used, which makes the used ones more exact."""


def draw_rows(rows: Ids, count: int, seed: int) -> Ids:
    """Draw at most `count` of these rows without replacement: int64, ascending."""
    if len(rows) <= count:
        return rows
    chosen: Ids = np.random.default_rng(seed).choice(rows, count, replace=False)
    chosen.sort()
    return chosen


def fit_components(sample: Floats, dimensions: int, seed: int) -> tuple[Floats, Floats]:
    """Fit principal components to float32 [N, 4096]: their axes, and the mean of the sample.

    The axes are orthonormal, float32 [dimensions, 4096]; the mean is float32 [4096]. With fewer
    vectors than dimensions the last axes are arbitrary.
    """
    # Not above: whoever only searches need not import it.
    import torch

    computed = dimensions + OVERSAMPLING
    if len(sample) < computed:
        sample = np.resize(sample, (computed, FEATURES))
    values = torch.from_numpy(sample)
    mean = values.mean(0)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        components = torch.pca_lowrank(
            values - mean, q=computed, center=False, niter=POWER_ITERATIONS
        )[2]
    return components[:, :dimensions].T.contiguous().numpy(), mean.numpy()


def fit_pca(sample: Floats, dimensions: int, seed: int) -> "faiss.LinearTransform":
    """Fit a FAISS transform onto the principal components of float32 [N, 4096].

    It never increases the distance between two vectors. With fewer vectors than dimensions the last
    components are 0 for all of the vectors.
    """
    axes, mean = fit_components(sample, dimensions, seed)
    return make_linear_transform(axes.ravel(), -(axes @ mean))


def make_linear_transform(matrix: Floats, offset: Floats) -> "faiss.LinearTransform":
    """Make a FAISS transform x → matrix · x + offset; the matrix is flattened row by row."""
    # Not above: a server that searches exactly on the CPU does without FAISS and its 100 MB.
    import faiss

    transform = faiss.LinearTransform(FEATURES, len(offset), True)
    faiss.copy_array_to_vector(matrix, transform.A)
    faiss.copy_array_to_vector(offset, transform.b)
    transform.is_trained = True
    return transform


def project_sample(
    transform: "faiss.LinearTransform", vectors: Vectors, rows: Ids, count: int, seed: int
) -> Floats:
    """Project a sample of at most `count` of these rows: float32 [n, dimensions]."""
    chosen = draw_rows(rows, count, seed)
    projected = np.empty((len(chosen), transform.d_out), np.float32)
    for start in range(0, len(chosen), ROWS_PER_CHUNK):
        part = chosen[start : start + ROWS_PER_CHUNK]
        projected[start : start + len(part)] = transform.apply(vectors.take(part))
    return projected

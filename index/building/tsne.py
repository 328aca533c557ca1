"""A map of images: the 4096 features of fc7 in two dimensions, by t-SNE.

The library is openTSNE, which reports its progress and can start from known points. For up to the
10,000 images of a sample its Barnes-Hut gradient is faster than the interpolated one.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import faiss
import numpy as np
import numpy.typing as npt
import torch

from index.engines.reduction import PCA_SAMPLE_ROWS as LEARNED
from index.engines.reduction import draw_rows, fit_pca, project_sample
from index.vectors import Floats, Ids, Vectors
from storage.progress import Report, ignore_progress

Doubles = npt.NDArray[np.float64]
SEED = 2012
PCA_DIMENSIONS = 50
"""Principal components that the distances are computed from."""
PERPLEXITY = 30
"""About how many images count as near another; a third of the others if there are few."""
MIN_TSNE_IMAGES = 4
"""With fewer images the map shows their first two principal components instead."""
EXAGGERATED_ITERATIONS, EXAGGERATION, ITERATIONS, UPDATE_ITERATIONS = 250, 12, 500, 250
"""Iterations with exaggerated attraction, and by how much; without; and for an updated map."""
REPORT_EVERY = 10
"""Iterations between reports of progress."""
INITIAL_STD = 1e-4
"""Standard deviation of the initial points."""
MIN_KNOWN_SHARE = 0.5
"""The share of points that must be known for a map to start from the earlier one."""
INITIAL_NEIGHBOURS = 5
"""Known images at whose mean point a new one starts."""


@dataclass(frozen=True, kw_only=True)
class MapLayout:
    """The points of images. points: float32 [S, 2], from 0 to 1, NaN for an unknown one.

    span: the map's width in t-SNE's own units. whole: whether it has all points of that map.
    """

    points: Floats
    span: float
    whole: bool = True


def layout_images(
    vectors: Vectors, rows: Ids, before: MapLayout | None = None, report: Report = ignore_progress
) -> MapLayout:
    """Lay images out by their features. rows: int64 [S]; images of one row get the same point.

    before: the earlier map's points of these images; they stay about where they were, and exactly
    there if no image is new or gone. Equal input gives an equal map on the same machine.
    """
    if before is not None and before.whole and not np.isnan(before.points).any():
        return before
    distinct, first, shared = np.unique(rows, return_index=True, return_inverse=True)
    if len(distinct) < 2:
        return MapLayout(points=np.full((len(rows), 2), 0.5, np.float32), span=1.0)
    features = project_rows(vectors, distinct)
    if len(distinct) < MIN_TSNE_IMAGES:
        return normalise_layout(features[:, :2].astype(np.float64), shared)
    start = (
        initialise_with_earlier(features, before.points[first], before.span)
        if before is not None
        else None
    )
    return normalise_layout(run_tsne(features, start, report), shared)


def project_rows(vectors: Vectors, rows: Ids) -> Floats:
    """Project rows onto their principal components: float32 [N, 50]."""
    transform = fit_pca(vectors.take(draw_rows(rows, LEARNED, SEED)), PCA_DIMENSIONS, SEED)
    return project_sample(transform, vectors, rows, len(rows), SEED)


def run_tsne(features: Floats, start: Doubles | None, report: Report) -> Doubles:
    """float32 [N, 50] → float64 [N, 2], in t-SNE's own units, from initial points if given."""
    # The import takes a second and memory, and no server needs it.
    from openTSNE import TSNEEmbedding
    from openTSNE.affinity import PerplexityBasedNN

    threads = torch.get_num_threads()
    phases = (
        [(EXAGGERATED_ITERATIONS, EXAGGERATION), (ITERATIONS, 1)]
        if start is None
        else [(UPDATE_ITERATIONS, 1)]
    )
    report_done = report("Laying out the map", sum(count for count, _ in phases))
    perplexity = min(PERPLEXITY, (len(features) - 1) / 3)
    near = PerplexityBasedNN(
        features, perplexity, method="exact", n_jobs=threads, random_state=SEED
    )
    embedding = TSNEEmbedding(
        initialise_with_pca(features) if start is None else start,
        near,
        negative_gradient_method="bh",
        n_jobs=threads,
        random_state=SEED,
        callbacks=make_progress_callback(report_done),
        callbacks_every_iters=REPORT_EVERY,
    )
    for count, exaggeration in phases:
        embedding.optimize(count, exaggeration=exaggeration, inplace=True, propagate_exception=True)
    return np.array(embedding, np.float64)


def make_progress_callback(report_done: Callable[[int], None]) -> Callable[..., None]:
    """Make openTSNE's callback, which reports the number of iterations done."""
    done = 0

    def count(*_: Any) -> None:
        nonlocal done
        done += REPORT_EVERY
        report_done(done)

    return count


def initialise_with_pca(features: Floats) -> Doubles:
    """Scale the first two principal components down; move equal ones a little apart."""
    first = features[:, :2].astype(np.float64)
    spread = first[:, 0].std()
    jitter = np.random.default_rng(SEED).normal(0, INITIAL_STD / 100, first.shape)
    return first * (INITIAL_STD / spread if spread > 0 else 0) + jitter


def initialise_with_earlier(features: Floats, points: Floats, span: float) -> Doubles | None:
    """Give the initial points of an updated map, float64 [N, 2]; None if too few are known."""
    known = ~np.isnan(points[:, 0])
    if known.mean() < MIN_KNOWN_SHARE:
        return None
    start = points.astype(np.float64)
    if not known.all():
        _, near = faiss.knn(
            features[~known], features[known], min(INITIAL_NEIGHBOURS, int(known.sum()))
        )
        start[~known] = start[known][near].mean(axis=1)
    start *= span
    return start


def normalise_layout(points: Doubles, shared: Ids) -> MapLayout:
    """Scale points to 0…1 by one factor, centring the narrower direction.

    shared: int64 [S], the point of each image.
    """
    low, high = points.min(axis=0), points.max(axis=0)
    span = float((high - low).max()) or 1.0
    scaled = (points - (low + high) / 2) / span + 0.5
    return MapLayout(points=scaled.clip(0, 1).astype(np.float32)[shared], span=span)

"""Lays out a map of images: their 4096-d fc7 features in two dimensions, by t-SNE.

Uses openTSNE, which reports progress and can start from given points. For the at most 10,000 images
of a sample its Barnes-Hut gradient is faster than the interpolated one.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from index.engines.reduction import PCA_SAMPLE_ROWS, draw_rows, fit_pca, project_sample
from index.vectors import Doubles, Floats, Ids, Vectors
from storage.progress import Report, ignore_progress

SEED = 2012
PCA_DIMENSIONS = 50
"""Principal components from which the distances are computed."""
PERPLEXITY = 30
"""Effective number of neighbours of an image; with few images, a third of the others."""
MIN_TSNE_IMAGES = 4
"""With fewer images the map shows their first two principal components instead."""
EXAGGERATED_ITERATIONS, EXAGGERATION, ITERATIONS, UPDATE_ITERATIONS = 250, 12, 500, 250
"""Iterations with exaggerated attraction and its factor; iterations without; and for an update."""
REPORT_EVERY = 10
"""Iterations between reports of progress."""
MIN_SHARED_IMAGES = 5000
"""With fewer images one thread computes: threads that wait for each other at every iteration take
five to ten times as long with hundreds of images and anything else running."""
INITIAL_STD = 1e-4
"""Standard deviation of the initial points, in t-SNE's own units."""
MIN_KNOWN_SHARE = 0.5
"""Share of points that must be known to start from the earlier map, 0–1."""
INITIAL_NEIGHBOURS = 5
"""Nearest known images, at whose mean point a new image starts."""


@dataclass(frozen=True, kw_only=True)
class MapLayout:
    """The points of S images on a map.

    points: float32 [S, 2], from 0 to 1, NaN where unknown. span: the map's width in t-SNE's own
    units. whole: whether it has all points of that map.
    """

    points: Floats
    span: float
    whole: bool = True


def layout_images(
    vectors: Vectors, rows: Ids, before: MapLayout | None = None, report: Report = ignore_progress
) -> MapLayout:
    """Lay out images by their features.

    rows: int64 [S]; images with the same row get the same point. before: the earlier map's points
    of these images; they stay roughly in place, and exactly if no image is new or gone. The same
    input gives the same map on the same machine. Raises StoreError.
    """
    if before is not None and before.whole and not np.isnan(before.points).any():
        return before
    distinct, first, shared = np.unique(rows, return_index=True, return_inverse=True)
    if len(distinct) < 2:
        return MapLayout(points=np.full((len(rows), 2), 0.5, np.float32), span=1.0)
    features = project_for_map(vectors, distinct)
    if len(distinct) < MIN_TSNE_IMAGES:
        return normalise_layout(features[:, :2].astype(np.float64), shared)
    start = (
        initialise_with_earlier(features, before.points[first], before.span)
        if before is not None
        else None
    )
    return normalise_layout(run_tsne(features, start, report), shared)


def project_for_map(vectors: Vectors, rows: Ids) -> Floats:
    """Project the vectors of rows onto their principal components: float32 [N, 50]."""
    transform = fit_pca(vectors.take(draw_rows(rows, PCA_SAMPLE_ROWS, SEED)), PCA_DIMENSIONS, SEED)
    return project_sample(transform, vectors, rows, len(rows), SEED)


def run_tsne(features: Floats, start: Doubles | None, report: Report) -> Doubles:
    """Run t-SNE: float32 [N, 50] → float64 [N, 2], in its own units.

    start: float64 [N, 2] initial points, or None.
    """
    # Imported here: they take seconds and memory, and a server does not need them.
    import torch
    from openTSNE import TSNEEmbedding
    from openTSNE.affinity import PerplexityBasedNN

    threads = torch.get_num_threads() if len(features) >= MIN_SHARED_IMAGES else 1
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
    """Scale down the first two principal components, with jitter to separate equal points."""
    first = features[:, :2].astype(np.float64)
    spread = first[:, 0].std()
    jitter = np.random.default_rng(SEED).normal(0, INITIAL_STD / 100, first.shape)
    return first * (INITIAL_STD / spread if spread > 0 else 0) + jitter


def initialise_with_earlier(features: Floats, points: Floats, span: float) -> Doubles | None:
    """Compute an updated map's initial points, float64 [N, 2]; None if too few are known."""
    known = ~np.isnan(points[:, 0])
    if known.mean() < MIN_KNOWN_SHARE:
        return None
    start = points.astype(np.float64)
    if not known.all():
        # Not above: a server that searches exactly on the CPU does without FAISS and its 100 MB.
        import faiss

        _, near = faiss.knn(
            features[~known], features[known], min(INITIAL_NEIGHBOURS, int(known.sum()))
        )
        start[~known] = start[known][near].mean(axis=1)
    start *= span
    return start


def normalise_layout(points: Doubles, shared: Ids) -> MapLayout:
    """Scale points to 0–1 by one factor, centring the narrower direction.

    points: float64 [N, 2]. shared: int64 [S], each image's index into the points.
    """
    low, high = points.min(axis=0), points.max(axis=0)
    span = float((high - low).max()) or 1.0
    scaled = (points - (low + high) / 2) / span + 0.5
    return MapLayout(points=scaled.clip(0, 1).astype(np.float32)[shared], span=span)

"""A map of images: the 4096 features of fc7 in two dimensions, by t-SNE.

The library is openTSNE: it tells how far it is, and goes on from places that are known. Up to the
10,000 images of a sample its gradient by a tree is faster than the one by interpolation.
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
from storage.progress import Report, silent

Doubles = npt.NDArray[np.float64]
SEED = 2012
PCA_DIMENSIONS = 50
"""Principal components that distances are computed from."""
PERPLEXITY = 30
"""How many images count as near an image, about; a third of the others where there are few."""
MIN_TSNE_IMAGES = 4
"""Images that t-SNE needs at least; fewer lie as their principal components do."""
EXAGGERATED_ITERATIONS, EXAGGERATION, ITERATIONS, UPDATE_ITERATIONS = 250, 12, 500, 250
"""Iterations with attraction exaggerated and by how much, then without; and for a map that was."""
REPORT_EVERY = 10
"""Iterations after which progress is told."""
INITIAL_STD = 1e-4
"""Standard deviation of the places at the start."""
MIN_KNOWN_SHARE = 0.5
"""The share of places that must be known for a map to go on from them."""
INITIAL_NEIGHBOURS = 5
"""Known images about whose middle a new one begins."""


@dataclass(frozen=True, kw_only=True)
class MapLayout:
    """Places of images. points: float32 [S, 2], from 0 to 1, NaN where one is not known.

    span: how many of t-SNE's own units 1 is. whole: whether these are all images of that map.
    """

    points: Floats
    span: float
    whole: bool = True


def layout_images(
    vectors: Vectors, rows: Ids, before: MapLayout | None = None, report: Report = silent
) -> MapLayout:
    """Lay images out by their features, int64 [S] rows; those of one row get the same place.

    With the places of a map before as far as they are known, a place stays where it was, about;
    exactly where nothing is new or gone. Equal input gives an equal map on the same machine.
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
    """The rows' principal components: float32 [N, 50]."""
    transform = fit_pca(vectors.take(draw_rows(rows, LEARNED, SEED)), PCA_DIMENSIONS, SEED)
    return project_sample(transform, vectors, rows, len(rows), SEED)


def run_tsne(features: Floats, start: Doubles | None, report: Report) -> Doubles:
    """float32 [N, 50] → float64 [N, 2], in t-SNE's own units, from places at the start or none."""
    # Takes more than a second and memory, and no server needs it.
    from openTSNE import TSNEEmbedding
    from openTSNE.affinity import PerplexityBasedNN

    threads = torch.get_num_threads()
    phases = (
        [(EXAGGERATED_ITERATIONS, EXAGGERATION), (ITERATIONS, 1)]
        if start is None
        else [(UPDATE_ITERATIONS, 1)]
    )
    told = report("Laying out the map", sum(count for count, _ in phases))
    perplexity = min(PERPLEXITY, (len(features) - 1) / 3)
    near = PerplexityBasedNN(
        features, perplexity, method="exact", n_jobs=threads, random_state=SEED
    )
    places = TSNEEmbedding(
        initialise_with_pca(features) if start is None else start,
        near,
        negative_gradient_method="bh",
        n_jobs=threads,
        random_state=SEED,
        callbacks=progress_callback(told),
        callbacks_every_iters=REPORT_EVERY,
    )
    for count, exaggeration in phases:
        places.optimize(count, exaggeration=exaggeration, inplace=True, propagate_exception=True)
    return np.array(places, np.float64)


def progress_callback(told: Callable[[int], None]) -> Callable[..., None]:
    """What the library calls now and then: tells how many iterations were done in all."""
    done = 0

    def count(*_: Any) -> None:
        nonlocal done
        done += REPORT_EVERY
        told(done)

    return count


def initialise_with_pca(features: Floats) -> Doubles:
    """The first two principal components, made small; equal ones a little apart."""
    first = features[:, :2].astype(np.float64)
    spread = first[:, 0].std()
    jitter = np.random.default_rng(SEED).normal(0, INITIAL_STD / 100, first.shape)
    return first * (INITIAL_STD / spread if spread > 0 else 0) + jitter


def initialise_with_earlier(features: Floats, points: Floats, span: float) -> Doubles | None:
    """Where a map that goes on begins, float64 [N, 2]; None where too few places are known."""
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


def normalise_layout(places: Doubles, shared: Ids) -> MapLayout:
    """Bring places into 0…1 by one scale, the narrower direction in the middle.

    shared: int64 [S], which place each image has.
    """
    low, high = places.min(axis=0), places.max(axis=0)
    span = float((high - low).max()) or 1.0
    points = (places - (low + high) / 2) / span + 0.5
    return MapLayout(points=points.clip(0, 1).astype(np.float32)[shared], span=span)

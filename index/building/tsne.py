"""Lays out a map of images: their 4096-d fc7 features in two dimensions, by t-SNE.

Uses openTSNE, which reports progress and can start from given points. For at most 10,000 images its
Barnes-Hut gradient is faster than the interpolated one. Of more images that many, drawn at random,
are laid out so; each of the others is then placed among them by its own nearest of these, while
they stay where they are (Policar, Strazar and Zupan, *Embedding to reference t-SNE space*, 2021).
That takes a time in proportion to their number.

While few images have come or gone since a map was laid out, the next version keeps it, and the new
ones stand at the median point of the images nearest to them.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from index.engines.reduction import PCA_SAMPLE_ROWS, draw_rows, fit_pca, project_sample
from index.exact import ExactSearch
from index.id_map import IdMap
from index.ranking import ImageFilter
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
MAX_TSNE_IMAGES = 10_000
"""Images that are laid out together; the others are placed among them."""
PLACING_ITERATIONS, PLACING_PERPLEXITY, PLACING_NEIGHBOURS = 100, 5, 25
"""For images placed among the others: iterations, effective number of neighbours, and the number of
neighbours at whose median point an image starts. openTSNE's defaults."""
PLACING_RATE, PLACING_EXAGGERATION = 0.1, 1.5
REPORT_EVERY = 10
"""Iterations between reports of progress."""
MIN_SHARED_IMAGES = 5000
"""With fewer images one thread computes: threads that wait for each other at every iteration take
five to ten times as long with hundreds of images and anything else running."""
INITIAL_STD = 1e-4
"""Standard deviation of the initial points, in t-SNE's own units."""
MIN_KNOWN_SHARE = 0.5
"""Share of points that must be known to start from the earlier map, 0–1."""
MAX_CHANGED_SHARE = 0.02
"""Share of a map's images that may have come or gone, together, before it is laid out again."""
INITIAL_NEIGHBOURS = 5
"""Nearest known images, at whose mean point a new image starts."""


@dataclass(frozen=True, kw_only=True)
class MapLayout:
    """The points of S images on a map.

    points: float32 [S, 2], from 0 to 1, NaN where unknown. span: the map's width in t-SNE's own
    units. changed: how many images have come or gone since it was laid out, unless they are among
    the unknown.
    """

    points: Floats
    span: float
    changed: int = 0


def layout_images(
    vectors: Vectors,
    rows: Ids,
    before: MapLayout | None = None,
    report: Report = ignore_progress,
    most: int = MAX_TSNE_IMAGES,
) -> MapLayout:
    """Lay out images by their features.

    rows: int64 [S]; images with the same row get the same point. before: the earlier map's points
    of these images; they stay where they are while few have come or gone, and roughly otherwise.
    most: the number laid out together. The same input gives the same map on the same machine.
    Raises StoreError.
    """
    if before is not None and (kept := keep_layout(vectors, rows, before)) is not None:
        return kept
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
    return normalise_layout(run_tsne(features, start, report, most), shared)


def keep_layout(vectors: Vectors, rows: Ids, before: MapLayout) -> MapLayout | None:
    """Keep the earlier points and place the new images; None if too many have come or gone."""
    new = np.isnan(before.points[:, 0])
    changed = before.changed + int(new.sum())
    if changed > MAX_CHANGED_SHARE * len(rows):
        return None
    if not new.any():
        return replace(before, changed=changed)
    points = before.points.copy()
    near = find_near_rows(vectors, rows[new], rows[~new], PLACING_NEIGHBOURS)
    points[new] = np.median(points[~new][near], axis=1)
    # An image with the features of a known one stands on its point.
    known = dict(zip(rows[~new].tolist(), np.flatnonzero(~new).tolist(), strict=True))
    for place in np.flatnonzero(new).tolist():
        if (same := known.get(int(rows[place]))) is not None:
            points[place] = points[same]
    return replace(before, points=points, changed=changed)


def find_near_rows(vectors: Vectors, rows: Ids, among: Ids, count: int) -> Ids:
    """Find the nearest vectors of some rows among others: places in `among`, int64 [M, k].

    rows: int64 [M]. among: int64 [N]. k is `count` or N. Raises StoreError.
    """
    places, most = np.arange(len(among)), min(count, len(among))
    known = ImageFilter(IdMap(places, among, np.zeros(len(among), np.int32)))
    found = ExactSearch(vectors).search(vectors.take(rows), most, known)
    # Of places with the same row the first stands for all.
    return np.array([np.repeat(one.ids, one.copies)[:most] for one in found])


def project_for_map(vectors: Vectors, rows: Ids) -> Floats:
    """Project the vectors of rows onto their principal components: float32 [N, 50]."""
    transform = fit_pca(vectors.take(draw_rows(rows, PCA_SAMPLE_ROWS, SEED)), PCA_DIMENSIONS, SEED)
    return project_sample(transform, vectors, rows, len(rows), SEED)


def run_tsne(features: Floats, start: Doubles | None, report: Report, most: int) -> Doubles:
    """Run t-SNE: float32 [N, 50] → float64 [N, 2], in its own units.

    start: float64 [N, 2] initial points, or None. most: images that are laid out together.
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
    together, others = draw_together(len(features), most)
    iterations = sum(count for count, _ in phases) + PLACING_ITERATIONS * bool(len(others))
    progress: dict[str, Any] = {
        "callbacks": make_progress_callback(report("Laying out the map", iterations)),
        "callbacks_every_iters": REPORT_EVERY,
    }
    perplexity = min(PERPLEXITY, (len(together) - 1) / 3)
    near = PerplexityBasedNN(
        features[together], perplexity, method="exact", n_jobs=threads, random_state=SEED
    )
    embedding = TSNEEmbedding(
        initialise_with_pca(features[together]) if start is None else start[together],
        near,
        negative_gradient_method="bh",
        n_jobs=threads,
        random_state=SEED,
        **progress,
    )
    for count, exaggeration in phases:
        embedding.optimize(count, exaggeration=exaggeration, inplace=True, propagate_exception=True)
    points = np.empty((len(features), 2))
    points[together] = embedding
    if len(others):
        points[others] = place_among(embedding, features[others], progress)
    return points


def draw_together(count: int, most: int) -> tuple[Ids, Ids]:
    """Draw the images to lay out together, at most `most` of `count`: them and the others."""
    order = np.random.default_rng(SEED).permutation(count)
    return np.sort(order[:most]), np.sort(order[most:])


def place_among(embedding: Any, features: Floats, progress: dict[str, Any]) -> Doubles:
    """Place images among those of an embedding, which stay: float32 [M, 50] → float64 [M, 2]."""
    placed = embedding.prepare_partial(
        features, "median", k=PLACING_NEIGHBOURS, perplexity=PLACING_PERPLEXITY
    )
    placed.optimize(
        PLACING_ITERATIONS,
        learning_rate=PLACING_RATE,
        exaggeration=PLACING_EXAGGERATION,
        momentum=0,
        inplace=True,
        propagate_exception=True,
        **progress,
    )
    return np.array(placed, np.float64)


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

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

from index.engines.reduction import SAMPLE as LEARNED
from index.engines.reduction import components, drawn, reduced
from index.progress import Report, silent
from index.vectors import Floats, Ids, Vectors

Doubles = npt.NDArray[np.float64]
SEED = 2012
DIMENSIONS = 50
"""Principal components that distances are computed from."""
PERPLEXITY = 30
"""How many images count as near an image, about; a third of the others where there are few."""
FEW = 4
"""Images that t-SNE needs at least; fewer lie as their principal components do."""
EARLY, EXAGGERATED, LATER, AGAIN = 250, 12, 500, 250
"""Iterations with attraction exaggerated and by how much, then without; and for a map that was."""
TOLD = 10
"""Iterations after which progress is told."""
SMALL = 1e-4
"""Standard deviation of the places at the start."""
KNOWN = 0.5
"""The share of places that must be known for a map to go on from them."""
NEAR = 5
"""Known images about whose middle a new one begins."""


@dataclass(frozen=True, kw_only=True)
class Layout:
    """Places of images. points: float32 [S, 2], from 0 to 1, NaN where one is not known.

    span: how many of t-SNE's own units 1 is. whole: whether these are all images of that map.
    """

    points: Floats
    span: float
    whole: bool = True


def lay_out(
    vectors: Vectors, rows: Ids, before: Layout | None = None, report: Report = silent
) -> Layout:
    """Lay images out by their features, int64 [S] rows; those of one row get the same place.

    With the places of a map before as far as they are known, a place stays where it was, about;
    exactly where nothing is new or gone. Equal input gives an equal map on the same machine.
    """
    if before is not None and before.whole and not np.isnan(before.points).any():
        return before
    distinct, first, shared = np.unique(rows, return_index=True, return_inverse=True)
    if len(distinct) < 2:
        return Layout(points=np.full((len(rows), 2), 0.5, np.float32), span=1.0)
    features = components_of(vectors, distinct)
    if len(distinct) < FEW:
        return scaled(features[:, :2].astype(np.float64), shared)
    start = going_on(features, before.points[first], before.span) if before is not None else None
    return scaled(t_sne(features, start, report), shared)


def components_of(vectors: Vectors, rows: Ids) -> Floats:
    """The rows' principal components: float32 [N, 50]."""
    transform = components(vectors.take(drawn(rows, LEARNED, SEED)), DIMENSIONS, SEED)
    return reduced(transform, vectors, rows, len(rows), SEED)


def t_sne(features: Floats, start: Doubles | None, report: Report) -> Doubles:
    """float32 [N, 50] → float64 [N, 2], in t-SNE's own units, from places at the start or none."""
    # Takes more than a second and memory, and no server needs it.
    from openTSNE import TSNEEmbedding
    from openTSNE.affinity import PerplexityBasedNN

    threads = torch.get_num_threads()
    phases = [(EARLY, EXAGGERATED), (LATER, 1)] if start is None else [(AGAIN, 1)]
    told = report("Laying out the map", sum(count for count, _ in phases))
    perplexity = min(PERPLEXITY, (len(features) - 1) / 3)
    near = PerplexityBasedNN(
        features, perplexity, method="exact", n_jobs=threads, random_state=SEED
    )
    places = TSNEEmbedding(
        beginning(features) if start is None else start,
        near,
        negative_gradient_method="bh",
        n_jobs=threads,
        random_state=SEED,
        callbacks=counting(told),
        callbacks_every_iters=TOLD,
    )
    for count, exaggeration in phases:
        places.optimize(count, exaggeration=exaggeration, inplace=True, propagate_exception=True)
    return np.array(places, np.float64)


def counting(told: Callable[[int], None]) -> Callable[..., None]:
    """What the library calls now and then: tells how many iterations were done in all."""
    done = 0

    def count(*_: Any) -> None:
        nonlocal done
        done += TOLD
        told(done)

    return count


def beginning(features: Floats) -> Doubles:
    """The first two principal components, made small; equal ones a little apart."""
    first = features[:, :2].astype(np.float64)
    spread = first[:, 0].std()
    jitter = np.random.default_rng(SEED).normal(0, SMALL / 100, first.shape)
    return first * (SMALL / spread if spread > 0 else 0) + jitter


def going_on(features: Floats, points: Floats, span: float) -> Doubles | None:
    """Where a map that goes on begins, float64 [N, 2]; None where too few places are known."""
    known = ~np.isnan(points[:, 0])
    if known.mean() < KNOWN:
        return None
    start = points.astype(np.float64)
    if not known.all():
        _, near = faiss.knn(features[~known], features[known], min(NEAR, int(known.sum())))
        start[~known] = start[known][near].mean(axis=1)
    start *= span
    return start


def scaled(places: Doubles, shared: Ids) -> Layout:
    """Bring places into 0…1 by one scale, the narrower direction in the middle.

    shared: int64 [S], which place each image has.
    """
    low, high = places.min(axis=0), places.max(axis=0)
    span = float((high - low).max()) or 1.0
    points = (places - (low + high) / 2) / span + 0.5
    return Layout(points=points.clip(0, 1).astype(np.float32)[shared], span=span)

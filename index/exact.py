"""The exact search: the nearest images, proven, at every size and under every filter.

The projections (index/projection.py) bound every vector's distance from a query from below. Vectors
are read in the order of these bounds, and compared in float64, until the k-th distance found is
below every bound that is left. Without projections, as in small indexes, every vector is read.

The proof allows for rounding: the projections are moved by float16 by at most `Basis.error`, the
query's own by float32, and their products are summed in float32.
"""

from dataclasses import dataclass

import numpy as np
import torch

from index.projection import NORM_ERROR, ROWS_PER_BLOCK, Basis, Projections
from index.ranking import ImageFilter, RankedCandidates
from index.vectors import Doubles, Floats, Ids, Vectors

FIRST_ROWS = 32
"""Rows with the least bounds, read first, beyond the neighbours asked for."""
ROWS_PER_STEP = 64
"""Rows read before the proof is tried again."""
MAX_BOUNDS = 1 << 24
"""Bounds computed together, over all queries: 64 MiB."""


@dataclass(frozen=True)
class QueryBounds:
    """Lower bounds of the distances from one query, up to a constant and to rounding.

    rows: int64 [n], of the vectors. values: float32 [n], squared distances of projections without
    the query's own squared norm `norm`. slack: how far roundings may have moved two projections;
    error: what rounding may have added to a value. scale: the projections'.
    """

    rows: Ids
    values: Floats
    norm: float
    slack: float
    error: float
    scale: float

    def find_limit(self, squared: float) -> np.float32:
        """Return the largest value of a vector that may be as near as a squared distance."""
        with np.errstate(over="ignore"):
            reach = np.float64(squared) ** 0.5 * self.scale * (1 + 1e-9) + self.slack
            limit = np.float32(reach * reach * (1 + 1e-9) + self.error - self.norm)
            return np.float32(np.nextafter(limit, np.float32(np.inf)))


class ExactSearch:
    """Finds the nearest images by comparing as many vectors as a proof takes. Thread-safe."""

    def __init__(self, vectors: Vectors, projections: Projections | None = None) -> None:
        """projections: of all live rows; None to read every vector."""
        self.vectors, self.projections = vectors, projections
        self.norms: Floats | None = None

    def search(self, queries: Floats, k: int, image_filter: ImageFilter) -> list[RankedCandidates]:
        """Find the k nearest images to each of float32 [N, 4096] that pass the filter.

        k: at most as many as pass. Raises StoreError if vectors cannot be read or are damaged.
        """
        rows = image_filter.id_map.live_rows
        least = k + FIRST_ROWS + len(image_filter.rows_left_out) + 1
        if self.projections is None or len(rows) <= least:
            return [image_filter.rank(self.vectors, query, rows, k) for query in queries]
        found: list[RankedCandidates] = []
        size = max(1, MAX_BOUNDS // len(rows))
        for start in range(0, len(queries), size):
            some = queries[start : start + size]
            for query, bounds in zip(some, self.compute_bounds(some, rows), strict=True):
                found.append(self.prove(query, bounds, k, least, image_filter))
        return found

    def prove(
        self, query: Floats, bounds: QueryBounds, k: int, least: int, image_filter: ImageFilter
    ) -> RankedCandidates:
        """Read vectors in the order of their bounds until no other can be among the k nearest."""
        rows, values = bounds.rows, bounds.values
        first = np.argpartition(values, least - 1)[:least]
        best = image_filter.rank(self.vectors, query, rows[np.sort(first)], k)
        # NaN, where a sum overflowed, proves nothing: such a vector is read.
        others = np.flatnonzero(~(values > bounds.find_limit(best.find_kth(k))))
        others = np.setdiff1d(others, first, assume_unique=True)
        others = others[np.argsort(values[others], kind="stable")]
        for start in range(0, len(others), ROWS_PER_STEP):
            some = others[start : start + ROWS_PER_STEP]
            some = some[~(values[some] > bounds.find_limit(best.find_kth(k)))]
            if not len(some):
                break
            best = image_filter.rank(self.vectors, query, rows[some], k, best)
        return best

    def compute_bounds(self, queries: Floats, rows: Ids) -> list[QueryBounds]:
        """Compute each query's bounds for some live rows, int64 ascending."""
        projections = self.projections
        assert projections is not None
        exact = projections.basis.project(queries)
        with np.errstate(over="ignore"):
            narrow = exact.astype(np.float32)
        norms, factors = self.compute_norms(), torch.from_numpy(narrow).T
        places = None
        if len(rows) < len(projections):
            places = np.searchsorted(projections.rows, rows)
        values = np.empty((len(queries), len(rows)), np.float32)
        wide, done = torch.empty(ROWS_PER_BLOCK, projections.basis.dimensions), 0
        for first, block in projections.read_blocks(places):
            end = first + len(block)
            products = wide[: len(block)].copy_(torch.from_numpy(block)) @ factors
            bounds = torch.sub(norms[first:end, None], products, alpha=2).numpy()
            if places is not None:
                low, high = np.searchsorted(places, (first, end))
                bounds = bounds[places[low:high] - first]
            values[:, done : done + len(bounds)] = bounds.T
            done += len(bounds)
        return [
            make_query_bounds(rows, values[n], exact[n], narrow[n], projections.basis)
            for n in range(len(queries))
        ]

    def compute_norms(self) -> torch.Tensor:
        """Compute the projections' squared norms, once: float32 [n]."""
        if self.norms is None:
            assert self.projections is not None
            parts = [
                np.square(block, dtype=np.float32).sum(axis=1)
                for _, block in self.projections.read_blocks()
            ]
            self.norms = np.concatenate(parts)
        return torch.from_numpy(self.norms)


def make_query_bounds(
    rows: Ids, values: Floats, exact: Doubles, narrow: Floats, basis: Basis
) -> QueryBounds:
    """Say what the roundings of one query's bounds amount to."""
    norm = float(np.linalg.norm(exact))
    moved = float(np.linalg.norm(narrow - exact)) + NORM_ERROR * norm
    # Sums of d products in float32: each error is relative to |x|², |q|² or |x||q|.
    error = 2.0**-23 * (basis.dimensions + 8) * (norm + basis.largest + basis.error) ** 2
    return QueryBounds(rows, values, norm * norm, basis.error + moved, error, basis.scale)

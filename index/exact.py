"""The exact search: the nearest images, proven, at every size and under every filter.

The projections (index/projection.py) bound every vector's distance from a query from below. Vectors
are read in the order of these bounds, and compared in float64, until the k-th distance found is
below every bound that is left. Without projections, as in small indexes, every vector is read.

The proof allows for rounding: the projections are moved by float16 by at most `Basis.error`, the
query's own by float32, and their products are summed in float32.
"""

from dataclasses import dataclass, replace

import numpy as np

from index.projection import NORM_ERROR, ROWS_PER_BLOCK, Basis, Projections
from index.ranking import (
    FLOAT32_ERROR,
    ImageFilter,
    RankedCandidates,
    squared_distances_float64,
)
from index.vectors import Doubles, Floats, Ids, Vectors, widen

FIRST_ROWS = 32
"""Rows with the least bounds, read first, beyond the neighbours asked for."""
FIRST_ROWS_TOGETHER = 128
"""The same for each of several queries, since each row then read is read for all."""
ROWS_PER_STEP = 64
"""Rows read before the proof is tried again."""
ROWS_IN_ORDER = 512
"""Rows read in the order of their bounds, before the rest in that of the file."""
ROWS_TOGETHER = 256
"""Rows compared with several queries at a time: 4 MiB in float32."""
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
        if not len(queries):
            return []
        rows = image_filter.id_map.live_rows
        least = k + FIRST_ROWS + len(image_filter.rows_left_out) + 1
        if self.projections is None or len(rows) <= least:
            limits = np.full(len(queries), np.inf)
            return self.compare_together(queries, rows, k, image_filter, limits)
        found: list[RankedCandidates] = []
        size = max(1, MAX_BOUNDS // len(rows))
        for start in range(0, len(queries), size):
            some = queries[start : start + size]
            bounds = self.compute_bounds(some, rows)
            if len(some) == 1:
                found.append(self.prove(some[0], bounds[0], k, least, image_filter))
            else:
                found += self.prove_together(some, bounds, k, least, image_filter)
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
        # What is left after the nearest is read faster in the order of the file.
        others[ROWS_IN_ORDER:].sort()
        for start in range(0, len(others), ROWS_PER_STEP):
            some = others[start : start + ROWS_PER_STEP]
            some = some[~(values[some] > bounds.find_limit(best.find_kth(k)))]
            if len(some):
                best = image_filter.rank(self.vectors, query, rows[some], k, best)
        return best

    def prove_together(
        self,
        queries: Floats,
        bounds: list[QueryBounds],
        k: int,
        least: int,
        image_filter: ImageFilter,
    ) -> list[RankedCandidates]:
        """As `prove` for several queries, reading each vector that any of them needs once."""
        limits = np.empty(len(queries))
        needed = np.zeros(len(bounds[0].rows), bool)
        for number, (query, own) in enumerate(zip(queries, bounds, strict=True)):
            count = min(max(least, FIRST_ROWS_TOGETHER), len(needed))
            first = np.argpartition(own.values, count - 1)[:count]
            best = image_filter.rank(self.vectors, query, own.rows[np.sort(first)], k)
            limits[number] = best.find_kth(k)
            needed |= ~(own.values > own.find_limit(limits[number]))
        return self.compare_together(queries, bounds[0].rows[needed], k, image_filter, limits)

    def compare_together(
        self, queries: Floats, rows: Ids, k: int, image_filter: ImageFilter, limits: Doubles
    ) -> list[RankedCandidates]:
        """Compare the same rows, int64 ascending, with every query.

        limits: float64 [N], squared distances of which it is known that k images are within them.
        Rough distances |x|² + |q|² − 2xq in float32 show which vectors to compare in float64.
        """
        best, limits = [RankedCandidates() for _ in queries], limits.copy()
        norms = np.square(queries, dtype=np.float64).sum(axis=1)
        errors = 2 * FLOAT32_ERROR * (norms + self.vectors.max_squared_norm)
        factors = queries.T
        for start in range(0, len(rows), ROWS_TOGETHER):
            some = rows[start : start + ROWS_TOGETHER]
            ids, copies = image_filter.find_row_images(some)
            passing = copies > 0
            ids, copies, stored = ids[passing], copies[passing], self.vectors.borrow(some[passing])
            wide = widen(stored)
            rough = (wide @ factors).astype(np.float64)
            rough = np.einsum("ij,ij->i", wide, wide)[:, None] + norms - 2 * rough
            most = limits + errors
            if len(rough) >= k:
                most = np.minimum(most, np.partition(rough, k - 1, axis=0)[k - 1] + 2 * errors)
            near = rough <= most
            for number in np.flatnonzero(near.any(axis=0)).tolist():
                own = near[:, number]
                squared = squared_distances_float64(stored[own], queries[number])
                best[number] = best[number].merge(k, ids[own], copies[own], squared, 0, 0.0)
                limits[number] = min(limits[number], best[number].find_kth(k))
        return [replace(one, rows=len(rows)) for one in best]

    def compute_bounds(self, queries: Floats, rows: Ids) -> list[QueryBounds]:
        """Compute each query's bounds for some live rows, int64 ascending."""
        projections = self.projections
        assert projections is not None
        exact = projections.basis.project(queries)
        with np.errstate(over="ignore"):
            narrow = exact.astype(np.float32)
        norms, factors = self.compute_norms(), narrow.T
        places = None
        if len(rows) < len(projections):
            places = np.searchsorted(projections.rows, rows)
        values = np.empty((len(queries), len(rows)), np.float32)
        wide, done = np.empty((ROWS_PER_BLOCK, projections.basis.dimensions), np.float32), 0
        for first, block in projections.read_blocks(places):
            end = first + len(block)
            with np.errstate(over="ignore", invalid="ignore"):
                bounds = widen(block, wide[: len(block)]) @ factors
                bounds *= -2
                bounds += norms[first:end, None]
            if places is not None:
                low, high = np.searchsorted(places, (first, end))
                bounds = bounds[places[low:high] - first]
            values[:, done : done + len(bounds)] = bounds.T
            done += len(bounds)
        return [
            make_query_bounds(rows, values[n], exact[n], narrow[n], projections.basis)
            for n in range(len(queries))
        ]

    def compute_norms(self) -> Floats:
        """Compute the projections' squared norms, once: float32 [n]."""
        if self.norms is None:
            assert self.projections is not None
            parts = [
                np.square(block, dtype=np.float32).sum(axis=1)
                for _, block in self.projections.read_blocks()
            ]
            self.norms = np.concatenate(parts)
        return self.norms


def make_query_bounds(
    rows: Ids, values: Floats, exact: Doubles, narrow: Floats, basis: Basis
) -> QueryBounds:
    """Say what the roundings of one query's bounds amount to."""
    norm = float(np.linalg.norm(exact))
    moved = float(np.linalg.norm(narrow - exact)) + NORM_ERROR * norm
    # Sums of d products in float32: each error is relative to |x|², |q|² or |x||q|.
    error = 2.0**-23 * (basis.dimensions + 8) * (norm + basis.largest + basis.error) ** 2
    return QueryBounds(rows, values, norm * norm, basis.error + moved, error, basis.scale)

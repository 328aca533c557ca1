"""Ranking: which images a search may return, and their exact distances from a query.

Euclidean distances are summed in float64 from the full vectors and sorted, ties by image id; images
with equal pixels are one entry with a count.
"""

from collections.abc import Collection
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from index.engines.protocol import RowFilter
from index.id_map import IdMap
from index.vectors import Doubles, Floats, Ids, Vectors, widen

ROWS_PER_BLOCK = 64
"""Rows compared at a time: 1 MiB in float32, which stays in a core's cache."""
FLOAT32_ERROR = 2.0**-12
"""Bounds the error of a squared distance in float32.

A sum of 4096 products has a relative error of at most 4096 · 2⁻²⁴ = 2⁻¹² when summed one by one;
where FAISS computes |x|² + |y|² − 2xy, relative to |x|² + |y|². FAISS sums in at least eight lanes,
so an eighth of that for the product, twice for 2xy and once for the norms, stays well below.
"""


class QueryError(ValueError):
    """A query that cannot be answered; the message says what is wrong with it."""


@dataclass(frozen=True)
class RankedCandidates:
    """The nearest candidates so far, sorted by exact squared distance, ties by id.

    ids, copies: int64 [n]. squared: float64 [n]. rows: the number of different rows compared.
    farthest: a lower bound of their largest squared distance.
    """

    ids: Ids = field(default_factory=lambda: np.empty(0, np.int64))
    copies: Ids = field(default_factory=lambda: np.empty(0, np.int64))
    squared: Doubles = field(default_factory=lambda: np.empty(0))
    rows: int = 0
    farthest: float = 0.0

    def merge(
        self, k: int, ids: Ids, copies: Ids, squared: Doubles, rows: int, farthest: float
    ) -> "RankedCandidates":
        """Merge more candidates in, and keep the k nearest."""
        all_squared = np.concatenate([self.squared, squared])
        all_ids = np.concatenate([self.ids, ids])
        order = np.lexsort((all_ids, all_squared))[:k]
        return RankedCandidates(
            all_ids[order],
            np.concatenate([self.copies, copies])[order],
            all_squared[order],
            self.rows + rows,
            max(self.farthest, farthest),
        )

    def find_kth(self, k: int) -> float:
        """Return the squared distance of the k-th nearest; infinity if there are fewer."""
        return float(self.squared[k - 1]) if len(self.squared) >= k else np.inf


class ImageFilter:
    """The images that a search may return.

    id_map: restricted to the classes. row_filter: the same restriction for engines.
    """

    def __init__(
        self,
        id_map: IdMap,
        classes: Collection[int] | None = None,
        without: int | None = None,
        without_copies: Collection[int] = (),
    ) -> None:
        """Restrict to classes, and leave out images; see `Index.search`.

        Raises QueryError for classes without an image.
        """
        self.id_map, self.without, self.row_filter = id_map, without, RowFilter()
        if classes is not None:
            self.id_map = id_map.filter_by_class(classes)
            if not len(self.id_map):
                names = ", ".join(map(str, sorted(classes))) or "no class at all"
                raise QueryError(f"the index has no image of the classes asked for: {names}")
            chosen = tuple(sorted(int(number) for number in classes))
            self.row_filter = RowFilter(self.id_map.live_rows, chosen)
        left_out = {row for image in without_copies if (row := id_map.find_row(image)) is not None}
        self.rows_left_out = np.array(sorted(left_out), np.int64)

    @property
    def count(self) -> int:
        """The number of entries: live rows without those of which no image is left."""
        own = self.id_map.find_row(self.without)
        rows = np.union1d(self.rows_left_out, [] if own is None else [own]).astype(np.int64)
        mine = rows[np.isin(rows, self.id_map.live_rows)]
        return len(self.id_map.live_rows) - int((self.find_row_images(mine)[1] == 0).sum())

    def find_row_images(self, rows: Ids) -> tuple[Ids, Ids]:
        """As `IdMap.find_row_images`, for the images that are left out."""
        ids, counts = self.id_map.find_row_images(rows, self.without)
        if len(self.rows_left_out):
            counts = np.where(np.isin(rows, self.rows_left_out), 0, counts)
        return ids, counts

    def rank(
        self,
        vectors: Vectors,
        query: Floats,
        rows: Ids,
        k: int,
        best: RankedCandidates | None = None,
    ) -> RankedCandidates:
        """Rank by exact distance the candidates that pass and may be among the k nearest.

        query: float32 [4096]. rows: int64, distinct, not compared before. best: what was ranked
        before. Raises StoreError if vectors cannot be read or are damaged.
        """
        best = best or RankedCandidates()
        ids, copies = self.find_row_images(rows)
        passing = copies > 0
        kept, ids, copies = rows[passing], ids[passing], copies[passing]
        best = best.merge(k, ids[:0], copies[:0], np.empty(0), len(rows) - len(kept), 0.0)
        for start in range(0, len(kept), ROWS_PER_BLOCK):
            part = slice(start, start + ROWS_PER_BLOCK)
            values = vectors.borrow(kept[part])
            rough = squared_distances_float32(values, query)
            # Drop what is clearly farther, allowing for float32's rounding.
            last = min(k, len(rough)) - 1
            limit = min(float(np.partition(rough, last)[last]), best.find_kth(k))
            near = rough <= limit * (1 + 4 * FLOAT32_ERROR)
            best = best.merge(
                k,
                ids[part][near],
                copies[part][near],
                squared_distances_float64(values[near], query),
                len(rough),
                float(rough.max()) * (1 - 2 * FLOAT32_ERROR),
            )
        return best


def squared_distances_float32(values: npt.NDArray[np.floating], query: Floats) -> Floats:
    """Compute squared distances fast: float16 or float32 [n, 4096] and [4096] → float32 [n]."""
    difference = widen(values)
    with np.errstate(over="ignore"):
        difference -= query
        squared: Floats = np.einsum("ij,ij->i", difference, difference)
    return squared


def squared_distances_float64(values: npt.NDArray[np.floating], query: Floats) -> Doubles:
    """Compute squared distances in float64: float16 or float32 [n, 4096] → float64 [n]."""
    difference = values.astype(np.float64) - query
    # Not einsum or matmul: their order of summation could depend on the number of rows.
    squared: Doubles = np.square(difference, out=difference).sum(axis=1)
    return squared

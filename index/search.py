"""Exact nearest neighbours: FAISS finds the candidates, their distances are computed again.

FAISS computes |x|² + |y|² − 2xy in float32, which loses digits, and loses other ones on a GPU
than on a CPU, alone than in a batch. So it only proposes candidates, more than are asked for.
Their distances follow from the differences, summed in float64, and a bound on FAISS's rounding
tells whether a vector that it left out could have been among the nearest. Then more are looked
at. The answer is the same everywhere.
"""

import threading
from typing import Any

import faiss
import numpy as np
import numpy.typing as npt

from index.device import Searcher
from index.manifest import Manifest
from model.alexnet import FEATURES

Floats = npt.NDArray[np.float32]
Doubles = npt.NDArray[np.float64]
Ids = npt.NDArray[np.int64]
SPARE = 32
"""Candidates beyond those asked for."""
MOST = 2048
"""The most candidates a GPU gives."""
ROUNDING = 2.0**-12
"""Bounds FAISS's error in a squared distance, as a share of |x|² + |y|².

A float32 sum of 4096 products has a relative error of at most 4096 · 2⁻²⁴ = 2⁻¹² when summed
one by one. FAISS sums in eight lanes at least, so an eighth of that for the product, twice for
2xy and once for the norms, stays well below.
"""
ROWS = 4096
"""Vectors compared at a time when all are."""


class Index:
    """The features of a training set, searchable from several threads at once."""

    def __init__(self, manifest: Manifest, mapped: faiss.IndexIDMap2, device: str = "auto") -> None:
        self.manifest = manifest
        self.mapped = mapped
        flat: Any = faiss.downcast_index(mapped.index)
        self.ids: Ids = faiss.vector_to_array(mapped.id_map)
        # A view of FAISS's own memory: the vectors are kept once.
        self.features: Floats = faiss.rev_swig_ptr(flat.get_xb(), flat.ntotal * flat.d).reshape(
            flat.ntotal, flat.d
        )
        self.features.flags.writeable = False
        self.searcher = Searcher(flat, device)
        self.lock = threading.Lock()

    def __len__(self) -> int:
        return len(self.ids)

    def search(self, features: Any, k: int, *, without: int | None = None) -> tuple[Ids, Doubles]:
        """The k nearest images to each row of float32 [N, 4096].

        Gives ids int64 [N, k] and Euclidean distances float64 [N, k], rising, ties by id.
        `without` is the id of an image to leave out. Fewer columns when there are fewer images.
        Raises ValueError: k below 1, a wrong shape, a value that is not finite.
        """
        queries = checked(features)
        if isinstance(k, bool) or not isinstance(k, int | np.integer) or k < 1:
            raise ValueError(f"k must be a whole number from 1, not {k!r}")
        left_out = self.position(without)
        k = min(int(k), len(self) - (left_out is not None))
        rows = self.nearest(queries, k, left_out)
        positions = np.array([p for p, _ in rows], dtype=np.int64).reshape(len(queries), k)
        squared = np.array([d for _, d in rows], dtype=np.float64).reshape(len(queries), k)
        return self.ids[positions], np.sqrt(squared)

    def position(self, image: int | None) -> int | None:
        """Where an image's vector stands, if it is here."""
        if image is None:
            return None
        place = int(np.searchsorted(self.ids, image))
        return place if place < len(self) and self.ids[place] == image else None

    def nearest(self, queries: Floats, k: int, left_out: int | None) -> list[tuple[Ids, Doubles]]:
        """Positions and squared distances of the nearest, a query at a time."""
        if k == 0:
            return [(np.empty(0, np.int64), np.empty(0))] * len(queries)
        asked = min(len(self), k + SPARE + 1)
        if asked > MOST:
            return [self.nearest_of_all(query, k, left_out) for query in queries]
        found = []
        for query, reported, positions in zip(queries, *self.propose(queries, asked), strict=True):
            found.append(self.settle(query, reported, positions, k, left_out))
        return found

    def propose(self, queries: Floats, k: int) -> tuple[Floats, Ids]:
        """FAISS's candidates: squared distances float32 [N, k], positions int64 [N, k]."""
        if not self.searcher.on_gpu:
            return self.searcher.search(queries, k)
        with self.lock:
            return self.searcher.search(queries, k)

    def settle(
        self, query: Floats, reported: Floats, positions: Ids, k: int, left_out: int | None
    ) -> tuple[Ids, Doubles]:
        """The k nearest of one query's candidates, or of more where these do not settle it."""
        best, distances = smallest(positions, self.squared(query, positions), k, left_out)
        unsure = ROUNDING * (
            float(np.square(query, dtype=np.float64).sum()) + self.manifest.largest
        )
        if len(positions) == len(self) or distances[-1] < float(reported.max()) - unsure:
            return best, distances
        if len(positions) < MOST:
            more = [row[0] for row in self.propose(query[None], min(len(self), MOST))]
            return self.settle(query, more[0], more[1], k, left_out)
        return self.nearest_of_all(query, k, left_out)

    def nearest_of_all(self, query: Floats, k: int, left_out: int | None) -> tuple[Ids, Doubles]:
        """The k nearest by comparing with every vector."""
        everything = np.arange(len(self), dtype=np.int64)
        parts = [self.squared(query, everything[i : i + ROWS]) for i in range(0, len(self), ROWS)]
        return smallest(everything, np.concatenate(parts), k, left_out)

    def squared(self, query: Floats, positions: Ids) -> Doubles:
        """Exact squared distances to the vectors at these positions: float64."""
        difference = self.features[positions].astype(np.float64) - query
        # Not einsum or a product: their order of summation could depend on how many there are.
        distances: Doubles = np.square(difference, out=difference).sum(axis=1)
        return distances


def smallest(positions: Ids, squared: Doubles, k: int, left_out: int | None) -> tuple[Ids, Doubles]:
    """The k smallest, ties by position; ids rise with the positions."""
    if left_out is not None:
        kept = positions != left_out
        positions, squared = positions[kept], squared[kept]
    order = np.lexsort((positions, squared))[:k]
    return positions[order], squared[order]


def checked(features: Any) -> Floats:
    """Queries as FAISS wants them: float32 [N, 4096], in one piece. Raises ValueError."""
    queries = np.ascontiguousarray(features, dtype=np.float32)
    if queries.ndim != 2 or queries.shape[1] != FEATURES:
        raise ValueError(f"features must have the shape [N, {FEATURES}], not {queries.shape}")
    if not np.isfinite(queries).all():
        raise ValueError("features must be finite numbers")
    return queries

"""Nearest-neighbour search: an engine proposes rows, which are then ranked by exact distance.

The kind of an index decides only whether a neighbour is proposed, not how it is reported: Euclidean
distances are summed in float64 from the full vectors and sorted, ties by image id; images with
equal pixels are one entry with a count. Even the exact engine, which compares every vector, only
proposes, since FAISS computes |x|² + |y|² − 2xy in float32: a bound on the rounding error shows
whether a vector that was left out could be among the nearest; if so, more candidates are compared.
"""

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from index.engines.exact import ExactSearch
from index.engines.protocol import (
    MIN_EXTRA_CANDIDATES,
    RowFilter,
    SearchEngine,
    scale_effort,
)
from index.id_map import IdMap
from index.manifest import Manifest
from index.vectors import DTYPES, ROWS_PER_CHUNK, Doubles, Floats, Ids, Vectors
from model.config import FEATURES

MAX_NEIGHBOURS = 1000
MAX_BATCH_CANDIDATES = 1 << 22
"""Candidates per batch, over all its queries: 32 MB of row numbers."""
MAX_SCANNED_ROWS = 20_000
"""Rows of a class filter up to which all are compared, regardless of the kind."""
FLOAT32_ERROR = 2.0**-12
"""Bounds the error of a squared distance in float32.

A sum of 4096 products has a relative error of at most 4096 · 2⁻²⁴ = 2⁻¹² when summed one by one;
where FAISS computes |x|² + |y|² − 2xy, relative to |x|² + |y|². FAISS sums in at least eight lanes,
so an eighth of that for the product, twice for 2xy and once for the norms, stays well below.
"""


class QueryError(ValueError):
    """A query that cannot be answered; the message says what is wrong with it."""


@dataclass(frozen=True)
class Neighbours:
    """The k nearest images of each of N queries, nearest first.

    ids: int64 [N, k]; of images with equal pixels the smallest id. distances: float64 [N, k],
    Euclidean. copies: int64 [N, k], the number of images with exactly these pixels, at least 1.
    """

    ids: Ids
    distances: Doubles
    copies: Ids


class Index:
    """The searchable features of a training set. Thread-safe."""

    def __init__(
        self,
        manifest: Manifest,
        vectors: Vectors,
        id_map: IdMap,
        engine: SearchEngine | None = None,
    ) -> None:
        """engine: None to compare every vector."""
        self.manifest, self.vectors, self.id_map = manifest, vectors, id_map
        self.exact = ExactSearch.for_id_map(vectors, id_map)
        self.engine: SearchEngine = engine or self.exact
        self.effort = int(manifest.parameters.get("effort", 0))
        self.candidates = int(manifest.parameters.get("candidates", 0))

    def __len__(self) -> int:
        return len(self.id_map)

    def search(
        self,
        features: Any,
        k: int,
        *,
        classes: Collection[int] | None = None,
        without: int | None = None,
    ) -> Neighbours:
        """Find the k nearest images to each row of float32 [N, 4096], k from 1 to 1000.

        classes: ids of the classes to search in; None for all. without: id of an image to leave
        out. The result has fewer columns than k if there are fewer images.

        Raises QueryError for an invalid k or shape, non-finite numbers, or classes without an
        image; SearchError if the engine fails.
        """
        queries = self.validate_queries(features)
        is_whole = isinstance(k, int | np.integer) and not isinstance(k, bool)
        if not is_whole or not 1 <= k <= MAX_NEIGHBOURS:
            raise QueryError(f"k must be a whole number from 1 to {MAX_NEIGHBOURS}, not {k!r}")
        image_filter = ImageFilter(self.id_map, classes, without)
        k = min(int(k), image_filter.count)
        shape = len(queries), k
        found = Neighbours(np.zeros(shape, np.int64), np.zeros(shape), np.zeros(shape, np.int64))
        unfinished = np.arange(len(queries) if k else 0)
        for step in self.plan_steps(k, image_filter):
            unfinished = self.refine(queries, unfinished, k, step, image_filter, found)
            if not len(unfinished):
                break
        return found

    def find_within_radius(
        self,
        features: Any,
        radius: float,
        *,
        classes: Collection[int] | None = None,
        without: int | None = None,
        most: int = MAX_NEIGHBOURS,
    ) -> list[Neighbours]:
        """Find the images within a Euclidean distance of each query, at most the `most` nearest.

        Returns one `Neighbours` of [1, n] per query; with `most` columns it may be incomplete.
        Raises as `search`, and QueryError for a negative or non-finite radius.
        """
        if not isinstance(radius, int | float) or not 0 <= radius < float("inf"):
            raise QueryError(f"the radius must be a number of at least 0, not {radius!r}")
        found = self.search(features, most, classes=classes, without=without)
        counts = (found.distances <= radius).sum(axis=1)
        return [
            Neighbours(
                found.ids[i : i + 1, :n],
                found.distances[i : i + 1, :n],
                found.copies[i : i + 1, :n],
            )
            for i, n in enumerate(counts.tolist())
        ]

    def read_features(self, images: Sequence[int]) -> Floats:
        """Read the stored features of images by their ids, in this order: float32 [n, 4096].

        Raises QueryError for an image that is not in the index.
        """
        rows = {image: self.id_map.find_row(image) for image in images}
        missing = [str(image) for image, row in rows.items() if row is None]
        if missing:
            raise QueryError(f"the index has no image {', '.join(missing)}")
        return self.vectors.take([rows[image] for image in images])

    def validate_queries(self, features: Any) -> Floats:
        """Convert queries to contiguous float32 [N, 4096], rounded like the stored vectors.

        Raises QueryError.
        """
        try:
            queries = np.ascontiguousarray(features, dtype=np.float32)
        except (TypeError, ValueError) as error:
            raise QueryError(f"features must be numbers: {error}") from error
        if queries.ndim != 2 or queries.shape[1] != FEATURES:
            raise QueryError(f"features must have the shape [N, {FEATURES}], not {queries.shape}")
        with np.errstate(over="ignore"):
            rounded: Floats = queries.astype(DTYPES[self.manifest.dtype]).astype(np.float32)
        if not np.isfinite(rounded).all():
            raise QueryError(f"features must be finite numbers of {self.manifest.dtype}")
        return rounded

    def plan_steps(self, k: int, image_filter: "ImageFilter") -> Iterator["SearchStep"]:
        """Yield the steps of a search for k neighbours, until no query is unfinished.

        The engine searches with increasing effort for more and more candidates; finally every
        vector is compared.
        """
        rows = image_filter.row_filter.rows
        if not isinstance(self.engine, ExactSearch) and (
            rows is None or len(rows) > MAX_SCANNED_ROWS
        ):
            count, effort = scale_effort(k, self.candidates, self.effort)
            least = min(effort, self.engine.levels - 1)
            for doublings, effort in enumerate(range(least, self.engine.levels)):
                yield SearchStep(self.engine, count << doublings, effort)
        count, everything = 2 * k + MIN_EXTRA_CANDIDATES, len(image_filter.id_map.live_rows)
        while count < everything:
            yield SearchStep(self.exact, count, 0)
            count *= 8
        yield SearchStep(self.exact, everything, 0)

    def refine(
        self,
        queries: Floats,
        unfinished: Ids,
        k: int,
        step: "SearchStep",
        image_filter: "ImageFilter",
        found: Neighbours,
    ) -> Ids:
        """Rank a step's candidates for the unfinished queries, given by index, and fill in `found`.

        Returns the indices of the queries that need another step: int64. Raises SearchError.
        """
        left = []
        # Fewer queries at a time if each may have very many candidates.
        size = max(1, MAX_BATCH_CANDIDATES // step.count)
        for start in range(0, len(unfinished), size):
            numbers = unfinished[start : start + size]
            proposed = step.engine.propose(
                queries[numbers], step.count, image_filter.row_filter, step.effort
            )
            for number, rows in zip(numbers, proposed, strict=True):
                ranked = image_filter.rank(self.vectors, queries[number], rows, k)
                if not self.is_final(ranked, queries[number], k, step, image_filter):
                    left.append(number)
                    continue
                found.ids[number], found.copies[number] = ranked.ids[:k], ranked.copies[:k]
                found.distances[number] = np.sqrt(ranked.squared[:k])
        return np.array(left, np.int64)

    def is_final(
        self,
        ranked: "RankedCandidates",
        query: Floats,
        k: int,
        step: "SearchStep",
        image_filter: "ImageFilter",
    ) -> bool:
        """Whether no other vector can be among the k nearest, as far as the engine can tell."""
        if ranked.rows >= len(image_filter.id_map.live_rows):
            return True
        if len(ranked.ids) < k or not step.engine.exhaustive:
            return len(ranked.ids) >= k
        norm = float(np.square(query, dtype=np.float64).sum())
        # Twice: once for the farthest candidate, once for the vector left out.
        error = 2 * FLOAT32_ERROR * (norm + self.manifest.max_squared_norm)
        return bool(ranked.squared[k - 1] < ranked.farthest - error)


@dataclass(frozen=True)
class SearchStep:
    """An engine, the number of candidates to request, and the effort."""

    engine: SearchEngine
    count: int
    effort: int


class ImageFilter:
    """The images that a search may return.

    id_map: restricted to the classes. row_filter: the same restriction for engines.
    """

    def __init__(self, id_map: IdMap, classes: Collection[int] | None, without: int | None) -> None:
        """Restrict to classes and leave out an image. Raises QueryError for empty classes."""
        self.id_map, self.without, self.row_filter = id_map, without, RowFilter()
        if classes is not None:
            self.id_map = id_map.filter_by_class(classes)
            if not len(self.id_map):
                names = ", ".join(map(str, sorted(classes))) or "no class at all"
                raise QueryError(f"the index has no image of the classes asked for: {names}")
            chosen = tuple(sorted(int(number) for number in classes))
            self.row_filter = RowFilter(self.id_map.live_rows, chosen)

    @property
    def count(self) -> int:
        """The number of entries: live rows, minus that of an image left out that has no copy."""
        row = self.id_map.find_row(self.without)
        alone = row is not None and self.find_row_images(np.array([row]))[1][0] == 0
        return len(self.id_map.live_rows) - int(alone)

    def find_row_images(self, rows: Ids) -> tuple[Ids, Ids]:
        """As `IdMap.find_row_images`, for the image that is left out."""
        return self.id_map.find_row_images(rows, self.without)

    def rank(self, vectors: Vectors, query: Floats, rows: Ids, k: int) -> "RankedCandidates":
        """Rank by exact distance the candidates that pass and may be among the k nearest.

        query: float32 [4096]. rows: int64, −1 as padding.
        """
        different = np.unique(rows[rows >= 0])
        ids, copies = self.find_row_images(different)
        passing = copies > 0
        kept, ids, copies = different[passing], ids[passing], copies[passing]
        best = RankedCandidates(ids[:0], copies[:0], np.empty(0), len(different), 0.0)
        for start in range(0, len(kept), ROWS_PER_CHUNK):
            part = slice(start, start + ROWS_PER_CHUNK)
            values = vectors.take(kept[part])
            rough = squared_distances_float32(values, query)
            # Drop what is clearly farther, allowing for float32's rounding.
            last = min(k, len(rough)) - 1
            near = rough <= np.partition(rough, last)[last] * (1 + 4 * FLOAT32_ERROR)
            best = best.merge(
                ids[part][near],
                copies[part][near],
                squared_distances_float64(values[near], query),
                float(rough.max()) * (1 - 2 * FLOAT32_ERROR),
            )
        return best


@dataclass(frozen=True)
class RankedCandidates:
    """Candidates sorted by exact squared distance, ties by id.

    ids, copies: int64 [n]. squared: float64 [n]. rows: the number of different rows compared.
    farthest: a lower bound of their largest squared distance.
    """

    ids: Ids
    copies: Ids
    squared: Doubles
    rows: int
    farthest: float

    def merge(self, ids: Ids, copies: Ids, squared: Doubles, farthest: float) -> "RankedCandidates":
        """Merge more candidates in."""
        all_squared = np.concatenate([self.squared, squared])
        all_ids = np.concatenate([self.ids, ids])
        order = np.lexsort((all_ids, all_squared))
        return RankedCandidates(
            all_ids[order],
            np.concatenate([self.copies, copies])[order],
            all_squared[order],
            self.rows,
            max(self.farthest, farthest),
        )


def squared_distances_float32(values: Floats, query: Floats) -> Floats:
    """Compute squared distances fast: [n, 4096] and [4096] → float32 [n]."""
    difference = torch.from_numpy(values) - torch.from_numpy(query)
    squared: Floats = difference.square_().sum(1).numpy()
    return squared


def squared_distances_float64(values: Floats, query: Floats) -> Doubles:
    """Compute squared distances in float64: [n, 4096] and [4096] → float64 [n]."""
    difference = values.astype(np.float64) - query
    # Not einsum or matmul: their order of summation could depend on the number of rows.
    squared: Doubles = np.square(difference, out=difference).sum(axis=1)
    return squared

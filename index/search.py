"""Nearest-neighbour search: an engine proposes rows, which are then ranked by exact distance.

The kind of an index decides only whether a neighbour is proposed, not how it is reported
(index/ranking.py). Where an engine proposes too few, or cannot search under a filter, and for the
kind exact, the nearest are found and proven by index/exact.py. An exhaustive engine, which compares
every vector on a GPU or a server, only proposes too, since it computes in float32 or less: a bound
on the rounding error shows whether a vector that was left out could be among the nearest.
"""

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from index.damage import OpenedFile
from index.engines.protocol import RowFilter, SearchEngine, scale_effort
from index.exact import ExactSearch
from index.id_map import IdMap
from index.manifest import Manifest
from index.projection import Projections
from index.ranking import FLOAT32_ERROR, ImageFilter, QueryError, RankedCandidates
from index.vectors import DTYPES, MAX_SQUARED_NORM, Doubles, Floats, Ids, Vectors
from model.network.config import FEATURES

__all__ = ["MAX_NEIGHBOURS", "Index", "Neighbours", "QueryError"]

MAX_NEIGHBOURS = 1000
MAX_BATCH_CANDIDATES = 1 << 22
"""Candidates per batch, over all its queries: 32 MB of row numbers."""


@dataclass(frozen=True)
class Neighbours:
    """The k nearest images of each of N queries, nearest first.

    ids: int64 [N, k]; of images with equal pixels the smallest id. distances: float64 [N, k],
    Euclidean. copies: int64 [N, k], the number of images with exactly these pixels, at least 1.
    """

    ids: Ids
    distances: Doubles
    copies: Ids

    def put(self, number: int, ranked: RankedCandidates) -> None:
        """Fill in the neighbours of one query."""
        self.ids[number], self.copies[number] = ranked.ids, ranked.copies
        self.distances[number] = np.sqrt(ranked.squared)


class Index:
    """The searchable features of a training set. Thread-safe."""

    def __init__(
        self,
        manifest: Manifest,
        vectors: Vectors,
        id_map: IdMap,
        engine: SearchEngine | None = None,
        projections: Projections | None = None,
    ) -> None:
        """engine: None to prove every answer. projections: of the live rows, if there are any."""
        self.manifest, self.vectors, self.id_map = manifest, vectors, id_map
        self.exact = ExactSearch(vectors, projections)
        self.engine = engine
        self.effort = int(manifest.parameters.get("effort", 0))
        self.candidates = int(manifest.parameters.get("candidates", 0))

    def __len__(self) -> int:
        return len(self.id_map)

    @property
    def files(self) -> list[OpenedFile]:
        """The files that answers are computed from."""
        projections = self.exact.projections
        own = [getattr(self.engine, "file", None), projections.file if projections else None]
        return [*self.vectors.files, *(file for file in own if file is not None)]

    def search(
        self,
        features: Any,
        k: int,
        *,
        classes: Collection[int] | None = None,
        without: int | None = None,
        without_copies: Collection[int] = (),
    ) -> Neighbours:
        """Find the k nearest images to each row of float32 [N, 4096], k from 1 to 1000.

        classes: ids of the classes to search in; None for all. without: id of an image to leave
        out. without_copies: ids of images to leave out with all images of the same pixels. The
        result has fewer columns than k if there are fewer images.

        Raises QueryError for an invalid k or shape, numbers that are not finite or too large, or
        classes without an image; SearchError if the engine fails, and DamageError if vectors are
        no longer what was written.
        """
        queries = self.validate_queries(features)
        is_whole = isinstance(k, int | np.integer) and not isinstance(k, bool)
        if not is_whole or not 1 <= k <= MAX_NEIGHBOURS:
            raise QueryError(f"k must be a whole number from 1 to {MAX_NEIGHBOURS}, not {k!r}")
        image_filter = ImageFilter(self.id_map, classes, without, without_copies)
        k = min(int(k), image_filter.count)
        shape = len(queries), k
        found = Neighbours(np.zeros(shape, np.int64), np.zeros(shape), np.zeros(shape, np.int64))
        unfinished = np.arange(len(queries) if k else 0)
        for step in self.plan_steps(k, image_filter.row_filter):
            unfinished = self.refine(queries, unfinished, k, step, image_filter, found)
            if not len(unfinished):
                return found
        ranked = self.exact.search(queries[unfinished], k, image_filter)
        for number, one in zip(unfinished.tolist(), ranked, strict=True):
            found.put(number, one)
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
        """Convert queries to contiguous float32 [N, 4096]. Raises QueryError."""
        try:
            queries = np.ascontiguousarray(features, dtype=np.float32)
        except (TypeError, ValueError) as error:
            raise QueryError(f"features must be numbers: {error}") from error
        if queries.ndim != 2 or queries.shape[1] != FEATURES:
            raise QueryError(f"features must have the shape [N, {FEATURES}], not {queries.shape}")
        if not np.isfinite(queries).all():
            raise QueryError("features must be finite numbers")
        if (np.square(queries, dtype=np.float64).sum(axis=1) > MAX_SQUARED_NORM).any():
            raise QueryError(
                f"features must have a norm of at most {MAX_SQUARED_NORM**0.5:.1e}: beyond it, "
                "squared distances are no numbers of float32"
            )
        return queries

    def plan_steps(self, k: int, row_filter: RowFilter) -> Iterator["SearchStep"]:
        """Yield the engine's steps of a search for k neighbours.

        It searches with increasing effort for more and more candidates. What it leaves unfinished,
        the exact search finds; under a filter that it does not apply itself, everything.
        """
        if self.engine is None or (row_filter.rows is not None and not self.engine.filters):
            return
        count, effort = scale_effort(k, self.candidates, self.effort)
        least = min(effort, self.engine.levels - 1)
        for doublings, level in enumerate(range(least, self.engine.levels)):
            yield SearchStep(self.engine, count << doublings, level)

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

        Returns the indices of the queries that need another step: int64. Raises SearchError and
        StoreError.
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
                different = np.unique(rows[rows >= 0])
                ranked = image_filter.rank(self.vectors, queries[number], different, k)
                if self.is_final(ranked, queries[number], k, step, image_filter):
                    found.put(number, ranked)
                else:
                    left.append(number)
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
        error = 2 * FLOAT32_ERROR * (norm + self.vectors.max_squared_norm)
        # An engine that stores float16 rounds the query, too, which moves every distance.
        moved = float(np.linalg.norm(query.astype(np.float64) - round_query(query, self.manifest)))
        farthest = max(0.0, max(0.0, ranked.farthest - error) ** 0.5 - 2 * moved)
        return bool(ranked.squared[k - 1] < farthest**2)


def round_query(query: Floats, manifest: Manifest) -> Doubles:
    """Round a query as the stored vectors are rounded: float32 [4096] → float64 [4096]."""
    with np.errstate(over="ignore"):
        return query.astype(DTYPES[manifest.dtype]).astype(np.float64)


@dataclass(frozen=True)
class SearchStep:
    """An engine, the number of candidates to request, and the effort."""

    engine: SearchEngine
    count: int
    effort: int

"""The nearest neighbours: a kind proposes rows, their distances are computed from the vectors.

What an index answers with does not depend on its kind but in whether a neighbour was proposed:
Euclidean distances are summed in float64 from the full vectors, sorted, ties by the images' ids;
images of equal pixels are one entry with a count. Where every vector is compared (`exact`), FAISS
still only proposes, since it computes |x|² + |y|² − 2xy in float32: a bound on its rounding tells
whether a vector that it left out could have been among the nearest, and then more are looked at.
"""

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from index.candidates import MIN_EXTRA_CANDIDATES, RowFilter, SearchEngine, scale_effort
from index.exact import ExactSearch
from index.id_map import IdMap
from index.manifest import Manifest
from index.vectors import DTYPES, ROWS_PER_CHUNK, Floats, Ids, Vectors
from model.config import FEATURES

Doubles = npt.NDArray[np.float64]
MAX_NEIGHBOURS = 1000
"""The most neighbours that can be asked for."""
MAX_BATCH_CANDIDATES = 1 << 22
"""Candidates that are proposed at a time, of all queries together: 32 MB of numbers."""
MAX_SCANNED_ROWS = 20_000
"""Vectors of a class filter up to which all of them are compared, whatever the kind."""
FLOAT32_ERROR = 2.0**-12
"""Bounds the error of a squared distance in float32.

A sum of 4096 products has a relative error of at most 4096 · 2⁻²⁴ = 2⁻¹² when summed one by one,
of |x|² + |y|² where FAISS computes |x|² + |y|² − 2xy. FAISS sums in eight lanes at least, so an
eighth of that for the product, twice for 2xy and once for the norms, stays well below.
"""


class QueryError(ValueError):
    """A question that cannot be answered: what is wrong with it."""


@dataclass(frozen=True)
class Neighbours:
    """What was found, nearest first, for each of N queries.

    ids: int64 [N, k], images; the smallest id of those with equal pixels. distances: float64
    [N, k], Euclidean. copies: int64 [N, k], how many images have exactly these pixels, from 1.
    """

    ids: Ids
    distances: Doubles
    copies: Ids


class Index:
    """The features of a training set, searchable from several threads at once."""

    def __init__(
        self,
        manifest: Manifest,
        vectors: Vectors,
        members: IdMap,
        candidates: SearchEngine | None = None,
    ) -> None:
        """Without `candidates` every vector is compared."""
        self.manifest, self.vectors, self.id_map = manifest, vectors, members
        self.exact = ExactSearch.for_id_map(vectors, members)
        self.engine: SearchEngine = candidates or self.exact
        self.effort = int(manifest.parameters.get("effort", 0))
        self.proposed = int(manifest.parameters.get("candidates", 0))

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
        """The k nearest to each row of float32 [N, 4096], k from 1 to 1000.

        `classes` are the ids of the only classes that count; `without` is the id of an image to
        leave out. There are fewer columns than k when there are fewer images.

        Raises QueryError for another k, shape, a number that is not finite, or classes without an
        image; SearchError when the engine is gone.
        """
        queries = self.validate_queries(features)
        if (
            isinstance(k, bool)
            or not isinstance(k, int | np.integer)
            or not 1 <= k <= MAX_NEIGHBOURS
        ):
            raise QueryError(f"k must be a whole number from 1 to {MAX_NEIGHBOURS}, not {k!r}")
        question = ImageFilter(self.id_map, classes, without)
        k = min(int(k), question.count)
        shape = len(queries), k
        found = Neighbours(np.zeros(shape, np.int64), np.zeros(shape), np.zeros(shape, np.int64))
        asked = np.arange(len(queries) if k else 0)
        for step in self.search_steps(k, question):
            asked = self.refine(queries, asked, k, step, question, found)
            if not len(asked):
                break
        return found

    def within(
        self,
        features: Any,
        radius: float,
        *,
        classes: Collection[int] | None = None,
        without: int | None = None,
        most: int = MAX_NEIGHBOURS,
    ) -> list[Neighbours]:
        """All within a Euclidean distance of each query, at most the `most` nearest of them.

        One `Neighbours` of [1, n] a query; one with `most` columns may not be all. Raises as
        `search`, and QueryError for a radius that is negative or no number.
        """
        if not isinstance(radius, int | float) or not 0 <= radius < float("inf"):
            raise QueryError(f"the radius must be a number from 0, not {radius!r}")
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

    def features(self, images: Sequence[int]) -> Floats:
        """The stored features of images, by their ids, in this order: float32 [n, 4096].

        Raises QueryError for an image that is not here.
        """
        rows = {image: self.id_map.row_of(image) for image in images}
        missing = [str(image) for image, row in rows.items() if row is None]
        if missing:
            raise QueryError(f"the index has no image {', '.join(missing)}")
        return self.vectors.take([rows[image] for image in images])

    def validate_queries(self, features: Any) -> Floats:
        """Queries, rounded as the vectors were, in one piece. Raises QueryError."""
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

    def search_steps(self, k: int, question: "ImageFilter") -> Iterator["SearchStep"]:
        """What to ask for candidates for k neighbours, and what next where these do not do."""
        rows = question.row_filter.rows
        if not isinstance(self.engine, ExactSearch) and (
            rows is None or len(rows) > MAX_SCANNED_ROWS
        ):
            count, effort = scale_effort(k, self.proposed, self.effort)
            least = min(effort, self.engine.levels - 1)
            for more, effort in enumerate(range(least, self.engine.levels)):
                yield SearchStep(self.engine, count << more, effort)
        count, everything = 2 * k + MIN_EXTRA_CANDIDATES, len(question.id_map.live_rows)
        while count < everything:
            yield SearchStep(self.exact, count, 0)
            count *= 8
        yield SearchStep(self.exact, everything, 0)

    def refine(
        self,
        queries: Floats,
        asked: Ids,
        k: int,
        step: "SearchStep",
        question: "ImageFilter",
        found: Neighbours,
    ) -> Ids:
        """Take a step for the queries of these numbers; give those that need another."""
        left = []
        # Few at a time where each may be given very many.
        size = max(1, MAX_BATCH_CANDIDATES // step.count)
        for start in range(0, len(asked), size):
            some = asked[start : start + size]
            for number, rows in zip(
                some, step.propose(queries[some], question.row_filter), strict=True
            ):
                looked = question.rank(self.vectors, queries[number], rows, k)
                if not self.is_final(looked, queries[number], k, step, question):
                    left.append(number)
                    continue
                found.ids[number], found.copies[number] = looked.ids[:k], looked.copies[:k]
                found.distances[number] = np.sqrt(looked.squared[:k])
        return np.array(left, np.int64)

    def is_final(
        self,
        looked: "RankedCandidates",
        query: Floats,
        k: int,
        step: "SearchStep",
        question: "ImageFilter",
    ) -> bool:
        """Whether no other vector can be among the k nearest, as far as the kind can tell."""
        if looked.rows >= len(question.id_map.live_rows):
            return True
        if len(looked.ids) < k or not step.engine.exhaustive:
            return len(looked.ids) >= k
        norm = float(np.square(query, dtype=np.float64).sum())
        # Twice: once for the candidate farthest off, once for the vector left out.
        unsure = 2 * FLOAT32_ERROR * (norm + self.manifest.max_squared_norm)
        return bool(looked.squared[k - 1] < looked.farthest - unsure)


@dataclass(frozen=True)
class SearchStep:
    """Whom to ask for how many candidates with what effort."""

    engine: SearchEngine
    count: int
    effort: int

    def propose(self, queries: Floats, view: RowFilter) -> Ids:
        """Ask."""
        return self.engine.propose(queries, self.count, view, self.effort)


@dataclass(frozen=True)
class RankedCandidates:
    """Candidates by their exact distances, nearest first, ties by id.

    rows: how many different ones were looked at; farthest: the largest squared distance of them.
    """

    ids: Ids
    copies: Ids
    squared: Doubles
    rows: int
    farthest: float

    def merge(self, ids: Ids, copies: Ids, squared: Doubles, farthest: float) -> "RankedCandidates":
        """These and others, in their order."""
        every = np.concatenate([self.squared, squared])
        names = np.concatenate([self.ids, ids])
        order = np.lexsort((names, every))
        return RankedCandidates(
            names[order],
            np.concatenate([self.copies, copies])[order],
            every[order],
            self.rows,
            max(self.farthest, farthest),
        )


class ImageFilter:
    """Which images count, for one call."""

    def __init__(
        self, everything: IdMap, classes: Collection[int] | None, without: int | None
    ) -> None:
        """Raises QueryError for classes that no image is of."""
        self.id_map, self.without = everything, without
        rows = None
        if classes is not None:
            self.id_map = everything.with_classes(classes)
            if not len(self.id_map):
                named = ", ".join(map(str, sorted(classes))) or "no class at all"
                raise QueryError(f"the index has no image of the classes asked for: {named}")
            rows = self.id_map.live_rows
        chosen = None if classes is None else tuple(sorted(int(c) for c in classes))
        self.row_filter = RowFilter(rows, chosen, without)

    @property
    def count(self) -> int:
        """How many entries there can be at most."""
        row = self.id_map.row_of(self.without)
        alone = (
            row is not None
            and self.id_map.first_ids_and_counts(np.array([row]), self.without)[1][0] == 0
        )
        return len(self.id_map.live_rows) - int(alone)

    def rank(self, vectors: Vectors, query: Floats, rows: Ids, k: int) -> RankedCandidates:
        """The candidates that count and may be among the k nearest, by exact distance."""
        different = np.unique(rows[rows >= 0])
        ids, copies = self.id_map.first_ids_and_counts(different, self.without)
        counts = copies > 0
        kept, ids, copies = different[counts], ids[counts], copies[counts]
        best = RankedCandidates(ids[:0], copies[:0], np.empty(0), len(different), 0.0)
        for start in range(0, len(kept), ROWS_PER_CHUNK):
            part = slice(start, start + ROWS_PER_CHUNK)
            values = vectors.take(kept[part])
            rough = squared_distances_float32(values, query)
            # float32's sums may be wrong in their last digits; those far off are not needed.
            last = min(k, len(rough)) - 1
            near = rough <= np.partition(rough, last)[last] * (1 + 4 * FLOAT32_ERROR)
            best = best.merge(
                ids[part][near],
                copies[part][near],
                squared_distances_float64(values[near], query),
                float(rough.max()) * (1 - 2 * FLOAT32_ERROR),
            )
        return best


def squared_distances_float32(values: Floats, query: Floats) -> Floats:
    """Squared distances in float32: [n, 4096] and [4096] → [n]."""
    difference = torch.from_numpy(values) - torch.from_numpy(query)
    found: Floats = difference.square_().sum(1).numpy()
    return found


def squared_distances_float64(values: Floats, query: Floats) -> Doubles:
    """Squared distances in float64: [n, 4096] and [4096] → [n]."""
    difference = values.astype(np.float64) - query
    # Not einsum or a product: their order of summation could depend on how many there are.
    distances: Doubles = np.square(difference, out=difference).sum(axis=1)
    return distances

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

from index.candidates import SPARE, Candidates, View, asked_for
from index.exact import Exact
from index.id_map import Members
from index.manifest import Manifest
from index.vectors import CHUNK, DTYPES, Floats, Ids, Vectors
from model.alexnet import FEATURES

Doubles = npt.NDArray[np.float64]
MOST = 1000
"""The most neighbours that can be asked for."""
AT_ONCE = 1 << 22
"""Candidates that are proposed at a time, of all queries together: 32 MB of numbers."""
SCANNED = 20_000
"""Vectors of a class filter up to which all of them are compared, whatever the kind."""
ROUNDING = 2.0**-12
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
        members: Members,
        candidates: Candidates | None = None,
    ) -> None:
        """Without `candidates` every vector is compared."""
        self.manifest, self.vectors, self.members = manifest, vectors, members
        self.exact = Exact.of(vectors, members)
        self.candidates: Candidates = candidates or self.exact
        self.effort = int(manifest.parameters.get("effort", 0))
        self.proposed = int(manifest.parameters.get("candidates", 0))

    def __len__(self) -> int:
        return len(self.members)

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
        queries = self.checked(features)
        if isinstance(k, bool) or not isinstance(k, int | np.integer) or not 1 <= k <= MOST:
            raise QueryError(f"k must be a whole number from 1 to {MOST}, not {k!r}")
        question = Question(self.members, classes, without)
        k = min(int(k), question.available)
        shape = len(queries), k
        found = Neighbours(np.zeros(shape, np.int64), np.zeros(shape), np.zeros(shape, np.int64))
        asked = np.arange(len(queries) if k else 0)
        for step in self.plan(k, question):
            asked = self.settle(queries, asked, k, step, question, found)
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
        most: int = MOST,
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
        rows = {image: self.members.row_of(image) for image in images}
        missing = [str(image) for image, row in rows.items() if row is None]
        if missing:
            raise QueryError(f"the index has no image {', '.join(missing)}")
        return self.vectors.take([rows[image] for image in images])

    def checked(self, features: Any) -> Floats:
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

    def plan(self, k: int, question: "Question") -> Iterator["Step"]:
        """What to ask for candidates for k neighbours, and what next where these do not do."""
        rows = question.view.rows
        if not isinstance(self.candidates, Exact) and (rows is None or len(rows) > SCANNED):
            count, effort = asked_for(k, self.proposed, self.effort)
            least = min(effort, self.candidates.levels - 1)
            for more, effort in enumerate(range(least, self.candidates.levels)):
                yield Step(self.candidates, count << more, effort)
        count, everything = 2 * k + SPARE, len(question.members.distinct)
        while count < everything:
            yield Step(self.exact, count, 0)
            count *= 8
        yield Step(self.exact, everything, 0)

    def settle(
        self,
        queries: Floats,
        asked: Ids,
        k: int,
        step: "Step",
        question: "Question",
        found: Neighbours,
    ) -> Ids:
        """Take a step for the queries of these numbers; give those that need another."""
        left = []
        # Few at a time where each may be given very many.
        size = max(1, AT_ONCE // step.count)
        for start in range(0, len(asked), size):
            some = asked[start : start + size]
            for number, rows in zip(some, step.propose(queries[some], question.view), strict=True):
                looked = question.answer(self.vectors, queries[number], rows, k)
                if not self.settled(looked, queries[number], k, step, question):
                    left.append(number)
                    continue
                found.ids[number], found.copies[number] = looked.ids[:k], looked.copies[:k]
                found.distances[number] = np.sqrt(looked.squared[:k])
        return np.array(left, np.int64)

    def settled(
        self, looked: "Looked", query: Floats, k: int, step: "Step", question: "Question"
    ) -> bool:
        """Whether no other vector can be among the k nearest, as far as the kind can tell."""
        if looked.rows >= len(question.members.distinct):
            return True
        if len(looked.ids) < k or not step.finder.exhaustive:
            return len(looked.ids) >= k
        norm = float(np.square(query, dtype=np.float64).sum())
        # Twice: once for the candidate farthest off, once for the vector left out.
        unsure = 2 * ROUNDING * (norm + self.manifest.largest)
        return bool(looked.squared[k - 1] < looked.farthest - unsure)


@dataclass(frozen=True)
class Step:
    """Whom to ask for how many candidates with what effort."""

    finder: Candidates
    count: int
    effort: int

    def propose(self, queries: Floats, view: View) -> Ids:
        """Ask."""
        return self.finder.propose(queries, self.count, view, self.effort)


@dataclass(frozen=True)
class Looked:
    """Candidates by their exact distances, nearest first, ties by id.

    rows: how many different ones were looked at; farthest: the largest squared distance of them.
    """

    ids: Ids
    copies: Ids
    squared: Doubles
    rows: int
    farthest: float

    def and_more(self, ids: Ids, copies: Ids, squared: Doubles, farthest: float) -> "Looked":
        """These and others, in their order."""
        every = np.concatenate([self.squared, squared])
        names = np.concatenate([self.ids, ids])
        order = np.lexsort((names, every))
        return Looked(
            names[order],
            np.concatenate([self.copies, copies])[order],
            every[order],
            self.rows,
            max(self.farthest, farthest),
        )


class Question:
    """Which images count, for one call."""

    def __init__(
        self, everything: Members, classes: Collection[int] | None, without: int | None
    ) -> None:
        """Raises QueryError for classes that no image is of."""
        self.members, self.without = everything, without
        rows = None
        if classes is not None:
            self.members = everything.of(classes)
            if not len(self.members):
                named = ", ".join(map(str, sorted(classes))) or "no class at all"
                raise QueryError(f"the index has no image of the classes asked for: {named}")
            rows = self.members.distinct
        chosen = None if classes is None else tuple(sorted(int(c) for c in classes))
        self.view = View(rows, chosen, without)

    @property
    def available(self) -> int:
        """How many entries there can be at most."""
        row = self.members.row_of(self.without)
        alone = row is not None and self.members.told(np.array([row]), self.without)[1][0] == 0
        return len(self.members.distinct) - int(alone)

    def answer(self, vectors: Vectors, query: Floats, rows: Ids, k: int) -> Looked:
        """The candidates that count and may be among the k nearest, by exact distance."""
        different = np.unique(rows[rows >= 0])
        ids, copies = self.members.told(different, self.without)
        counts = copies > 0
        kept, ids, copies = different[counts], ids[counts], copies[counts]
        best = Looked(ids[:0], copies[:0], np.empty(0), len(different), 0.0)
        for start in range(0, len(kept), CHUNK):
            part = slice(start, start + CHUNK)
            values = vectors.take(kept[part])
            rough = rough_squared(values, query)
            # float32's sums may be wrong in their last digits; those far off are not needed.
            last = min(k, len(rough)) - 1
            near = rough <= np.partition(rough, last)[last] * (1 + 4 * ROUNDING)
            best = best.and_more(
                ids[part][near],
                copies[part][near],
                exact_squared(values[near], query),
                float(rough.max()) * (1 - 2 * ROUNDING),
            )
        return best


def rough_squared(values: Floats, query: Floats) -> Floats:
    """Squared distances in float32: [n, 4096] and [4096] → [n]."""
    difference = torch.from_numpy(values) - torch.from_numpy(query)
    found: Floats = difference.square_().sum(1).numpy()
    return found


def exact_squared(values: Floats, query: Floats) -> Doubles:
    """Squared distances in float64: [n, 4096] and [4096] → [n]."""
    difference = values.astype(np.float64) - query
    # Not einsum or a product: their order of summation could depend on how many there are.
    distances: Doubles = np.square(difference, out=difference).sum(axis=1)
    return distances

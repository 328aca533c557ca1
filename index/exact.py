"""Every vector compared: what is asked of a small index, of a small class, and for the truth."""

from collections.abc import Iterator

import faiss
import numpy as np

from index.candidates import View
from index.id_map import Members
from index.vectors import CHUNK, Floats, Ids, Vectors


class Exact:
    """Proposes the nearest rows of all, up to the rounding of FAISS's float32 distances.

    `alive`: int64, the rows that an image points to, rising; None when all are.
    """

    levels, exhaustive = 1, True

    def __init__(self, vectors: Vectors, alive: Ids | None = None) -> None:
        self.vectors, self.alive = vectors, alive

    @classmethod
    def of(cls, vectors: Vectors, members: Members) -> "Exact":
        """Compares with the rows that an image points to."""
        return cls(vectors, None if len(members.distinct) == len(vectors) else members.distinct)

    def propose(self, queries: Floats, count: int, view: View, effort: int = 0) -> Ids:
        """As `Candidates.propose`: the nearest `count` rows, nearest first."""
        rows = self.alive if view.rows is None else view.rows
        count = min(count, len(self.vectors) if rows is None else len(rows))
        best = np.full((len(queries), 0), -1, np.int64)
        distances = np.full((len(queries), 0), np.inf, np.float32)
        for numbers, values in self.parts(rows):
            near, places = faiss.knn(queries, values, min(count, len(values)))
            distances = np.concatenate([distances, near], axis=1)
            best = np.concatenate([best, numbers[places]], axis=1)
            if best.shape[1] > count:
                order = np.argpartition(distances, count - 1, axis=1)[:, :count]
                distances = np.take_along_axis(distances, order, axis=1)
                best = np.take_along_axis(best, order, axis=1)
        order = np.argsort(distances, axis=1, kind="stable")
        return np.take_along_axis(best, order, axis=1)

    def parts(self, rows: Ids | None) -> Iterator[tuple[Ids, Floats]]:
        """Row numbers and their vectors, part by part."""
        if rows is not None and 4 * len(rows) < len(self.vectors):
            for start in range(0, len(rows), CHUNK):
                some = rows[start : start + CHUNK]
                yield some, self.vectors.take(some)
            return
        yield from self.vectors.parts(rows)

"""Every vector compared: what is asked of a small index, of a small class, and for the truth."""

from collections.abc import Iterator

import faiss
import numpy as np

from index.candidates import RowFilter
from index.id_map import IdMap
from index.vectors import ROWS_PER_CHUNK, Floats, Ids, Vectors


class ExactSearch:
    """Proposes the nearest rows of all, up to the rounding of FAISS's float32 distances.

    `alive`: int64, the rows that an image points to, rising; None when all are.
    """

    levels, exhaustive = 1, True

    def __init__(self, vectors: Vectors, alive: Ids | None = None) -> None:
        self.vectors, self.live_rows = vectors, alive

    @classmethod
    def for_id_map(cls, vectors: Vectors, members: IdMap) -> "ExactSearch":
        """Compares with the rows that an image points to."""
        return cls(vectors, None if len(members.live_rows) == len(vectors) else members.live_rows)

    def propose(self, queries: Floats, count: int, view: RowFilter, effort: int = 0) -> Ids:
        """As `SearchEngine.propose`: the nearest `count` rows, nearest first."""
        rows = self.live_rows if view.rows is None else view.rows
        count = min(count, len(self.vectors) if rows is None else len(rows))
        best = np.full((len(queries), 0), -1, np.int64)
        distances = np.full((len(queries), 0), np.inf, np.float32)
        for numbers, values in self.read_rows(rows):
            near, places = faiss.knn(queries, values, min(count, len(values)))
            distances = np.concatenate([distances, near], axis=1)
            best = np.concatenate([best, numbers[places]], axis=1)
            if best.shape[1] > count:
                order = np.argpartition(distances, count - 1, axis=1)[:, :count]
                distances = np.take_along_axis(distances, order, axis=1)
                best = np.take_along_axis(best, order, axis=1)
        order = np.argsort(distances, axis=1, kind="stable")
        return np.take_along_axis(best, order, axis=1)

    def read_rows(self, rows: Ids | None) -> Iterator[tuple[Ids, Floats]]:
        """Row numbers and their vectors, part by part."""
        if rows is not None and 4 * len(rows) < len(self.vectors):
            for start in range(0, len(rows), ROWS_PER_CHUNK):
                some = rows[start : start + ROWS_PER_CHUNK]
                yield some, self.vectors.take(some)
            return
        yield from self.vectors.chunks_of(rows)

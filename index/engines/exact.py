"""The kind `exact`: every vector is compared.

It serves small indexes and searches within small classes, and is the ground truth that other kinds
are measured against.
"""

from collections.abc import Iterator, Mapping
from typing import Any

import faiss
import numpy as np

from index.engines.device import Placement, open_on_gpus, place_index
from index.engines.protocol import RowFilter, SearchEngine, VersionData
from index.id_map import IdMap
from index.vectors import ROWS_PER_CHUNK, Floats, Ids, Vectors
from model.config import FEATURES


def open_exact(version: VersionData, _parameters: Mapping[str, Any]) -> SearchEngine:
    """Open the exact search of a version, on GPUs if they have room."""
    vectors, rows = version.vectors, version.id_map.live_rows
    placement = place_index(version.device, "exact", len(rows))
    return open_on_gpus(
        ExactSearch.for_id_map(vectors, version.id_map),
        placement,
        lambda: GpuVectors(vectors, rows, placement),
        # Half precision of float32 vectors loses digits, so the nearest may be missed.
        exhaustive=vectors.dtype == "float16" or not placement.float16,
    )


class ExactSearch:
    """Proposes the nearest of all rows, up to the rounding of FAISS's float32 distances.

    live_rows: int64, ascending, the rows that an image points to; None for all.
    """

    levels, exhaustive = 1, True

    def __init__(self, vectors: Vectors, live_rows: Ids | None = None) -> None:
        self.vectors, self.live_rows = vectors, live_rows

    @classmethod
    def for_id_map(cls, vectors: Vectors, id_map: IdMap) -> "ExactSearch":
        """Create a search of the rows that an image points to."""
        return cls(vectors, None if len(id_map.live_rows) == len(vectors) else id_map.live_rows)

    def propose(self, queries: Floats, count: int, row_filter: RowFilter, effort: int = 0) -> Ids:
        """As `SearchEngine.propose`; nearest first."""
        rows = self.live_rows if row_filter.rows is None else row_filter.rows
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
        """Yield rows in chunks: numbers int64 [n] and vectors float32 [n, 4096]."""
        if rows is not None and 4 * len(rows) < len(self.vectors):
            for start in range(0, len(rows), ROWS_PER_CHUNK):
                part = rows[start : start + ROWS_PER_CHUNK]
                yield part, self.vectors.take(part)
            return
        yield from self.vectors.read_row_chunks(rows)


class GpuVectors:
    """All live vectors on one GPU, or an equal part of them on each of several."""

    def __init__(self, vectors: Vectors, rows: Ids, placement: Placement) -> None:
        """Copy rows, int64 ascending, in chunks. Raises RuntimeError if a GPU fails."""
        self.rows = rows
        # FAISS does not keep the resources of an index alive.
        self.resources = [faiss.StandardGpuResources() for _ in placement.gpus]
        self.parts = [
            make_empty_gpu_index(gpu, resources, placement.float16)
            for gpu, resources in zip(placement.gpus, self.resources, strict=True)
        ]
        self.rows_per_gpu = -(-len(rows) // len(self.parts))
        done = 0
        for _, values in vectors.read_row_chunks(rows):
            while len(values):
                number = done // self.rows_per_gpu
                part = values[: (number + 1) * self.rows_per_gpu - done]
                self.parts[number].add(part)
                done, values = done + len(part), values[len(part) :]

    def search(self, queries: Floats, count: int, effort: int) -> Ids:
        """As `GpuIndex.search`; merges the nearest of every GPU."""
        best = faiss.ResultHeap(len(queries), count)
        for number, part in enumerate(self.parts):
            distances, places = part.search(queries, count)
            places[places >= 0] += number * self.rows_per_gpu
            best.add_result(distances, places)
        best.finalize()
        found: Ids = best.I
        found[found >= 0] = self.rows[found[found >= 0]]
        return found


def make_empty_gpu_index(gpu: int, resources: Any, float16: bool) -> Any:
    """Make an empty flat index on a GPU."""
    config = faiss.GpuIndexFlatConfig()
    config.device, config.useFloat16 = gpu, float16
    return faiss.GpuIndexFlatL2(resources, FEATURES, config)

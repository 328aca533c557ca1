"""The kind `exact`: GPUs compare every vector; without them index/exact.py proves each answer.

FAISS is imported on GPUs only: a server that searches on the CPU does without it and its 100 MB.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from index.engines.device import Placement, open_on_gpus, place_index
from index.engines.protocol import RowFilter, SearchEngine, VersionData
from index.vectors import Floats, Ids, Vectors
from model.network.config import FEATURES


def open_exact(version: VersionData, _parameters: Mapping[str, Any]) -> SearchEngine | None:
    """Copy a version's vectors to GPUs if they have room; else None."""
    vectors, rows = version.vectors, version.id_map.live_rows
    placement = place_index(version.device, "exact", len(rows))
    if not placement.gpus:
        return None
    # Half precision of float32 vectors loses digits, so the nearest may be missed.
    exhaustive = vectors.dtype == "float16" or not placement.float16
    return open_on_gpus(
        NoProposals(),
        placement,
        lambda: GpuVectors(vectors, rows, placement),
        exhaustive=exhaustive,
    )


class NoProposals:
    """Proposes nothing, so that the exact search takes over where a GPU cannot answer."""

    levels, exhaustive, filters = 1, False, False

    def propose(self, queries: Floats, count: int, row_filter: RowFilter, effort: int) -> Ids:
        """As `SearchEngine.propose`: padding only."""
        return np.full((len(queries), count), -1, np.int64)


class GpuVectors:
    """All live vectors on one GPU, or an equal part of them on each of several."""

    def __init__(self, vectors: Vectors, rows: Ids, placement: Placement) -> None:
        """Copy rows, int64 ascending, in chunks. Raises RuntimeError if a GPU fails."""
        import faiss

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
        import faiss

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
    import faiss

    config = faiss.GpuIndexFlatConfig()
    config.device, config.useFloat16 = gpu, float16
    return faiss.GpuIndexFlatL2(resources, FEATURES, config)

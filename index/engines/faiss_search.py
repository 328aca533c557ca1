"""Rows proposed by a FAISS index, on the CPU or a GPU."""

import logging
import threading
from typing import Any

import faiss
import numpy as np

from index.candidates import RowFilter
from index.engines.device import MAX_GPU_NEIGHBOURS, Placement, copy_to_gpus
from index.vectors import Floats, Ids

log = logging.getLogger(__name__)
MIN_EF_SEARCH = 64
"""hnsw: efSearch at effort 0, doubled with each effort: how many rows the walk keeps in view."""
MAX_EF_SEARCH = 4096
engine: Any = faiss
"""FAISS with what its type stubs leave out."""


class FaissSearch:
    """A mapped FAISS index of the kind ivf, pq or hnsw; many threads may search at once."""

    exhaustive = False

    def __init__(self, kind: str, index: Any) -> None:
        self.kind, self.index = kind, index
        self.shape: dict[str, int] = {} if kind == "hnsw" else list_shape(index)
        self.lists = self.shape.get("lists", 0)
        widest = MAX_EF_SEARCH // MIN_EF_SEARCH if kind == "hnsw" else self.lists
        self.levels = (widest - 1).bit_length() + 1

    def propose(self, queries: Floats, count: int, view: RowFilter, effort: int) -> Ids:
        """As `SearchEngine.propose`, nearest first as far as the reduced vectors tell."""
        found: Ids = self.index.search(
            queries, count, params=self.search_parameters(effort, count, view)
        )[1]
        return found

    def search_parameters(self, effort: int, count: int, view: RowFilter | None = None) -> Any:
        """FAISS's parameters of one search: nothing of the index itself is changed."""
        chosen: dict[str, Any] = {}
        if view is not None and view.rows is not None:
            chosen["sel"] = row_selector(view.rows)
        if self.kind == "hnsw":
            # A walk that keeps fewer in view than are asked for ends early.
            width = max(MIN_EF_SEARCH << effort, count)
            return engine.SearchParametersHNSW(efSearch=width, **chosen)
        probes = min(1 << effort, self.lists)
        make = engine.IVFPQSearchParameters if self.kind == "pq" else engine.SearchParametersIVF
        return make(nprobe=probes, **chosen)


def list_shape(index: Any) -> dict[str, int]:
    """What inverted lists' size in memory follows from."""
    core: Any = faiss.extract_index_ivf(index)
    return {"dimensions": core.d, "lists": core.nlist, "bytes": core.code_size}


def row_selector(rows: Ids) -> Any:
    """Lets only these rows through: a bit each, up to the highest."""
    bits = np.zeros(int(rows[-1]) + 1 if len(rows) else 1, bool)
    bits[rows] = True
    return engine.IDSelectorBitmap(np.packbits(bits, bitorder="little"))


class GpuFaissSearch:
    """A copy of an index on GPUs, and the index itself for what a GPU cannot do.

    That is a view of some rows, more than 2048 candidates, and everything once a GPU has failed.
    """

    exhaustive = False

    def __init__(self, on_cpu: FaissSearch, placement: Placement) -> None:
        self.on_cpu, self.levels = on_cpu, on_cpu.levels
        self.lock = threading.Lock()
        self.copy: Any = copy_to_gpus(on_cpu.index, placement)

    def propose(self, queries: Floats, count: int, view: RowFilter, effort: int) -> Ids:
        """As `SearchEngine.propose`."""
        if self.copy is not None and view.rows is None and count <= MAX_GPU_NEIGHBOURS:
            # A GPU's work space is for one search at a time.
            with self.lock:
                try:
                    return self.ask(queries, count, effort)
                except RuntimeError as error:
                    log.warning("The index is searched on the CPU: the GPU failed: %s", error)
                    self.copy = None
        return self.on_cpu.propose(queries, count, view, effort)

    def ask(self, queries: Floats, count: int, effort: int) -> Ids:
        """Ask the GPU. Raises RuntimeError when it fails."""
        if self.copy is None:
            raise RuntimeError("it failed for another thread")
        # More than 2048 lists at a time are beyond a GPU.
        bounded = min(effort, MAX_GPU_NEIGHBOURS.bit_length() - 1)
        found: Ids = self.copy.search(
            queries, count, params=self.on_cpu.search_parameters(bounded, count)
        )[1]
        return found

"""The kinds `ivf`, `pq` and `hnsw`: rows proposed by a FAISS index, on the CPU or on GPUs."""

from collections.abc import Mapping
from typing import Any

import faiss

from index.damage import OpenedFile
from index.engines.device import MAX_GPU_NEIGHBOURS, Placement, open_on_gpus, place_index
from index.engines.faiss_file import FAISS_FILE, read_faiss
from index.engines.protocol import RowFilter, SearchEngine, VersionData
from index.vectors import Floats, Ids

MIN_EF_SEARCH = 64
"""hnsw: efSearch, the length of the candidate list, at effort 0; it doubles with each effort."""
MAX_EF_SEARCH = 4096
untyped_faiss: Any = faiss
"""FAISS without its type stubs, which lack some names."""


def open_faiss(kind: str, version: VersionData, _parameters: Mapping[str, Any]) -> SearchEngine:
    """Open the FAISS index of a version. Raises StoreError for a missing or damaged file."""
    # Opened first: what is mapped is then this file or, if it was replaced since, damaged anyway.
    file = OpenedFile(version.folder / FAISS_FILE)
    on_cpu = FaissSearch(kind, read_faiss(kind, version.folder), file)
    placement = place_index(version.device, kind, on_cpu.index.ntotal, on_cpu.list_shape)
    return open_on_gpus(on_cpu, placement, lambda: GpuLists(on_cpu, placement))


class FaissSearch:
    """A mapped FAISS index of the kind ivf, pq or hnsw; several threads may search at once."""

    exhaustive, filters = False, False

    def __init__(self, kind: str, index: Any, file: OpenedFile | None = None) -> None:
        """file: the one that is mapped, whose size is checked before each search."""
        self.kind, self.index, self.file = kind, index, file
        self.list_shape: dict[str, int] = {} if kind == "hnsw" else describe_lists(index)
        self.lists = self.list_shape.get("lists", 0)
        most_visited = MAX_EF_SEARCH // MIN_EF_SEARCH if kind == "hnsw" else self.lists
        self.levels = (most_visited - 1).bit_length() + 1

    def propose(self, queries: Floats, count: int, row_filter: RowFilter, effort: int) -> Ids:
        """As `SearchEngine.propose`; nearest first by the reduced vectors.

        Raises DamageError.
        """
        if self.file is not None:
            self.file.check_size()
        parameters = self.make_search_parameters(effort, count)
        found: Ids = self.index.search(queries, count, params=parameters)[1]
        return found

    def make_search_parameters(self, effort: int, count: int) -> Any:
        """Make FAISS's parameters for one search; the index itself is not changed."""
        if self.kind == "hnsw":
            # With efSearch below the number requested the search would return fewer.
            width = max(MIN_EF_SEARCH << effort, count)
            return untyped_faiss.SearchParametersHNSW(efSearch=width)
        probes = min(1 << effort, self.lists)
        if self.kind == "pq":
            return untyped_faiss.IVFPQSearchParameters(nprobe=probes)
        return untyped_faiss.SearchParametersIVF(nprobe=probes)


def describe_lists(index: Any) -> dict[str, int]:
    """Return the numbers that determine the memory of inverted lists."""
    core: Any = faiss.extract_index_ivf(index)
    return {"dimensions": core.d, "lists": core.nlist, "bytes": core.code_size}


class GpuLists:
    """A copy of inverted lists on GPUs, shared among them."""

    def __init__(self, on_cpu: FaissSearch, placement: Placement) -> None:
        """Copy the lists. Raises RuntimeError if a GPU fails."""
        self.on_cpu = on_cpu
        self.resources = [untyped_faiss.StandardGpuResources() for _ in placement.gpus]
        options = untyped_faiss.GpuMultipleClonerOptions()
        options.shard, options.useFloat16 = True, placement.float16
        self.copy = untyped_faiss.index_cpu_to_gpu_multiple_py(
            self.resources, on_cpu.index, options, list(placement.gpus)
        )

    def search(self, queries: Floats, count: int, effort: int) -> Ids:
        """As `GpuIndex.search`."""
        # A GPU cannot search more than 2048 lists at a time.
        effort = min(effort, MAX_GPU_NEIGHBOURS.bit_length() - 1)
        parameters = self.on_cpu.make_search_parameters(effort, count)
        found: Ids = self.copy.search(queries, count, params=parameters)[1]
        return found

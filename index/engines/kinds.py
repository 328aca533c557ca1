"""The kinds of an index: which there are, which one to choose, how each is made and opened.

`exact` compares every vector (index/exact.py). The others propose rows from something smaller:
`ivf` sorts reduced vectors into lists and looks into the nearest, `pq` does so with codes of a few
bytes, `hnsw` walks a graph of them, `binary` compares the bits that an autoencoder gives.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from index.candidates import SearchEngine
from index.engines import faiss_train
from index.engines.device import gpu_bytes_needed, place_index
from index.engines.faiss_search import FaissSearch, GpuFaissSearch
from index.engines.filed import read_faiss
from index.engines.options import EngineOptions
from index.engines.reduction import Mask, live_rows
from index.manifest import StoreError
from index.placing import SearchDevice
from index.progress import Report
from index.vectors import Vectors
from model.config import FEATURES

__all__ = [
    "KINDS",
    "EngineOptions",
    "KindChoice",
    "choose_kind",
    "open_candidates",
    "train",
    "update_from",
]
KINDS = ("exact", "ivf", "hnsw", "pq", "binary")
MAX_EXACT_ROWS = 20_000
"""Up to so many vectors every one is compared: 10,000 take one core about 15 ms."""
MAX_EXACT_MEMORY_SHARE = 0.25
"""And only while they fill no more than this share of the memory, where they have to stay."""


@dataclass(frozen=True, kw_only=True)
class KindChoice:
    """A kind and why, in a sentence."""

    kind: str
    reason: str


def choose_kind(count: int, memory: int | None = None, dtype: str = "float32") -> KindChoice:
    """The kind for so many vectors on a machine with so many bytes of memory; None: this one."""
    memory = physical_memory() if memory is None else memory
    needed = count * FEATURES * np.dtype(dtype).itemsize
    if count > MAX_EXACT_ROWS:
        return KindChoice(
            kind="pq",
            reason=f"{count:,} vectors are more than the {MAX_EXACT_ROWS:,} that are worth "
            "comparing one by one.",
        )
    if needed > MAX_EXACT_MEMORY_SHARE * memory:
        return KindChoice(
            kind="pq",
            reason=f"{count:,} vectors take {needed / 2**20:,.0f} MiB, more than "
            f"{MAX_EXACT_MEMORY_SHARE:.0%} of the {memory / 2**20:,.0f} MiB of memory.",
        )
    return KindChoice(
        kind="exact",
        reason=f"{count:,} vectors are few enough to compare every one of them "
        f"(up to {MAX_EXACT_ROWS:,}).",
    )


def physical_memory() -> int:
    """The memory of this machine."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def train(
    kind: str,
    vectors: Vectors,
    alive: Mask | None,
    folder: Path,
    options: EngineOptions,
    report: Report,
) -> dict[str, Any]:
    """Make a kind's files, candidates.*, in a folder, and give its parameters.

    alive: bool, a row each; None when every row is. Raises StoreError for a kind that has no
    files or no vector to begin with, and OSError when it cannot be written.
    """
    if not len(live_rows(vectors, alive)):
        raise StoreError("No vector is alive, so there is nothing to index")
    if kind == "binary":
        from index.engines import binary

        return dict(binary.train_binary(vectors, alive, folder, options, report))
    if kind not in faiss_train.KINDS:
        raise StoreError(f"The kind {kind} has nothing to train; there are {', '.join(KINDS)}")
    return faiss_train.train_faiss(kind, vectors, alive, folder, options, report)


def update_from(
    kind: str,
    before: Path,
    vectors: Vectors,
    alive: Mask | None,
    folder: Path,
    parameters: Mapping[str, Any],
    report: Report,
) -> dict[str, Any]:
    """As `train`, with what was trained for an earlier version, in the folder `before`.

    `parameters` are those of that version. Every living row is added anew. Raises StoreError,
    also when the earlier version's files are damaged, and OSError.
    """
    if not len(live_rows(vectors, alive)):
        raise StoreError("No vector is alive, so there is nothing to index")
    if kind == "binary":
        from index.engines import binary

        made = binary.update_binary(before, vectors, alive, folder, parameters, report)
        return dict(made)
    if kind not in faiss_train.KINDS:
        raise StoreError(f"The kind {kind} has nothing to update; there are {', '.join(KINDS)}")
    return faiss_train.update_faiss(kind, before, vectors, alive, folder, parameters, report)


def open_candidates(
    kind: str, folder: Path, parameters: Mapping[str, Any], placing: SearchDevice
) -> SearchEngine:
    """What proposes for a version of any kind but `exact`, where it is to be searched.

    Raises StoreError for files that are missing or damaged.
    """
    if kind == "binary":
        from index.engines import binary

        opened: SearchEngine = binary.open_binary(folder, parameters)
        return opened
    if kind not in faiss_train.KINDS:
        raise StoreError(f"The kind {kind} has no file of candidates")
    on_cpu = FaissSearch(kind, read_faiss(kind, folder))
    needed = gpu_bytes_needed(kind, on_cpu.index.ntotal, on_cpu.shape, placing.float16)
    placement = place_index(placing.device, kind, needed, placing.float16)
    return GpuFaissSearch(on_cpu, placement) if placement.gpus else on_cpu

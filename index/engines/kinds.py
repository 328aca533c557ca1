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

from index.candidates import Candidates
from index.engines import faiss_train
from index.engines.device import decide, needed_bytes
from index.engines.faiss_search import Approximate, OnGpu
from index.engines.filed import read_file
from index.engines.options import Options
from index.engines.reduction import Mask, living
from index.manifest import StoreError
from index.placing import Placing
from index.progress import Report
from index.vectors import Vectors
from model.alexnet import FEATURES

__all__ = [
    "KINDS",
    "Choice",
    "Options",
    "choose_kind",
    "open_candidates",
    "train",
    "update_from",
]
KINDS = ("exact", "ivf", "hnsw", "pq", "binary")
EXACT_ROWS = 20_000
"""Up to so many vectors every one is compared: 10,000 take one core about 15 ms."""
EXACT_SHARE = 0.25
"""And only while they fill no more than this share of the memory, where they have to stay."""


@dataclass(frozen=True, kw_only=True)
class Choice:
    """A kind and why, in a sentence."""

    kind: str
    reason: str


def choose_kind(count: int, memory: int | None = None, dtype: str = "float32") -> Choice:
    """The kind for so many vectors on a machine with so many bytes of memory; None: this one."""
    memory = memory_bytes() if memory is None else memory
    needed = count * FEATURES * np.dtype(dtype).itemsize
    if count > EXACT_ROWS:
        return Choice(
            kind="pq",
            reason=f"{count:,} vectors are more than the {EXACT_ROWS:,} that are worth comparing "
            "one by one.",
        )
    if needed > EXACT_SHARE * memory:
        return Choice(
            kind="pq",
            reason=f"{count:,} vectors take {needed / 2**20:,.0f} MiB, more than "
            f"{EXACT_SHARE:.0%} of the {memory / 2**20:,.0f} MiB of memory.",
        )
    return Choice(
        kind="exact",
        reason=f"{count:,} vectors are few enough to compare every one of them "
        f"(up to {EXACT_ROWS:,}).",
    )


def memory_bytes() -> int:
    """The memory of this machine."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def train(
    kind: str,
    vectors: Vectors,
    alive: Mask | None,
    folder: Path,
    options: Options,
    report: Report,
) -> dict[str, Any]:
    """Make a kind's files, candidates.*, in a folder, and give its parameters.

    alive: bool, a row each; None when every row is. Raises StoreError for a kind that has no
    files or no vector to begin with, and OSError when it cannot be written.
    """
    if not len(living(vectors, alive)):
        raise StoreError("No vector is alive, so there is nothing to index")
    if kind == "binary":
        from index.engines import binary

        return dict(binary.train(vectors, alive, folder, options, report))
    if kind not in faiss_train.KINDS:
        raise StoreError(f"The kind {kind} has nothing to train; there are {', '.join(KINDS)}")
    return faiss_train.build(kind, vectors, alive, folder, options, report)


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
    if not len(living(vectors, alive)):
        raise StoreError("No vector is alive, so there is nothing to index")
    if kind == "binary":
        from index.engines import binary

        made = binary.update_from(before, vectors, alive, folder, parameters, report)
        return dict(made)
    if kind not in faiss_train.KINDS:
        raise StoreError(f"The kind {kind} has nothing to update; there are {', '.join(KINDS)}")
    return faiss_train.build_from(kind, before, vectors, alive, folder, parameters, report)


def open_candidates(
    kind: str, folder: Path, parameters: Mapping[str, Any], placing: Placing
) -> Candidates:
    """What proposes for a version of any kind but `exact`, where it is to be searched.

    Raises StoreError for files that are missing or damaged.
    """
    if kind == "binary":
        from index.engines import binary

        opened: Candidates = binary.open_binary(folder, parameters)
        return opened
    if kind not in faiss_train.KINDS:
        raise StoreError(f"The kind {kind} has no file of candidates")
    on_cpu = Approximate(kind, read_file(kind, folder))
    needed = needed_bytes(kind, on_cpu.index.ntotal, on_cpu.shape, placing.float16)
    placement = decide(placing.device, kind, needed, placing.float16)
    return OnGpu(on_cpu, placement) if placement.gpus else on_cpu

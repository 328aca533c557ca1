"""The FAISS file of a kind: written so that a full disk is noticed, read by mapping it."""

from pathlib import Path
from typing import Any

import faiss

from index.manifest import REBUILD_HINT, StoreError

FAISS_FILE = "candidates.faiss"
WRITE_CHUNK = 1 << 20
"""Bytes that FAISS hands over at a time."""
MAP_LISTS = faiss.IO_FLAG_MMAP | faiss.IO_FLAG_READ_ONLY | faiss.IO_FLAG_SKIP_PRECOMPUTE_TABLE
"""Inverted lists stay in the file: the system's page cache holds them once for all processes."""
MAP_GRAPH = faiss.IO_FLAG_MMAP_IFC
"""The same for flat codes and the links of a graph."""


def write_faiss(index: faiss.Index, folder: Path) -> None:
    """Write the FAISS file into a version's folder. Raises OSError."""
    with (folder / FAISS_FILE).open("wb") as out:
        # FAISS closes its own files without a word when the disk is full; Python tells.
        writer = faiss.PyCallbackIOWriter(out.write, WRITE_CHUNK)  # type: ignore[attr-defined]
        faiss.write_index(index, writer)


def read_faiss(kind: str, folder: Path) -> Any:
    """The FAISS index of a version's folder, mapped; it outlives its folder. Raises StoreError."""
    file = folder / FAISS_FILE
    try:
        index: Any = faiss.read_index(str(file), MAP_GRAPH if kind == "hnsw" else MAP_LISTS)
    except (RuntimeError, MemoryError) as error:
        raise StoreError(
            f"FAISS cannot read {file} ({faiss_message(error)}); {REBUILD_HINT}"
        ) from error
    shape = faiss.IndexIDMap if kind == "hnsw" else faiss.IndexPreTransform
    if not isinstance(index, shape):
        raise StoreError(f"{file} is not of the kind {kind}; {REBUILD_HINT}")
    if kind != "hnsw":
        core: Any = faiss.extract_index_ivf(index)
        lists = faiss.downcast_InvertedLists(core.invlists)
        if isinstance(lists, faiss.OnDiskInvertedLists):
            # Else every search starts threads that read ahead.
            lists.prefetch_nthread = 0
    return index


def faiss_message(error: BaseException) -> str:
    """What FAISS says, without where in its source it says so."""
    return str(error).rpartition("Error: ")[2]

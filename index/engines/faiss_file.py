"""FAISS index files: written so that a full disk is noticed, and read by memory-mapping."""

from pathlib import Path
from typing import Any

import faiss

from index.manifest import REBUILD_HINT, StoreError

FAISS_FILE = "candidates.faiss"
WRITE_CHUNK = 1 << 20
"""Bytes that FAISS writes at a time."""
MAP_LISTS_FLAGS = faiss.IO_FLAG_MMAP | faiss.IO_FLAG_READ_ONLY | faiss.IO_FLAG_SKIP_PRECOMPUTE_TABLE
"""Inverted lists stay in the file: the system's page cache holds them once for all processes."""
MAP_FLAT_FLAGS = faiss.IO_FLAG_MMAP_IFC
"""The same for flat codes and for the links of a graph."""


def write_faiss(index: faiss.Index, folder: Path) -> None:
    """Write an index into a version's folder. Raises OSError."""
    with (folder / FAISS_FILE).open("wb") as out:
        faiss.write_index(index, make_faiss_writer(out.write))


def make_faiss_writer(write: Any) -> Any:
    """Make a FAISS writer that goes through Python: unlike FAISS, it raises if the disk is full."""
    return faiss.PyCallbackIOWriter(write, WRITE_CHUNK)  # type: ignore[attr-defined]


def read_faiss(kind: str, folder: Path) -> Any:
    """Memory-map the index in a version's folder; it outlives the folder. Raises StoreError."""
    file = folder / FAISS_FILE
    index = read_faiss_file(file, MAP_FLAT_FLAGS if kind == "hnsw" else MAP_LISTS_FLAGS)
    if not isinstance(index, faiss.IndexIDMap if kind == "hnsw" else faiss.IndexPreTransform):
        raise StoreError(f"{file} is not of the kind {kind}; {REBUILD_HINT}")
    if kind != "hnsw":
        core: Any = faiss.extract_index_ivf(index)
        lists = faiss.downcast_InvertedLists(core.invlists)
        if isinstance(lists, faiss.OnDiskInvertedLists):
            # Otherwise every search starts prefetch threads.
            lists.prefetch_nthread = 0
    return index


def read_faiss_file(file: Path, flags: int = 0) -> Any:
    """Read a FAISS file. Raises StoreError."""
    try:
        return faiss.read_index(str(file), flags)
    except (RuntimeError, MemoryError) as error:
        # FAISS puts its source location before the message.
        message = str(error).rpartition("Error: ")[2]
        raise StoreError(f"FAISS cannot read {file} ({message}); {REBUILD_HINT}") from error

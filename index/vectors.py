"""The full vectors on disk, in shards: `.npy` files of float16 or float32 rows.

Shards never change once written, so versions share them by hard links. Rows are numbered through
the shards in order. All processes share what is in memory: single rows and float16 are read by
position through the system's page cache, which counts towards no process; float32 shards are
memory-mapped when all of their rows are compared.
"""

import hashlib
import mmap
import os
import weakref
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from index.manifest import REBUILD_HINT, Shard, StoreError
from model.config import FEATURES
from storage.files import replace_atomically

Floats = npt.NDArray[np.float32]
Doubles = npt.NDArray[np.float64]
Ids = npt.NDArray[np.int64]
DTYPES: dict[str, np.dtype[Any]] = {"float32": np.dtype("<f4"), "float16": np.dtype("<f2")}
ROWS_PER_SHARD = 16384
"""Rows per shard: 128 MiB in float16."""
ROWS_PER_CHUNK = 2048
"""Rows read at a time."""
HEADER_BYTES = 128
"""Bytes before the first row of a shard."""


def write_shard(path: Path, parts: Iterable[npt.NDArray[Any]], dtype: str) -> Shard:
    """Write rows, in parts of [n, 4096], durably to `path`, which must not exist.

    Raises StoreError for a number that is not finite or too large for the dtype, and OSError.
    """
    rows, largest = 0, 0.0
    with replace_atomically(path) as part, part.open("wb") as out:
        out.write(make_npy_header(0, dtype))
        for values in parts:
            stored = convert_rows(values, dtype)
            largest = max(largest, bound_squared_norm(stored))
            out.write(stored.tobytes())
            rows += len(stored)
        out.seek(0)
        out.write(make_npy_header(rows, dtype))
    return Shard(
        file=path.name,
        rows=rows,
        largest=largest,
        bytes=path.stat().st_size,
        sha256=compute_file_sha256(path),
    )


def convert_rows(values: Any, dtype: str) -> npt.NDArray[Any]:
    """Convert rows, [N, 4096], to the stored dtype. Raises StoreError unless all stay finite."""
    rows = np.ascontiguousarray(values, np.float32)
    if rows.ndim != 2 or rows.shape[1] != FEATURES:
        raise StoreError(f"vectors must have the shape [N, {FEATURES}], not {rows.shape}")
    with np.errstate(over="ignore"):
        stored = rows.astype(DTYPES[dtype], copy=False)
    if not np.isfinite(stored).all():
        raise StoreError(
            "features must be finite numbers"
            + " within float16's range" * (dtype == "float16")
            + ": the weights are broken; train anew"
        )
    return stored


def bound_squared_norm(rows: npt.NDArray[Any]) -> float:
    """Compute an upper bound of the largest squared norm of rows; 0 without rows."""
    if not len(rows):
        return 0.0
    wide = rows.astype(np.float32, copy=False)
    norms = np.einsum("ij,ij->i", wide, wide)
    return float(norms.max()) * (1 + 2.0**-10)


def make_npy_header(rows: int, dtype: str) -> bytes:
    """Make the header of an .npy file of so many rows, always 128 bytes."""
    described = f"{{'descr': '{DTYPES[dtype].str}', 'fortran_order': False, "
    described += f"'shape': ({rows}, {FEATURES}), }}"
    return b"\x93NUMPY\x01\x00" + (118).to_bytes(2, "little") + f"{described:<117}\n".encode()


class Vectors:
    """The rows of several shards. Thread-safe.

    The files stay open as long as this object lives, so a deleted version can still be read.
    """

    def __init__(self, folder: Path, shards: Sequence[Shard], dtype: str) -> None:
        """Open the shards. Raises StoreError for one that is missing or has another size."""
        self.dtype, self.stored_dtype = dtype, DTYPES[dtype]
        self.row_bytes = FEATURES * self.stored_dtype.itemsize
        self.starts = np.cumsum([0, *(shard.rows for shard in shards)])
        self.files: list[int] = []
        self.maps: dict[int, Floats] = {}
        weakref.finalize(self, close_files, self.files)
        for shard in shards:
            self.files.append(open_shard(folder / shard.file, shard, self.dtype))

    def __len__(self) -> int:
        return int(self.starts[-1])

    def take(self, rows: Any) -> Floats:
        """Read rows, in this order: int64 [n] → float32 [n, 4096]. Raises StoreError."""
        wanted = np.asarray(rows, np.int64)
        found = np.empty((len(wanted), FEATURES), self.stored_dtype)
        shards = np.searchsorted(self.starts, wanted, side="right") - 1
        places = HEADER_BYTES + (wanted - self.starts[shards]) * self.row_bytes
        for target, shard, place in zip(found, shards.tolist(), places.tolist(), strict=True):
            read_exactly(self.files[shard], target, place)
        return to_float32(found)

    def read_chunks(self, size: int = ROWS_PER_CHUNK) -> Iterator[tuple[int, Floats]]:
        """Yield all rows in order: the first row's number, and float32 [n, 4096], n ≤ `size`."""
        for number, file in enumerate(self.files):
            first, end = int(self.starts[number]), int(self.starts[number + 1])
            mapped = (
                self.map_shard(number) if self.stored_dtype.itemsize == 4 and end > first else None
            )
            for start in range(first, end, size):
                if mapped is not None:
                    yield start, mapped[start - first : start - first + size]
                    continue
                rows = np.empty((min(size, end - start), FEATURES), self.stored_dtype)
                read_exactly(file, rows, HEADER_BYTES + (start - first) * self.row_bytes)
                yield start, to_float32(rows)

    def read_row_chunks(self, rows: Ids | None = None) -> Iterator[tuple[Ids, Floats]]:
        """Yield rows, int64 ascending, or all, in chunks: int64 [n] and float32 [n, 4096]."""
        for start, values in self.read_chunks():
            end = start + len(values)
            if rows is None:
                yield np.arange(start, end), values
                continue
            low, high = np.searchsorted(rows, (start, end))
            if high - low == len(values):
                yield rows[low:high], values
            elif high > low:
                yield rows[low:high], values[rows[low:high] - start]

    def map_shard(self, number: int) -> Floats:
        """Memory-map a float32 shard, once for the life of this object."""
        if number not in self.maps:
            shape = int(self.starts[number + 1] - self.starts[number]), FEATURES
            held = mmap.mmap(self.files[number], 0, access=mmap.ACCESS_READ)
            self.maps[number] = np.ndarray(shape, self.stored_dtype, held, HEADER_BYTES)
        return self.maps[number]


def open_shard(path: Path, shard: Shard, dtype: str) -> int:
    """Open a shard's file, and check its size and header. Raises StoreError."""
    try:
        file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise StoreError(f"{path} cannot be read ({error.strerror}); {REBUILD_HINT}") from error
    wanted = HEADER_BYTES + shard.rows * FEATURES * DTYPES[dtype].itemsize
    whole = os.fstat(file).st_size == wanted == shard.bytes
    if whole and os.pread(file, HEADER_BYTES, 0) == make_npy_header(shard.rows, dtype):
        return file
    os.close(file)
    raise StoreError(f"{path} is damaged: it does not hold {shard.rows:,} vectors; {REBUILD_HINT}")


def close_files(files: list[int]) -> None:
    """Close files."""
    while files:
        os.close(files.pop())


def read_exactly(file: int, target: npt.NDArray[Any], place: int) -> None:
    """Fill an array with a file's bytes from `place` on. Raises StoreError if there are too few."""
    view = target.data.cast("B")
    done = 0
    while done < len(view):
        count = os.preadv(file, [view[done:]], place + done)
        if not count:
            raise StoreError(
                f"A file of the index became shorter while it was read; {REBUILD_HINT}"
            )
        done += count


def to_float32(rows: npt.NDArray[Any]) -> Floats:
    """Convert rows to float32; torch converts float16 several times as fast as NumPy."""
    if rows.dtype == np.float32:
        return rows
    wide: Floats = torch.from_numpy(rows).float().numpy()
    return wide


def compute_file_sha256(file: Path) -> str:
    """Compute the SHA-256 of a file, in hex."""
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()

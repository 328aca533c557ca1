"""The full vectors on disk, in shards: `.npy` files of float16 or float32 rows.

Shards never change once written, so versions share them by hard links. Rows are numbered through
the shards in order. They are read by position: all processes share what is in the system's page
cache, and a file that is cut short raises an error, where a mapped one would end the process.
"""

import hashlib
import sys
import threading
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from index.arrays import load_array
from index.damage import BlockChecks, Checksums, DamageError, OpenedFile, compute_checksums
from index.manifest import REBUILD_HINT, Manifest, Shard, StoreError
from model.network.config import FEATURES
from storage.files import replace_atomically

Floats = npt.NDArray[np.float32]
Doubles = npt.NDArray[np.float64]
Ids = npt.NDArray[np.int64]
DTYPES: dict[str, np.dtype[Any]] = {"float32": np.dtype("<f4"), "float16": np.dtype("<f2")}
ROWS_PER_SHARD = 16384
"""Rows per shard: 128 MiB in float16."""
ROWS_PER_CHUNK = 2048
"""Rows read at a time."""
MAX_SQUARED_NORM = float(np.finfo(np.float32).max) / 8
"""Largest squared norm of a vector or a query: squared distances are up to four times as large, and
they and the sums they are made of stay finite in float32."""
CHECKSUMS_FILE = "checksums.npy"
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
            if not largest <= MAX_SQUARED_NORM:
                raise StoreError(
                    "the norm of features is too large: the weights are broken; train anew"
                )
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
    with np.errstate(over="ignore"):
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

    def __init__(
        self,
        folder: Path,
        shards: Sequence[Shard],
        dtype: str,
        checksums: Checksums | None = None,
    ) -> None:
        """Open the shards. Raises StoreError for one that is missing or has another size.

        checksums: of each row, uint64 [rows]; None to trust the files.
        """
        self.dtype, self.stored_dtype = dtype, DTYPES[dtype]
        self.row_bytes = FEATURES * self.stored_dtype.itemsize
        self.starts = np.cumsum([0, *(shard.rows for shard in shards)])
        self.shards = tuple(shards)
        self.max_squared_norm = max((shard.largest for shard in shards), default=0.0)
        self.checks = None if checksums is None else BlockChecks(checksums)
        self.buffers = threading.local()
        self.files = [open_shard(folder / shard.file, shard, self.dtype) for shard in shards]

    def __len__(self) -> int:
        return int(self.starts[-1])

    def take(self, rows: Any) -> Floats:
        """Read rows, in this order: int64 [n] → float32 [n, 4096]. Raises StoreError."""
        wanted = np.asarray(rows, np.int64)
        found = np.empty((len(wanted), FEATURES), self.stored_dtype)
        self.read_rows(wanted, found)
        return to_float32(found)

    def borrow(self, rows: Ids) -> npt.NDArray[Any]:
        """Read a few rows, in this order: int64 [n] → [n, 4096] as stored. Raises StoreError.

        The array is overwritten by this thread's next call: fresh memory takes longer than reading.
        """
        held: npt.NDArray[Any] | None = getattr(self.buffers, "rows", None)
        if held is None or len(held) < len(rows):
            held = np.empty((len(rows), FEATURES), self.stored_dtype)
            self.buffers.rows = held
        self.read_rows(rows, held[: len(rows)])
        return held[: len(rows)]

    def read_rows(self, rows: Ids, target: npt.NDArray[Any]) -> None:
        """Fill an array with rows, those that follow one another in the file at once."""
        if not len(rows):
            return
        shards = np.searchsorted(self.starts, rows, side="right") - 1
        places = HEADER_BYTES + (rows - self.starts[shards]) * self.row_bytes
        follows = (np.diff(rows) == 1) & (np.diff(shards) == 0)
        firsts = np.flatnonzero(np.concatenate([[True], ~follows])).tolist()
        for number in set(shards.tolist()):
            self.notice_change(number)
        for first, end in zip(firsts, [*firsts[1:], len(rows)], strict=True):
            self.files[shards[first]].read(target[first:end], int(places[first]))
        self.check_rows(rows, target)

    def notice_change(self, shard: int) -> None:
        """Have a shard's rows checked anew if its file was written to."""
        if self.files[shard].notice_change() and self.checks is not None:
            self.checks.forget(int(self.starts[shard]), int(self.starts[shard + 1]))

    def check_rows(self, rows: Ids, found: npt.NDArray[Any]) -> None:
        """Raise DamageError if rows that were read are not what was written."""
        if self.checks is not None and not self.checks.are_whole(rows, found):
            shard = int(np.searchsorted(self.starts, rows[0], side="right")) - 1
            raise DamageError(
                self.files[shard],
                "or a shard beside it is damaged: the checksum of a vector is not what was written",
            )

    def read_chunks(self, size: int = ROWS_PER_CHUNK) -> Iterator[tuple[int, Floats]]:
        """Yield all rows in order: the first row's number, and float32 [n, 4096], n ≤ `size`."""
        for number, file in enumerate(self.files):
            first, end = int(self.starts[number]), int(self.starts[number + 1])
            self.notice_change(number)
            for start in range(first, end, size):
                rows = np.empty((min(size, end - start), FEATURES), self.stored_dtype)
                file.read(rows, HEADER_BYTES + (start - first) * self.row_bytes)
                self.check_rows(np.arange(start, start + len(rows)), rows)
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


def write_row_checksums(
    folder: Path, vectors: Vectors, earlier: tuple[Path, Manifest] | None = None
) -> None:
    """Write the checksum of every row, copying those of shards that an earlier version has too.

    Raises OSError and StoreError.
    """
    checksums = np.empty(len(vectors), np.uint64)
    known = np.zeros(len(vectors), bool)
    if earlier is not None and (before := read_row_checksums(*earlier)) is not None:
        rows = map_kept_rows(earlier[1].shards, vectors.shards)
        known = rows >= 0
        checksums[known] = before[rows[known]]
    new = np.flatnonzero(~known)
    for start in range(0, len(new), ROWS_PER_CHUNK):
        some = new[start : start + ROWS_PER_CHUNK]
        checksums[some] = compute_checksums(vectors.borrow(some))
    with (folder / CHECKSUMS_FILE).open("wb") as out:
        np.save(out, checksums.astype("<u8"))


def read_row_checksums(folder: Path, manifest: Manifest) -> Checksums | None:
    """Read the rows' checksums, uint64 [rows]; None in older versions. Raises StoreError."""
    if CHECKSUMS_FILE not in manifest.files:
        return None
    found = load_array(folder / CHECKSUMS_FILE, np.dtype("<u8"))
    if len(found) != manifest.rows:
        raise StoreError(
            f"{folder / CHECKSUMS_FILE} is damaged: it does not hold {manifest.rows:,} checksums; "
            f"{REBUILD_HINT}"
        )
    return found


def map_kept_rows(earlier: Sequence[Shard], shards: Sequence[Shard]) -> Ids:
    """Map each row of shards to its row in earlier ones: int64, −1 in a shard that is new."""
    starts: dict[tuple[str, str], int] = {}
    end = 0
    for shard in earlier:
        starts[shard.file, shard.sha256], end = end, end + shard.rows
    parts = [np.empty(0, np.int64)]
    for shard in shards:
        start = starts.get((shard.file, shard.sha256))
        new = np.full(shard.rows, -1, np.int64)
        parts.append(new if start is None else start + np.arange(shard.rows))
    return np.concatenate(parts)


def open_shard(path: Path, shard: Shard, dtype: str) -> OpenedFile:
    """Open a shard's file, and check its size and header. Raises StoreError."""
    file, header = OpenedFile(path), np.empty(HEADER_BYTES, np.uint8)
    wanted = HEADER_BYTES + shard.rows * FEATURES * DTYPES[dtype].itemsize
    if file.size == wanted == shard.bytes:
        file.read(header, 0)
        if header.tobytes() == make_npy_header(shard.rows, dtype):
            return file
    raise StoreError(f"{path} is damaged: it does not hold {shard.rows:,} vectors; {REBUILD_HINT}")


def to_float32(rows: npt.NDArray[Any]) -> Floats:
    """Return rows in float32, themselves or converted."""
    return rows if rows.dtype == np.float32 else widen(rows)


def widen(rows: npt.NDArray[Any], out: Floats | None = None) -> Floats:
    """Copy finite rows of float16 or float32 into float32: into `out`, or a new array.

    torch converts float16 three times as fast, but nothing imports it for that: a server that
    answers with a prepared network does without.
    """
    target = np.empty(rows.shape, np.float32) if out is None else out
    if sys.modules.get("torch") is not None:
        # Waits for another thread that is importing it: half imported, torch crashes.
        import torch

        torch.from_numpy(target).copy_(torch.from_numpy(rows))
    elif rows.dtype == np.float16:
        # NumPy converts one number at a time. Moved to where float32 has them, exponent and
        # fraction are those of a number that is 2¹¹² times smaller, subnormal ones included.
        bits = target.view(np.int32)
        np.left_shift(rows.view(np.int16), 13, out=bits, dtype=np.int32)
        np.bitwise_and(bits, np.int32(~0x70001FFF), out=bits)
        np.multiply(target, np.float32(2.0**112), out=target)
    else:
        np.copyto(target, rows)
    return target


def compute_file_sha256(file: Path) -> str:
    """Compute the SHA-256 of a file, in hex."""
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()

"""Projections: every vector in few dimensions, which bound its distance from any query from below.

A vector's projection consists of its first principal components and the norm of the rest. The
distance between two projections is never greater than that between the vectors: the components add
up to the part of the difference that lies in their plane, and by the triangle inequality the parts
outside differ by at least the difference of their norms. So the nearest vectors are proven to be
the nearest once the k-th distance is below every bound that is left (index/exact.py). The kinds ivf
and hnsw search the same projections.

The principal components only decide how tight the bound is: it holds for any orthonormal axes, also
for vectors that were added since. Projections are stored as float16, and the largest distance by
which the rounding moved one is stored with them.
"""

import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import numpy.typing as npt

from index.arrays import load_arrays, save_arrays
from index.damage import BlockChecks, Checksums, DamageError, OpenedFile, compute_checksums
from index.engines.reduction import PCA_SAMPLE_ROWS, draw_rows, fit_components
from index.manifest import REBUILD_HINT, StoreError
from index.vectors import Doubles, Floats, Ids, Vectors
from model.network.config import FEATURES

BASIS_FILE = "projection.npz"
PROJECTIONS_FILE = "projections.faiss"
ROWS_PER_BLOCK = 1024
"""Projections read at a time: 256 KiB of float16, which a core's cache holds in float32 too."""
ROWS_PER_CHUNK = 512
"""Vectors projected at a time: 16 MiB in float64."""
LARGEST_STORED = 2.0**14
"""Projections are scaled by a power of two so that none exceeds this; float16 ends at 65504."""
NORM_ERROR = 2e-6
"""Bounds the error of the norm of the rest, relative to the norm of the whole, in float64: the
square root of some 4096 · 2⁻⁵³, where the rest is nearly 0."""
Halves = npt.NDArray[np.float16]


@dataclass(frozen=True, kw_only=True)
class Basis:
    """Where vectors are projected.

    mean: float64 [4096]. axes: float64 [d − 1, 4096], orthonormal. scale: a power of two. error:
    the greatest distance of a stored projection from the exact one, in scaled units. largest: the
    largest norm of a stored projection. fitted: the number of vectors when the axes were chosen.
    checksums: of the stored projections, uint64, one per block.
    """

    mean: Doubles
    axes: Doubles
    scale: float
    error: float = 0.0
    largest: float = 0.0
    fitted: int = 0
    checksums: Checksums = field(default_factory=lambda: np.empty(0, np.uint64))

    @property
    def dimensions(self) -> int:
        """The width of a projection: the components, and the norm of the rest."""
        return len(self.axes) + 1

    def project(self, values: Floats) -> Doubles:
        """Project vectors: float32 [N, 4096] → float64 [N, d], scaled."""
        centred = values.astype(np.float64) - self.mean
        components = centred @ self.axes.T
        rest = np.square(centred).sum(axis=1) - np.square(components).sum(axis=1)
        norms = np.sqrt(np.maximum(rest, 0))
        return np.concatenate([components, norms[:, None]], axis=1) * self.scale

    def project_roughly(self, values: Floats) -> Floats:
        """Project vectors in float32, several times as fast: float32 [N, 4096] → [N, d]."""
        mean, axes = self.narrow
        centred = values - mean
        projected = np.empty((len(values), self.dimensions), np.float32)
        np.matmul(centred, axes, out=projected[:, :-1])
        squares = np.einsum("ij,ij->i", projected[:, :-1], projected[:, :-1])
        rest = np.einsum("ij,ij->i", centred, centred) - squares
        projected[:, -1] = np.sqrt(np.maximum(rest, 0))
        return projected * np.float32(self.scale)

    @cached_property
    def narrow(self) -> tuple[Floats, Floats]:
        """The mean, and the axes as columns, in float32."""
        return self.mean.astype(np.float32), np.asfortranarray(self.axes.T, np.float32)


class Projections:
    """The stored projections of a version's live rows, in their order. Thread-safe.

    They are read by position, so that a file that is cut short raises StoreError, where a mapped
    one would end the process; the system's page cache holds them once for all processes.
    """

    def __init__(self, basis: Basis, rows: Ids, file: Path) -> None:
        """Open the file. Raises StoreError if it is missing or of another size."""
        self.basis, self.rows, self.file = basis, rows, OpenedFile(file)
        self.checks = BlockChecks(basis.checksums)
        header = make_header(len(rows), basis.dimensions)
        self.start = len(header)
        found = np.zeros(self.start, np.uint8)
        if self.file.size == self.start + 2 * len(rows) * basis.dimensions:
            self.file.read(found, 0)
        blocks = -(-len(rows) // ROWS_PER_BLOCK)
        if found.tobytes() != header or len(basis.checksums) != blocks:
            raise StoreError(
                f"{file} is damaged: it does not hold {len(rows):,} projections; {REBUILD_HINT}"
            )

    def __len__(self) -> int:
        return len(self.rows)

    def read_blocks(self, wanted: Ids | None = None) -> Iterator[tuple[int, Halves]]:
        """Yield blocks: the place of the first projection, and float16 [n, d], n ≤ 1024.

        wanted: places, int64 ascending; blocks without any of them are left out. The array is
        overwritten by the next block. Raises DamageError.
        """
        if self.file.notice_change():
            self.checks.forget(0, len(self))
        width, count = self.basis.dimensions, len(self)
        buffer = np.empty((ROWS_PER_BLOCK, width), np.float16)
        numbers = range(-(-count // ROWS_PER_BLOCK))
        for number in numbers if wanted is None else np.unique(wanted // ROWS_PER_BLOCK).tolist():
            first = number * ROWS_PER_BLOCK
            block = buffer[: min(ROWS_PER_BLOCK, count - first)]
            self.file.read(block, self.start + 2 * first * width)
            if not self.checks.are_whole(np.array([number]), block[None]):
                raise DamageError(
                    self.file, "is damaged: the checksum of a block is not what was written"
                )
            yield first, block


def write_projections(
    folder: Path,
    vectors: Vectors,
    rows: Ids,
    dimensions: int,
    seed: int,
    *,
    earlier: tuple[Projections, Ids] | None = None,
    report_done: Callable[[int], object] = lambda _done: None,
) -> Projections:
    """Project the live rows, int64 ascending, and write both files into a version's folder.

    earlier: the projections of an earlier version, and the number that each row has there, int64,
    −1 for a new one: its axes are kept and its projections copied. Raises OSError and
    StoreError.
    """
    stored = np.empty((len(rows), dimensions), np.float16)
    basis = None
    if earlier is not None and earlier[0].basis.dimensions == dimensions:
        basis = copy_projections(*earlier, rows, stored)
    known = np.zeros(len(rows), bool) if basis is None or earlier is None else earlier[1][rows] >= 0
    basis = basis or fit_basis(vectors, rows, dimensions, seed)
    new = np.flatnonzero(~known)
    for start in range(0, len(new), ROWS_PER_CHUNK):
        places = new[start : start + ROWS_PER_CHUNK]
        exact = basis.project(vectors.take(rows[places]))
        if np.abs(exact).max() > 2 * LARGEST_STORED:
            # The earlier version's scale is too fine for the new vectors.
            return write_projections(
                folder, vectors, rows, dimensions, seed, report_done=report_done
            )
        stored[places] = exact
        basis = widen_bounds(basis, exact, stored[places])
        report_done(start + len(places))
    blocks = (stored[i : i + ROWS_PER_BLOCK] for i in range(0, len(rows), ROWS_PER_BLOCK))
    checksums = np.concatenate([compute_checksums(block[None]) for block in blocks])
    basis = replace(basis, checksums=checksums)
    write_files(folder, basis, stored)
    return Projections(basis, rows, folder / PROJECTIONS_FILE)


def copy_projections(earlier: Projections, numbers: Ids, rows: Ids, stored: Halves) -> Basis | None:
    """Copy the projections of rows that the earlier version had too; return its axes."""
    old = numbers[rows]
    known = old >= 0
    if not np.isin(old[known], earlier.rows).all():
        return None
    everything = np.concatenate([block.copy() for _, block in earlier.read_blocks()])
    stored[known] = everything[np.searchsorted(earlier.rows, old[known])]
    return earlier.basis


def fit_basis(vectors: Vectors, rows: Ids, dimensions: int, seed: int) -> Basis:
    """Fit the axes to a sample of the rows."""
    sample = vectors.take(draw_rows(rows, PCA_SAMPLE_ROWS, seed))
    mean = sample.mean(axis=0, dtype=np.float64)
    axes = np.empty((0, FEATURES))
    if dimensions > 1:
        components = fit_components(sample, dimensions - 1, seed)[0]
        axes = np.linalg.qr(components.T.astype(np.float64))[0].T
    bound = np.sqrt(vectors.max_squared_norm) + np.linalg.norm(mean)
    scale = 2.0 ** np.floor(np.log2(LARGEST_STORED / bound)) if bound > 0 else 1.0
    return Basis(mean=mean, axes=np.ascontiguousarray(axes), scale=float(scale), fitted=len(rows))


def widen_bounds(basis: Basis, exact: Doubles, stored: Halves) -> Basis:
    """Widen the bounds of the error and of the norms to hold for more projections."""
    moved = np.linalg.norm(stored.astype(np.float64) - exact, axis=1).max()
    norm = float(np.linalg.norm(exact, axis=1).max())
    largest = max(basis.largest, norm)
    return replace(basis, error=max(basis.error, float(moved) + NORM_ERROR * norm), largest=largest)


def write_files(folder: Path, basis: Basis, stored: Halves) -> None:
    """Write axes and projections. Raises OSError."""
    numbers = np.array([basis.scale, basis.error, basis.largest, basis.fitted])
    columns = {"mean": basis.mean, "axes": basis.axes, "numbers": numbers}
    save_arrays(folder / BASIS_FILE, columns | {"checksums": basis.checksums})
    with (folder / PROJECTIONS_FILE).open("wb") as out:
        out.write(make_header(*stored.shape))
        out.write(stored.astype("<f2", copy=False).data)


def open_projections(folder: Path, rows: Ids) -> Projections | None:
    """Open a version's projections of its live rows; None if it has none. Raises StoreError."""
    file = folder / BASIS_FILE
    if not file.exists():
        return None
    found = load_arrays(file, "mean", "axes", "numbers", "checksums")
    checksums = found.pop("checksums")
    mean, axes, numbers = found["mean"], found["axes"], found["numbers"]
    shapes = mean.shape == (FEATURES,) and axes.ndim == 2 and axes.shape[1:] == (FEATURES,)
    shapes = shapes and numbers.shape == (4,) and checksums.dtype == np.uint64
    if not shapes or any(a.dtype != np.float64 for a in found.values()):
        raise StoreError(f"{file} is damaged: an array has the wrong type or shape; {REBUILD_HINT}")
    scale, error, largest, fitted = numbers.tolist()
    basis = Basis(
        mean=mean,
        axes=axes,
        scale=scale,
        error=error,
        largest=largest,
        fitted=int(fitted),
        checksums=checksums,
    )
    return Projections(basis, rows, folder / PROJECTIONS_FILE)


def make_header(count: int, dimensions: int) -> bytes:
    """Make what precedes the projections in the file, as FAISS writes it.

    The rest of the file is the projections, so that hnsw uses them as its graph's vectors. The
    fields are those of FAISS's `IndexScalarQuantizer` with 16-bit floats, trained, for L2.
    """
    unused, l2, float16 = 1 << 20, 1, 4
    index = struct.pack("<4siqqq?i", b"IxSQ", dimensions, count, unused, unused, True, l2)
    quantizer = struct.pack("<iifQQQ", float16, 0, 0.0, dimensions, 2 * dimensions, 0)
    return index + quantizer + struct.pack("<Q", 2 * count * dimensions)

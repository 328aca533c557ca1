"""A split on disk: numbered chunks, each complete or absent, and images read back by row.

A chunk is a file of concatenated entries, raw pixels or JPEGs. While a set is being prepared each
chunk has an index file, written last: a chunk with an index is finished.
"""

import io
import os
import shutil
import zipfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image

from storage.files import DISK_FULL, fsync, lock_file, replace_atomically
from storage.parallel import cores
from training.dataset.listing import Listing, Origin
from training.dataset.source import DataError, UnfinishedError
from training.dataset.statistics import PixelSums

META_FILE = "meta.json"
"""The file of a set that is written last: with it, the set is finished."""
Encoding = Literal["raw", "jpeg"]
Pixels = npt.NDArray[np.uint8]

# DEVIATION: training sets whose raw pixels exceed --prepared-gigabytes are kept as JPEGs of quality
# 95 because ImageNet's 1.28 million photographs would take 252 GB as raw pixels
# and take about 45 GB as JPEGs.
JPEG_QUALITY, SUBSAMPLING = 95, "4:4:4"
"""Of stored JPEGs. Measured on 250 photographs of ImageNet at 256×256: 35 KB and 45 dB against the
raw pixels (the worst 40.6); quality 90 has 26 KB and 41 dB; halving the colours' resolution saves
a seventh, costs 1.3 dB (the worst 37.3), and smooths the colours that conv1 learns from."""


def encode_entry(pixels: Pixels, kind: Encoding) -> bytes:
    """Encode one image, uint8 [s, s, 3], for storage."""
    if kind == "raw":
        return pixels.tobytes()
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, "JPEG", quality=JPEG_QUALITY, subsampling=SUBSAMPLING)
    return out.getvalue()


def decode_entry(entry: Pixels | bytes, side: int, kind: Encoding) -> Pixels:
    """Decode the result of `encode_entry`: uint8 [s, s, 3], for raw pixels a read-only view."""
    if kind == "raw":
        return np.frombuffer(entry, np.uint8).reshape(side, side, 3)
    return np.asarray(Image.open(io.BytesIO(bytes(entry)), formats=["JPEG"]))


@dataclass(frozen=True)
class Split:
    """The images of one split, mapped from disk.

    classes: int64 [N], class indices.
    side:    of the images, in pixels.
    chunks:  the bytes of each of the P chunk files, uint8.
    counts:  int64 [P], the images in each chunk.
    starts:  int64 [N], each image's offset in its chunk, in bytes.
    sizes:   int64 [N], each image's size, in bytes.
    """

    classes: npt.NDArray[np.int64]
    side: int
    kind: Encoding
    chunks: tuple[Pixels, ...]
    counts: npt.NDArray[np.int64]
    starts: npt.NDArray[np.int64]
    sizes: npt.NDArray[np.int64]

    @classmethod
    def from_arrays(cls, images: Pixels, classes: npt.NDArray[np.int64]) -> "Split":
        """Build a split from images in memory, uint8 [N, s, s, 3]."""
        count, side = images.shape[:2]
        sizes = np.full(count, side * side * 3)
        counts, starts = np.array([count]), np.cumsum(sizes) - sizes
        return cls(classes, side, "raw", (images.reshape(-1),), counts, starts, sizes)

    def __len__(self) -> int:
        return len(self.classes)

    def read(self, rows: npt.NDArray[np.int64]) -> Pixels:
        """Copy the images of these rows: uint8 [B, side, side, 3].

        Raises IndexError for a row out of range.
        """
        out = np.empty((len(rows), self.side, self.side, 3), np.uint8)
        for to, image in zip(out, self.iter_images(rows), strict=True):
            to[...] = image
        return out

    def iter_images(
        self, rows: npt.NDArray[np.int64], *, threads: int | None = None
    ) -> Iterator[Pixels]:
        """Yield the images of these rows, uint8 [side, side, 3] each; raw ones are not copied.

        threads: on how many JPEGs are decoded, 1 being the caller's; by default on all cores.
        """
        entries = list(self.iter_encoded(rows))
        if self.kind == "raw":
            yield from (entry.reshape(self.side, self.side, 3) for entry in entries)
            return
        if threads == 1:
            yield from (decode_entry(entry, self.side, self.kind) for entry in entries)
            return
        # Pillow decodes without holding the GIL.
        with ThreadPoolExecutor(threads or min(cores(), MAX_DECODERS)) as pool:
            yield from pool.map(lambda entry: decode_entry(entry, self.side, self.kind), entries)

    def iter_encoded(self, rows: npt.NDArray[np.int64]) -> Iterator[Pixels]:
        """Yield the stored bytes of these rows, as views. Raises IndexError like `read`."""
        if len(rows) and (rows.min() < 0 or rows.max() >= len(self)):
            raise IndexError(f"rows {rows.min()} to {rows.max()} of {len(self)} images")
        ends = np.cumsum(self.counts)
        numbers = np.searchsorted(ends, rows, side="right").tolist()
        starts, stops = self.starts[rows], self.starts[rows] + self.sizes[rows]
        for number, start, stop in zip(numbers, starts.tolist(), stops.tolist(), strict=True):
            yield self.chunks[number][start:stop]


MAX_DECODERS = 8


class EncodedImage(NamedTuple):
    """An image ready to be stored.

    stored: its bytes. pixels: what they decode to, uint8 [s, s, 3]. outer: `sum_outer_products` of
    the pixels.
    """

    stored: bytes
    pixels: Pixels
    outer: npt.NDArray[np.int64]


@dataclass(frozen=True)
class ChunkIndex:
    """What a finished chunk holds.

    labels:     the names of its classes.
    codes:      int64 [N], each image's index into `labels`.
    sizes:      int64 [N], in bytes.
    unreadable: the photographs that were left out, each with the reason.
    listing:    what the photographs were, those left out included.
    """

    labels: tuple[str, ...]
    codes: npt.NDArray[np.int64]
    sizes: npt.NDArray[np.int64]
    unreadable: tuple[str, ...]
    listing: Listing


class ChunkWriter:
    """Writes a chunk under a temporary name, and renames it when it is finished."""

    def __init__(self, folder: Path, name: str, side: int) -> None:
        self.folder, self.name = folder, name
        self.part = folder / f"{name}.bin.part"
        self.file = self.part.open("wb")
        self.sums = PixelSums.zero(side)
        self.labels: list[str] = []
        self.sizes: list[int] = []
        self.unreadable: list[str] = []
        self.origins: list[Origin] = []

    def leave_out(self, reason: str, origin: Origin) -> None:
        """Note a photograph that cannot be read."""
        self.unreadable.append(reason)
        self.origins.append(origin._replace(readable=False))

    def add(self, entry: EncodedImage, label: str, origin: Origin) -> None:
        """Append one image."""
        self.origins.append(origin)
        self.file.write(entry.stored)
        self.sizes.append(len(entry.stored))
        self.labels.append(label)
        self.sums.add(entry.pixels, entry.outer)

    def finish(self) -> None:
        """Make the chunk durable, rename it, then write its index."""
        self.file.flush()
        os.fsync(self.file.fileno())
        self.file.close()
        self.part.replace(bin_file(self.folder, self.name))
        fsync(self.folder)
        labels, codes = np.unique(np.array(self.labels, np.str_), return_inverse=True)
        values = {
            "labels": labels,
            "codes": codes.astype(np.int64),
            "sizes": np.array(self.sizes, np.int64),
            "unreadable": np.array(self.unreadable, np.str_),
            # Enough for 16 million images.
            "image": self.sums.image.astype(np.uint32),
            "outer": self.sums.outer,
            **Listing.from_origins(self.origins).to_arrays(),
        }
        write_arrays(index_file(self.folder, self.name), values)

    def abandon(self) -> None:
        """Remove the unfinished chunk."""
        with suppress(OSError):
            self.file.close()
        self.part.unlink(missing_ok=True)


def write_arrays(path: Path, values: dict[str, npt.NDArray[np.generic]]) -> None:
    """Write an npz file atomically and durably."""
    with replace_atomically(path) as part, part.open("wb") as out:
        np.savez(out, allow_pickle=False, **values)


def read_finished_chunk(folder: Path, name: str) -> ChunkIndex | None:
    """Return the index of a chunk; None if the chunk is missing, unfinished or damaged."""
    try:
        with np.load(index_file(folder, name), allow_pickle=False) as arrays:
            index = unpack_index(arrays)
        stored = bin_file(folder, name).stat().st_size
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        return None
    return index if stored == index.sizes.sum() else None


def unpack_index(arrays: "np.lib.npyio.NpzFile") -> ChunkIndex:
    """Convert an index file's arrays to a ChunkIndex. Raises KeyError for an older one."""
    return ChunkIndex(
        labels=tuple(arrays["labels"].tolist()),
        codes=arrays["codes"],
        sizes=arrays["sizes"],
        unreadable=tuple(arrays["unreadable"].tolist()),
        listing=Listing.from_arrays(arrays),
    )


def read_chunk_sums(folder: Path, name: str) -> PixelSums:
    """Read the sums over a finished chunk's images."""
    with np.load(index_file(folder, name), allow_pickle=False) as arrays:
        return PixelSums(len(arrays["codes"]), arrays["image"].astype(np.int64), arrays["outer"])


def map_chunks(folder: Path, names: Sequence[str]) -> tuple[Pixels, ...]:
    """Map the chunks' files into memory, read-only."""
    nothing = np.empty(0, np.uint8)  # an empty file cannot be mapped
    files = (bin_file(folder, name) for name in names)
    # Without the memmap type, whose every slice costs microseconds.
    mapped = (np.memmap(f, np.uint8, "r") if f.stat().st_size else nothing for f in files)
    return tuple(np.asarray(file) for file in mapped)


def bin_file(folder: Path, name: str) -> Path:
    """Return the path of a chunk's entries."""
    return folder / f"{name}.bin"


def index_file(folder: Path, name: str) -> Path:
    """Return the path of a chunk's index, which exists until the whole set is finished."""
    return folder / f"{name}.npz"


@contextmanager
def report_disk_errors(store: Path) -> Iterator[None]:
    """Turn an OSError into a DataError that says what is wrong with the store's disk."""
    try:
        yield
    except OSError as error:
        if error.errno in DISK_FULL:
            raise UnfinishedError(
                f"the disk of {store} is full ({shutil.disk_usage(store).free / 1e9:.2f} GB free); "
                "what was decoded so far is kept: make room, or set ALEXNET_HOME to another disk, "
                "and try again"
            ) from error
        raise DataError(
            f"files cannot be written to {store}: {error.strerror or error}; make it writable or "
            "set ALEXNET_HOME to another folder"
        ) from error


@contextmanager
def hold_lock(file: Path) -> Iterator[None]:
    """Hold a lock among the processes of this machine, waiting until it is free."""
    with ExitStack() as stack:
        with report_disk_errors(file.parent):
            stack.enter_context(lock_file(file))
        yield

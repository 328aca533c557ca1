"""A split on the disk: numbered chunks, each whole or not there, and images read back by row.

A chunk is a file of entries one after the other, raw pixels or JPEGs. While a set is being made
each chunk has an index beside it, written last, so that a chunk with its index is a finished one.
"""

import io
import os
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
from training.dataset.source import DataError, UnfinishedError
from training.dataset.statistics import PixelSums

Encoding = Literal["raw", "jpeg"]
Pixels = npt.NDArray[np.uint8]

# DEVIATION: training sets whose raw pixels exceed --prepared-gigabytes are kept as JPEGs of quality
# 95 because ImageNet's 1.28 million photographs would take 252 GB raw and take about 45 GB so.
JPEG_QUALITY, SUBSAMPLING = 95, "4:4:4"
"""Of JPEG entries. Measured on 250 photographs of ImageNet at 256×256: 35 KB and 45 dB against the
raw pixels (the worst 40.6); quality 90 has 26 KB and 41 dB; halving the colours' resolution saves
a seventh, costs 1.3 dB (the worst 37.3), and smooths the colours that conv1 learns from."""


def encode_stored(pixels: Pixels, kind: Encoding) -> bytes:
    """One image, uint8 [s, s, 3], as it is stored."""
    if kind == "raw":
        return pixels.tobytes()
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, "JPEG", quality=JPEG_QUALITY, subsampling=SUBSAMPLING)
    return out.getvalue()


def decode_stored(entry: Pixels | bytes, side: int, kind: Encoding) -> Pixels:
    """What `encode` stored: uint8 [s, s, 3], a read-only view for raw pixels."""
    if kind == "raw":
        return np.frombuffer(entry, np.uint8).reshape(side, side, 3)
    return np.asarray(Image.open(io.BytesIO(bytes(entry)), formats=["JPEG"]))


@dataclass(frozen=True)
class Split:
    """Images ready for training, mapped from disk. `classes`: int64 [N].

    `counts` int64 [P] images lie in each of the chunks, `starts` and `sizes` int64 [N] say where
    in its chunk each lies, in bytes.
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
        """Images held in memory, uint8 [N, s, s, 3], as a split."""
        count, side = images.shape[:2]
        sizes = np.full(count, side * side * 3)
        counts, starts = np.array([count]), np.cumsum(sizes) - sizes
        return cls(classes, side, "raw", (images.reshape(-1),), counts, starts, sizes)

    def __len__(self) -> int:
        return len(self.classes)

    def read(self, rows: npt.NDArray[np.int64]) -> Pixels:
        """Copy the images of these rows: uint8 [B, side, side, 3]. IndexError beyond the last."""
        out = np.empty((len(rows), self.side, self.side, 3), np.uint8)
        for to, image in zip(out, self.iter_images(rows), strict=True):
            to[...] = image
        return out

    def iter_images(self, rows: npt.NDArray[np.int64]) -> Iterator[Pixels]:
        """The images of these rows one by one, uint8 [side, side, 3], raw ones not copied."""
        entries = list(self.iter_encoded(rows))
        if self.kind == "raw":
            yield from (entry.reshape(self.side, self.side, 3) for entry in entries)
            return
        # Pillow decodes outside the interpreter's lock.
        with ThreadPoolExecutor(min(cores(), MAX_DECODERS)) as pool:
            yield from pool.map(lambda entry: decode_stored(entry, self.side, self.kind), entries)

    def iter_encoded(self, rows: npt.NDArray[np.int64]) -> Iterator[Pixels]:
        """The stored bytes of these rows, as views."""
        if len(rows) and (rows.min() < 0 or rows.max() >= len(self)):
            raise IndexError(f"rows from {rows.min()} to {rows.max()}, of {len(self)}")
        ends = np.cumsum(self.counts)
        places = np.searchsorted(ends, rows, side="right").tolist()
        starts, stops = self.starts[rows], self.starts[rows] + self.sizes[rows]
        for place, start, stop in zip(places, starts.tolist(), stops.tolist(), strict=True):
            yield self.chunks[place][start:stop]


MAX_DECODERS = 8


class EncodedImage(NamedTuple):
    """An image ready to be stored: its bytes, what they decode to, its outer sum."""

    stored: bytes
    pixels: Pixels
    outer: npt.NDArray[np.int64]


@dataclass(frozen=True)
class ChunkIndex:
    """What a finished chunk holds.

    labels: the classes' names, of which `codes`, int64 [N], says each image's.
    sizes:  int64 [N], bytes.
    """

    labels: tuple[str, ...]
    codes: npt.NDArray[np.int64]
    sizes: npt.NDArray[np.int64]
    unreadable: tuple[str, ...]


class ChunkWriter:
    """A chunk being written under a name that is nobody's until it is finished."""

    def __init__(self, place: Path, name: str, side: int) -> None:
        self.place, self.name = place, name
        self.part = place / f"{name}.bin.part"
        self.file = self.part.open("wb")
        self.sums = PixelSums.zero(side)
        self.labels: list[str] = []
        self.sizes: list[int] = []
        self.unreadable: list[str] = []

    def add(self, entry: EncodedImage, label: str) -> None:
        """Append one image."""
        self.file.write(entry.stored)
        self.sizes.append(len(entry.stored))
        self.labels.append(label)
        self.sums.add(entry.pixels, entry.outer)

    def finish(self) -> None:
        """Make it durable and give it its names, the index's last."""
        self.file.flush()
        os.fsync(self.file.fileno())
        self.file.close()
        self.part.replace(bin_file(self.place, self.name))
        fsync(self.place)
        labels, codes = np.unique(np.array(self.labels, np.str_), return_inverse=True)
        values = {
            "labels": labels,
            "codes": codes.astype(np.int64),
            "sizes": np.array(self.sizes, np.int64),
            "unreadable": np.array(self.unreadable, np.str_),
            # Enough for 16 million images.
            "image": self.sums.image.astype(np.uint32),
            "outer": self.sums.outer,
        }
        write_arrays(index_file(self.place, self.name), values)

    def abandon(self) -> None:
        """Remove what was written."""
        with suppress(OSError):
            self.file.close()
        self.part.unlink(missing_ok=True)


def write_arrays(path: Path, values: dict[str, npt.NDArray[np.generic]]) -> None:
    """Write an npz file durably, whole or not at all."""
    with replace_atomically(path) as part, part.open("wb") as out:
        np.savez(out, allow_pickle=False, **values)


def read_finished_chunk(place: Path, name: str) -> ChunkIndex | None:
    """The index of a chunk, if it was finished."""
    try:
        with np.load(index_file(place, name), allow_pickle=False) as found:
            index = unpack_index(found)
        stored = bin_file(place, name).stat().st_size
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        return None
    return index if stored == index.sizes.sum() else None


def unpack_index(found: "np.lib.npyio.NpzFile") -> ChunkIndex:
    """Take an index's arrays apart."""
    return ChunkIndex(
        labels=tuple(found["labels"].tolist()),
        codes=found["codes"],
        sizes=found["sizes"],
        unreadable=tuple(found["unreadable"].tolist()),
    )


def read_chunk_sums(place: Path, name: str) -> PixelSums:
    """The sums over a finished chunk's images."""
    with np.load(index_file(place, name), allow_pickle=False) as found:
        return PixelSums(len(found["codes"]), found["image"].astype(np.int64), found["outer"])


def map_chunks(place: Path, names: Sequence[str]) -> tuple[Pixels, ...]:
    """Map the chunks' files, read-only."""
    nothing = np.empty(0, np.uint8)  # an empty file cannot be mapped
    files = (bin_file(place, name) for name in names)
    # Without the memmap type, whose every slice costs microseconds.
    mapped = (np.memmap(f, np.uint8, "r") if f.stat().st_size else nothing for f in files)
    return tuple(np.asarray(file) for file in mapped)


def bin_file(place: Path, name: str) -> Path:
    """Where a chunk's entries are."""
    return place / f"{name}.bin"


def index_file(place: Path, name: str) -> Path:
    """Where a chunk's index is, until the whole set is finished."""
    return place / f"{name}.npz"


@contextmanager
def report_disk_errors(store: Path) -> Iterator[None]:
    """Say in one line what is wrong with the store's disk."""
    try:
        yield
    except OSError as error:
        if error.errno in DISK_FULL:
            raise UnfinishedError(
                f"the disk of {store} is full; what was decoded so far is kept: make room, or set "
                "ALEXNET_HOME to another disk, and call again"
            ) from error
        raise DataError(
            f"files cannot be written to {store}: {error.strerror or error}; make it writable or "
            "set ALEXNET_HOME to another folder"
        ) from error


@contextmanager
def hold_lock(file: Path) -> Iterator[None]:
    """Wait until no other process of this machine holds the lock, and hold it."""
    with ExitStack() as stack:
        with report_disk_errors(file.parent):
            stack.enter_context(lock_file(file))
        yield

"""Drawing and making a version's sample: its images made small, what excites conv1, the map."""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from index.arrays import Array
from index.building.file_list import FileEntry
from index.building.reader import DecodedFile, read_photograph
from index.building.top_patches import ImageResponses, SampleScan
from index.building.tsne import MapLayout, layout_images
from index.sample import MAX_SAMPLE_IMAGES, SAMPLE_FILE, Pixels, read_sample_columns
from index.vectors import Ids, Vectors
from model.predict import Predictor
from storage.parallel import map_ahead
from storage.progress import Report, silent

SEED = b"2012"
MAX_WAITING_IMAGES = 64
"""Squares that wait in memory, of 192 KiB each."""
SAMPLE_BYTES_PER_IMAGE, PATCHES_BYTES = 3_800, 500_000
"""Bytes that an image of the sample takes in the file, and that the patches take."""


@dataclass(frozen=True, kw_only=True)
class VersionImages:
    """The images of a version. ids: int64 [M], rising; entries and rows, int64 [M], in that order.

    root: the folder that the entries' paths begin in.
    """

    root: Path
    ids: Ids
    entries: Sequence[FileEntry]
    rows: Ids


def sample_bytes_needed(images: int) -> int:
    """How much room on the disk the sample of so many images takes."""
    return SAMPLE_BYTES_PER_IMAGE * min(images, MAX_SAMPLE_IMAGES) + PATCHES_BYTES


def make_sample(
    predictor: Predictor,
    images: VersionImages,
    vectors: Vectors,
    before: dict[str, Array] | None = None,
    report: Report = silent,
    count: int = MAX_SAMPLE_IMAGES,
) -> dict[str, Array]:
    """What `index.sample.write_sample` writes, of at most `count` images.

    Each image is decoded once; one that cannot be read any more, or is another than when its
    features were computed, is left out. `before` is what an earlier version of the same weights
    holds: of the images it knows nothing is computed again, and the map stays like its own.
    """
    chosen = draw_sample(images.entries, count)
    looking = SampleScan(predictor, images.ids[chosen])
    if before is not None:
        looking.load_earlier(before)

    def read(place: int) -> Pixels | None:
        return read_entry_square(images.root, images.entries[chosen[place]])

    with single_threaded_torch():
        scan_new_images(looking, read, report)
        looking.read_missing_patches(read)
    columns = looking.arrays()
    rows = images.rows[chosen[looking.known]]
    layout = layout_images(vectors, rows, earlier_layout(columns["ids"], before), report)
    return columns | {"points": layout.points, "span": np.array(layout.span)}


def scan_new_images(
    looking: SampleScan, read: Callable[[int], Pixels | None], report: Report
) -> None:
    """Read the images that are not known, and look at them, in the threads that read."""

    def look(place: int) -> ImageResponses | None:
        square = read(place)
        return None if square is None else looking.measure(square)

    new = np.flatnonzero(~looking.known).tolist()
    told = report("Looking at images for the pages", len(new)) if new else None
    for done, (place, seen) in enumerate(
        zip(new, map_ahead(look, new, MAX_WAITING_IMAGES), strict=True)
    ):
        if seen is not None:
            looking.add(place, seen)
        if told is not None:
            told(done + 1)


@contextmanager
def single_threaded_torch() -> Iterator[None]:
    """Let torch compute an image in one thread: as many images are computed as threads read."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def read_earlier_sample(folder: Path) -> dict[str, Array] | None:
    """What a version holds; None where it was made before there were samples. StoreError."""
    return read_sample_columns(folder) if (folder / SAMPLE_FILE).exists() else None


def draw_sample(entries: Sequence[FileEntry], count: int) -> Ids:
    """Which of these images make the sample: int64, rising; all where there are no more.

    Those whose paths have the smallest keyed digests, so that the next version, of nearly the same
    files, draws nearly the same images.
    """
    if len(entries) <= count:
        return np.arange(len(entries))
    lots = [hashlib.blake2b(e.path.encode(), digest_size=8, key=SEED).digest() for e in entries]
    numbers = np.frombuffer(b"".join(lots), ">u8")
    return np.sort(np.argsort(numbers, kind="stable")[:count])


def read_entry_square(root: Path, entry: FileEntry) -> Pixels | None:
    """A photograph's pixels; None where they are gone or not those of its features."""
    found = read_photograph(root, entry.path, lambda _: None)
    return (
        found.square
        if isinstance(found, DecodedFile) and found.entry.pixels == entry.pixels
        else None
    )


def earlier_layout(ids: Ids, before: dict[str, Array] | None) -> MapLayout | None:
    """An earlier version's places of these images, NaN for others; None without such a version."""
    if before is None or not len(before["ids"]):
        return None
    points = np.full((len(ids), 2), np.nan, np.float32)
    _, own, theirs = np.intersect1d(ids, before["ids"], True, return_indices=True)
    points[own] = before["points"][theirs]
    whole = len(own) == len(before["ids"])
    return MapLayout(points=points, span=float(before["span"]), whole=whole)

"""Makes a version's sample of images: thumbnails, conv1's top patches and the map."""

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
from index.building.unit_scan import UnitScan
from index.sample import SAMPLE_FILE, SAMPLE_IMAGES, Pixels, read_sample_columns
from index.vectors import Ids, Vectors
from model.network.config import Resize
from model.predict import Predictor
from storage.parallel import map_ahead
from storage.progress import Report, ignore_progress

DRAW_KEY = b"2012"
MAX_WAITING_IMAGES = 64
"""Images waiting in memory, 192 KiB each."""
SAMPLE_BYTES_PER_IMAGE, PATCHES_BYTES = 3_800, 500_000
"""Bytes of disk space for each image, and for all patches together."""


@dataclass(frozen=True, kw_only=True)
class VersionImages:
    """The images of a version.

    ids: int64 [M], ascending. entries, rows: in the same order; rows are int64 [M].
    root: the folder that the entries' paths are relative to.
    """

    root: Path
    ids: Ids
    entries: Sequence[FileEntry]
    rows: Ids


def estimate_sample_bytes(images: int, count: int = SAMPLE_IMAGES) -> int:
    """Estimate the bytes of disk space of the sample of an index, of at most `count` images."""
    return SAMPLE_BYTES_PER_IMAGE * min(images, count) + PATCHES_BYTES


def make_sample(
    predictor: Predictor,
    images: VersionImages,
    vectors: Vectors,
    before: dict[str, Array] | None = None,
    report: Report = ignore_progress,
    count: int = SAMPLE_IMAGES,
    units: UnitScan | None = None,
) -> dict[str, Array]:
    """Make the arrays that `index.sample.write_sample` writes, for at most `count` images.

    Each image is decoded once; images that have become unreadable, or have changed since their
    features were computed, are left out. before: the arrays of an earlier version with the same
    weights; images in it are not scanned again, and the new map stays similar to its map, or where
    they were while few have come or gone. units:
    is shown each image that it does not know. Raises StoreError.
    """
    chosen = draw_sample(images.entries, count)
    scan, resize = SampleScan(predictor, images.ids[chosen]), predictor.config.resize
    places = {int(image): place for place, image in enumerate(scan.ids)}
    if before is not None:
        scan.load_earlier(before)

    def read_image(place: int) -> Pixels | None:
        return read_entry_square(images.root, images.entries[chosen[place]], resize)

    with single_threaded_torch():
        scan_new_images(scan, read_image, report, units)
        scan.read_missing_patches(read_image)
        if units is not None:
            scan_units(units, scan.ids[scan.known], lambda image: read_image(places[image]), report)
    columns = scan.make_arrays()
    rows = images.rows[chosen[scan.known]]
    layout = layout_images(vectors, rows, align_earlier_layout(columns["ids"], before), report)
    span, changed = np.array(layout.span), np.array(layout.changed)
    return columns | {"points": layout.points, "span": span, "changed": changed}


def scan_new_images(
    scan: SampleScan,
    read: Callable[[int], Pixels | None],
    report: Report,
    units: UnitScan | None = None,
) -> None:
    """Read the images that are not known yet, and measure them in the reading threads."""

    def measure(place: int) -> ImageResponses | None:
        square = read(place)
        return None if square is None else scan.measure(square)

    new = np.flatnonzero(~scan.known).tolist()
    report_done = report("Sampling images for the pages", len(new)) if new else None
    for done, (place, responses) in enumerate(
        zip(new, map_ahead(measure, new, MAX_WAITING_IMAGES), strict=True)
    ):
        if responses is not None:
            scan.add(place, responses)
            if units is not None:
                units.add(int(scan.ids[place]), responses.square)
        if report_done is not None:
            report_done(done + 1)


def scan_units(
    units: UnitScan, images: Ids, read: Callable[[int], Pixels | None], report: Report
) -> None:
    """Show the scan of units those of the images, by id, that it has not seen."""
    new = [image for image in images.tolist() if image not in units.seen]
    report_done = report("Finding what excites each unit", len(new)) if new else ignore_count
    for done, (image, square) in enumerate(
        zip(new, map_ahead(read, new, MAX_WAITING_IMAGES), strict=True), 1
    ):
        if square is not None:
            units.add(image, square)
        report_done(done)


def ignore_count(done: int) -> None:
    """Report nothing."""


@contextmanager
def single_threaded_torch() -> Iterator[None]:
    """Limit torch to one thread, since each reading thread computes its own image."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def read_earlier_sample(folder: Path) -> dict[str, Array] | None:
    """Read a version's sample; None if it was built before samples existed. Raises StoreError."""
    return read_sample_columns(folder) if (folder / SAMPLE_FILE).exists() else None


def draw_sample(entries: Sequence[FileEntry], count: int) -> Ids:
    """Draw at most `count` images for the sample: indices into `entries`, int64 [n], ascending.

    Draws those whose paths have the smallest keyed hashes, so that the next version, with nearly
    the same files, draws nearly the same images.
    """
    if len(entries) <= count:
        return np.arange(len(entries))
    hashes = [
        hashlib.blake2b(e.path.encode(), digest_size=8, key=DRAW_KEY).digest() for e in entries
    ]
    numbers = np.frombuffer(b"".join(hashes), ">u8")
    return np.sort(np.argsort(numbers, kind="stable")[:count])


def read_entry_square(root: Path, entry: FileEntry, resize: Resize) -> Pixels | None:
    """Read a photograph as uint8 [256, 256, 3]; None if it is gone or has changed."""
    decoded = read_photograph(root, entry.path, lambda _: None, resize)
    if isinstance(decoded, DecodedFile) and decoded.entry.pixels == entry.pixels:
        return decoded.square
    return None


def align_earlier_layout(ids: Ids, before: dict[str, Array] | None) -> MapLayout | None:
    """Return the earlier map's points of these images, NaN for new ones; None without a map."""
    if before is None or not len(before["ids"]):
        return None
    points = np.full((len(ids), 2), np.nan, np.float32)
    _, own, theirs = np.intersect1d(ids, before["ids"], True, return_indices=True)
    points[own] = before["points"][theirs]
    gone = len(before["ids"]) - len(own)
    changed = int(before["changed"]) + gone
    return MapLayout(points=points, span=float(before["span"]), changed=changed)

"""Drawing and making a version's sample: its images made small, what excites conv1, the map."""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from index.building.file_list import Entry
from index.building.reader import Read, read_ahead, read_photograph
from index.building.top_patches import Look, Looking
from index.building.tsne import Layout, lay_out
from index.columns import Column
from index.progress import Report, silent
from index.sample import FILE, SAMPLE, Pixels, read_checked
from index.vectors import Ids, Vectors
from model.predict import Predictor

SEED = b"2012"
AHEAD = 64
"""Squares that wait in memory, of 192 KiB each."""
EACH, BESIDE = 3_800, 500_000
"""Bytes that an image of the sample takes in the file, and that the patches take."""


@dataclass(frozen=True, kw_only=True)
class Images:
    """The images of a version. ids: int64 [M], rising; entries and rows, int64 [M], in that order.

    root: the folder that the entries' paths begin in.
    """

    root: Path
    ids: Ids
    entries: Sequence[Entry]
    rows: Ids


def sample_bytes(images: int) -> int:
    """How much room on the disk the sample of so many images takes."""
    return EACH * min(images, SAMPLE) + BESIDE


def make_sample(
    predictor: Predictor,
    images: Images,
    vectors: Vectors,
    before: dict[str, Column] | None = None,
    report: Report = silent,
    count: int = SAMPLE,
) -> dict[str, Column]:
    """What `index.sample.write_sample` writes, of at most `count` images.

    Each image is decoded once; one that cannot be read any more, or is another than when its
    features were computed, is left out. `before` is what an earlier version of the same weights
    holds: of the images it knows nothing is computed again, and the map stays like its own.
    """
    chosen = draw(images.entries, count)
    looking = Looking(predictor, images.ids[chosen])
    if before is not None:
        looking.recall(before)

    def read(place: int) -> Pixels | None:
        return square_of(images.root, images.entries[chosen[place]])

    with one_thread():
        look_at_new(looking, read, report)
        looking.complete(read)
    columns = looking.columns()
    rows = images.rows[chosen[looking.there]]
    layout = lay_out(vectors, rows, kept_layout(columns["ids"], before), report)
    return columns | {"points": layout.points, "span": np.array(layout.span)}


def look_at_new(looking: Looking, read: Callable[[int], Pixels | None], report: Report) -> None:
    """Read the images that are not known, and look at them, in the threads that read."""

    def look(place: int) -> Look | None:
        square = read(place)
        return None if square is None else looking.look(square)

    new = np.flatnonzero(~looking.there).tolist()
    told = report("Looking at images for the pages", len(new)) if new else None
    for done, (place, seen) in enumerate(zip(new, read_ahead(look, new, AHEAD), strict=True)):
        if seen is not None:
            looking.take(place, seen)
        if told is not None:
            told(done + 1)


@contextmanager
def one_thread() -> Iterator[None]:
    """Let torch compute an image in one thread: as many images are computed as threads read."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def earlier_sample(folder: Path) -> dict[str, Column] | None:
    """What a version holds; None where it was made before there were samples. StoreError."""
    return read_checked(folder) if (folder / FILE).exists() else None


def draw(entries: Sequence[Entry], count: int) -> Ids:
    """Which of these images make the sample: int64, rising; all where there are no more.

    Those whose paths have the smallest keyed digests, so that the next version, of nearly the same
    files, draws nearly the same images.
    """
    if len(entries) <= count:
        return np.arange(len(entries))
    lots = [hashlib.blake2b(e.path.encode(), digest_size=8, key=SEED).digest() for e in entries]
    numbers = np.frombuffer(b"".join(lots), ">u8")
    return np.sort(np.argsort(numbers, kind="stable")[:count])


def square_of(root: Path, entry: Entry) -> Pixels | None:
    """A photograph's pixels; None where they are gone or not those of its features."""
    found = read_photograph(root, entry.path, lambda _: None)
    return found.square if isinstance(found, Read) and found.entry.pixels == entry.pixels else None


def kept_layout(ids: Ids, before: dict[str, Column] | None) -> Layout | None:
    """An earlier version's places of these images, NaN for others; None without such a version."""
    if before is None or not len(before["ids"]):
        return None
    points = np.full((len(ids), 2), np.nan, np.float32)
    _, own, theirs = np.intersect1d(ids, before["ids"], True, return_indices=True)
    points[own] = before["points"][theirs]
    whole = len(own) == len(before["ids"])
    return Layout(points=points, span=float(before["span"]), whole=whole)

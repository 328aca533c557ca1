"""Part of the training images set apart, so that choices need not be made on the validation images.

The mean image and the principal components stay those of the whole training set.
"""

import hashlib
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from training.dataset.prepare import PreparedDataset
from training.dataset.store import Split

Rows = npt.NDArray[np.int64]


def hold_out(data: PreparedDataset, every: int) -> PreparedDataset:
    """Return the dataset with one in `every` training images of each class as its validation part.

    Which ones follows from the images alone, by a hash of their stored bytes, so that equal images
    of a class are on the same side. The actual validation images are in neither part. Raises
    ValueError if a class has too few images.
    """
    chosen = choose_rows(data.train, every)
    rest = np.setdiff1d(np.arange(len(data.train)), chosen)
    return replace(
        data,
        key=f"{data.key} without 1 in {every}",
        train=select_rows(data.train, rest),
        val=select_rows(data.train, chosen),
    )


def choose_rows(split: Split, every: int) -> Rows:
    """Choose one in `every` images of each class: int64, in ascending order."""
    digests = digest_images(split)
    chosen = []
    for number in np.unique(split.classes):
        rows = np.flatnonzero(split.classes == number)
        last = np.sort(digests[rows])[max(1, round(len(rows) / every)) - 1]
        own = rows[digests[rows] <= last]
        if len(own) == len(rows):
            raise ValueError(f"class {number} has too few images to hold out 1 in {every}")
        chosen.append(own)
    return np.sort(np.concatenate(chosen))


def digest_images(split: Split) -> npt.NDArray[np.str_]:
    """Digest each image's stored bytes to 16 hex digits."""
    entries = split.iter_encoded(np.arange(len(split)))
    return np.array([hashlib.blake2b(e.tobytes(), digest_size=8).hexdigest() for e in entries])


def take_images(split: Split, images: int) -> Split:
    """Return so many images of a split, as evenly as possible from its classes, or all of them.

    Which ones follows from the images alone: of each class those with the lowest digests.
    """
    if images >= len(split):
        return split
    digests, classes = digest_images(split), np.unique(split.classes)
    order = np.lexsort((digests, split.classes))
    counts = np.bincount(split.classes, minlength=int(classes[-1]) + 1)
    place = np.empty(len(split), np.int64)
    place[order] = np.concatenate([np.arange(count) for count in counts])
    # The first of every class come before the second of any.
    chosen = np.lexsort((digests, place))[:images]
    return select_rows(split, np.sort(chosen))


def keep_classes(data: PreparedDataset, every: int) -> PreparedDataset:
    """Return a dataset of one in `every` classes, from the first, numbered anew."""
    kept = np.arange(0, len(data.class_names), every)

    def select(split: Split) -> Split:
        own = select_rows(split, np.flatnonzero(np.isin(split.classes, kept)))
        return replace(own, classes=own.classes // every)

    return replace(
        data,
        key=f"{data.key}, 1 in {every} classes",
        class_names=tuple(data.class_names[number] for number in kept),
        train=select(data.train),
        val=select(data.val),
    )


def digest_split(split: Split) -> str:
    """Digest a split's images and classes, in order, to 16 hex digits."""
    whole = hashlib.blake2b(split.classes.astype("<i8").tobytes(), digest_size=8)
    for entry in split.iter_encoded(np.arange(len(split))):
        whole.update(entry.tobytes())
    return whole.hexdigest()


def select_rows(split: Split, rows: Rows) -> Split:
    """Return the images of these rows, which must ascend, as a split of its own."""
    chunks = np.searchsorted(np.cumsum(split.counts), rows, side="right")
    return replace(
        split,
        classes=split.classes[rows],
        counts=np.bincount(chunks, minlength=len(split.counts)),
        starts=split.starts[rows],
        sizes=split.sizes[rows],
    )

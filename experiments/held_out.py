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
    entries = split.iter_encoded(np.arange(len(split)))
    digests = np.array([hashlib.blake2b(e.tobytes(), digest_size=8).hexdigest() for e in entries])
    chosen = []
    for number in np.unique(split.classes):
        rows = np.flatnonzero(split.classes == number)
        last = np.sort(digests[rows])[max(1, round(len(rows) / every)) - 1]
        own = rows[digests[rows] <= last]
        if len(own) == len(rows):
            raise ValueError(f"class {number} has too few images to hold out 1 in {every}")
        chosen.append(own)
    return np.sort(np.concatenate(chosen))


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

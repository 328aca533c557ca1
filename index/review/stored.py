"""A version's review, as it is stored: the file `review.npz`."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from index.arrays import Array, load_arrays, save_arrays
from index.id_map import Classes
from index.manifest import REBUILD_HINT, StoreError
from index.review.doubts import Bools
from index.review.outliers import FENCE
from index.vectors import Floats, Ids

REVIEW_FILE = "review.npz"
UNKNOWN_CLASS = 0
"""Stands for a class that the dataset does not have; the database counts from 1."""
COLUMN_DTYPES = {
    **{"ids": "<i8", "validation": "|b1", "classes": "<i4", "guesses": "<i4", "proposed": "<i4"},
    **{"doubts": "<f4", "losses": "<f4", "contested": "|b1"},
    **{"distances": "<f4", "outlying": "<f4"},
}
PAIR_DTYPES = {"pairs": "<i8", "pair_distances": "<f4", "pair_pixels": "<f4", "pair_exact": "|b1"}
LIMIT_DTYPES = {"near": "<f8", "near_pixels": "<f8"}


@dataclass(frozen=True, kw_only=True)
class Review:
    """What was found about N reviewed images and P pairs of copies.

    ids: int64 [N], of the database. validation: bool [N], whether an image is one of the validation
    images. classes, guesses, proposed: int32 [N], class ids: the label, the network's guess for
    the centre crop (0 if the dataset does not have the class), and the most probable other label.
    doubts, losses, contested: as in `index.review.doubts.LabelDoubts`. distances: float32 [N], in
    fc7 from the nearest other image of the class. outlying: float32 [N], in interquartile ranges
    beyond the class's upper quartile. pairs: int64 [P, 2], ids of copies; pair_distances,
    pair_pixels: float32 [P], of fc7 and of the thumbnails; pair_exact: bool [P], whether all pixels
    are the same. near, near_pixels: the distances up to which a pair counts.
    """

    ids: Ids
    validation: Bools
    classes: Classes
    guesses: Classes
    proposed: Classes
    doubts: Floats
    losses: Floats
    contested: Bools
    distances: Floats
    outlying: Floats
    pairs: Ids
    pair_distances: Floats
    pair_pixels: Floats
    pair_exact: Bools
    near: float
    near_pixels: float

    @property
    def outliers(self) -> Bools:
        """Whether each image is an outlier of its class: bool [N]."""
        found: npt.NDArray[np.bool_] = self.outlying > FENCE
        return found

    def find_places(self, ids: Ids) -> Ids:
        """Find the places of images that are among the reviewed ones: int64, of the same shape."""
        order = np.argsort(self.ids, kind="stable")
        return order[np.searchsorted(self.ids, ids, sorter=order)]


def write_review(folder: Path, review: Review) -> None:
    """Write a review into a version's folder. Raises OSError."""
    types = COLUMN_DTYPES | PAIR_DTYPES | LIMIT_DTYPES
    save_arrays(
        folder / REVIEW_FILE,
        {name: np.asarray(getattr(review, name), dtype) for name, dtype in types.items()},
    )


def read_review(folder: Path) -> Review | None:
    """Read a version's review; None if it has none. Raises StoreError."""
    file = folder / REVIEW_FILE
    if not file.exists():
        return None
    found: dict[str, Array] = load_arrays(file, *COLUMN_DTYPES, *PAIR_DTYPES, *LIMIT_DTYPES)
    images, pairs = found["ids"].shape, found["pair_exact"].shape
    shapes = dict.fromkeys(COLUMN_DTYPES, images) | dict.fromkeys(PAIR_DTYPES, pairs)
    shapes |= {"pairs": (*pairs, 2)} | dict.fromkeys(LIMIT_DTYPES, ())
    wrong = [name for name, shape in shapes.items() if found[name].shape != shape]
    known = np.isin(found["pairs"], found["ids"]).all()
    if wrong or len(images) != 1 or not known:
        raise StoreError(f"{file} is damaged: its columns do not fit together; {REBUILD_HINT}")
    values: dict[str, Any] = {name: found[name] for name in (*COLUMN_DTYPES, *PAIR_DTYPES)}
    values |= {name: float(found[name]) for name in LIMIT_DTYPES}
    return Review(**values)

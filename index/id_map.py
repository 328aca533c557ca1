"""Which image has which row: images of equal pixels share one, and are told as one with a count."""

from collections.abc import Collection
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from index.manifest import MEND, Manifest, StoreError
from index.vectors import Ids

Classes = npt.NDArray[np.int32]
FILES: dict[str, np.dtype[Any]] = {
    "ids.npy": np.dtype("<i8"),
    "rows.npy": np.dtype("<i8"),
    "classes.npy": np.dtype("<i4"),
}


class Members:
    """The images of a version: id, row and class of each, sorted by row and then by id.

    ids, rows: int64 [M]. classes: int32 [M], the database's class ids.
    """

    def __init__(self, ids: Ids, rows: Ids, classes: Classes) -> None:
        order = np.lexsort((ids, rows))
        self.ids: Ids = ids[order]
        self.rows: Ids = rows[order]
        self.classes: Classes = classes[order]

    def __len__(self) -> int:
        return len(self.ids)

    @cached_property
    def distinct(self) -> Ids:
        """The rows that an image points to: int64, rising."""
        return np.unique(self.rows)

    @cached_property
    def by_id(self) -> Ids:
        """The places of the images in the order of their ids."""
        return np.argsort(self.ids)

    def of(self, classes: Collection[int]) -> "Members":
        """The images of these classes only."""
        mask = np.isin(self.classes, np.array(sorted(classes), np.int64))
        return Members(self.ids[mask], self.rows[mask], self.classes[mask])

    def row_of(self, image: int | None) -> int | None:
        """The row of an image, if it is here."""
        if image is None or not len(self):
            return None
        place = int(np.searchsorted(self.ids, image, sorter=self.by_id))
        found = self.by_id[min(place, len(self) - 1)]
        return int(self.rows[found]) if self.ids[found] == image else None

    def classes_of(self, images: Ids) -> Classes:
        """The class of each image, all of which must be here: int64 [n] → int32 [n]."""
        places = self.by_id[np.searchsorted(self.ids, images, sorter=self.by_id)]
        return self.classes[places]

    def told(self, rows: Ids, without: int | None) -> tuple[Ids, Ids]:
        """The smallest id of each row's images and their count, one image left out.

        int64 [n] → int64 [n] each; the count is 0 for a row that no image here points to, and the
        id then means nothing.
        """
        first = np.searchsorted(self.rows, rows, side="left")
        counts = np.searchsorted(self.rows, rows, side="right") - first
        last = max(len(self) - 1, 0)
        ids = self.ids[np.minimum(first, last)]
        own = rows == self.row_of(without) if without is not None else np.zeros(len(rows), bool)
        # Of the one left out, the next image of the same row speaks for it.
        second = self.ids[np.minimum(first + 1, last)]
        return np.where(own & (ids == without), second, ids), counts - own


def write_members(folder: Path, ids: Ids, rows: Ids, classes: Classes) -> None:
    """Write the three files. Raises StoreError unless the ids rise from 0 on, and OSError."""
    if not len(ids):
        raise StoreError("No image could be read, so there is nothing to index")
    if not len(ids) == len(rows) == len(classes) or (np.diff(ids) <= 0).any() or ids[0] < 0:
        raise StoreError("Every image needs an id, a row and a class, and the ids must rise")
    values = (ids, rows, classes)
    for (name, dtype), array in zip(FILES.items(), values, strict=True):
        with (folder / name).open("wb") as out:
            np.save(out, np.asarray(array).astype(dtype))


def read_members(folder: Path, manifest: Manifest) -> Members:
    """Read the three files. Raises StoreError when they do not fit the manifest."""
    ids, rows, classes = (read_array(folder / name, dtype) for name, dtype in FILES.items())
    if not len(ids) == len(rows) == len(classes) == manifest.images:
        raise StoreError(
            f"{folder} is damaged: it does not hold {manifest.images:,} images; {MEND}"
        )
    if len(rows) and not 0 <= rows.min() <= rows.max() < manifest.rows:
        raise StoreError(f"{folder / 'rows.npy'} is damaged: it names rows that are not; {MEND}")
    return Members(ids, rows, classes)


def read_array(file: Path, dtype: np.dtype[Any]) -> npt.NDArray[Any]:
    """A one-dimensional array. Raises StoreError."""
    try:
        found = np.load(file, allow_pickle=False)
    except OSError as error:
        raise StoreError(f"{file} cannot be read ({error.strerror or error}); {MEND}") from error
    except ValueError as error:
        raise StoreError(f"{file} is damaged ({error}); {MEND}") from error
    if found.dtype != dtype or found.ndim != 1:
        raise StoreError(f"{file} is damaged: it is no list of {dtype}; {MEND}")
    values: npt.NDArray[Any] = found
    return values

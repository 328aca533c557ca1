"""Maps images to rows: images with equal pixels share a row, and count as one entry."""

from collections.abc import Collection
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from index.arrays import load_array
from index.manifest import REBUILD_HINT, Manifest, StoreError
from index.vectors import Ids

Classes = npt.NDArray[np.int32]
ARRAY_FILES: dict[str, np.dtype[Any]] = {
    "ids.npy": np.dtype("<i8"),
    "rows.npy": np.dtype("<i8"),
    "classes.npy": np.dtype("<i4"),
}


class IdMap:
    """The id, row and class of each image of a version, sorted by row and then by id.

    ids, rows: int64 [M]. classes: int32 [M], class ids of the database.
    """

    def __init__(self, ids: Ids, rows: Ids, classes: Classes) -> None:
        order = np.lexsort((ids, rows))
        self.ids: Ids = ids[order]
        self.rows: Ids = rows[order]
        self.classes: Classes = classes[order]

    def __len__(self) -> int:
        return len(self.ids)

    @cached_property
    def live_rows(self) -> Ids:
        """The rows that an image points to: int64, ascending."""
        return np.unique(self.rows)

    @cached_property
    def order_by_id(self) -> Ids:
        """The permutation that sorts the images by id: int64 [M]."""
        return np.argsort(self.ids)

    def filter_by_class(self, classes: Collection[int]) -> "IdMap":
        """Return the map restricted to images of these classes."""
        mask = np.isin(self.classes, np.array(sorted(classes), np.int64))
        return IdMap(self.ids[mask], self.rows[mask], self.classes[mask])

    def find_row(self, image: int | None) -> int | None:
        """Look up the row of an image by id; None if it is not in the map."""
        if image is None or not len(self):
            return None
        place = int(np.searchsorted(self.ids, image, sorter=self.order_by_id))
        found = self.order_by_id[min(place, len(self) - 1)]
        return int(self.rows[found]) if self.ids[found] == image else None

    def find_classes(self, images: Ids) -> Classes:
        """Look up the class of each image: int64 [n] → int32 [n]. All must be in the map."""
        places = self.order_by_id[np.searchsorted(self.ids, images, sorter=self.order_by_id)]
        return self.classes[places]

    def find_row_images(self, rows: Ids, without: int | None) -> tuple[Ids, Ids]:
        """Find the smallest id and the number of each row's images, leaving out one image.

        int64 [n] → int64 [n] each. For a row without an image the number is 0 and the id is
        meaningless.
        """
        first = np.searchsorted(self.rows, rows, side="left")
        counts = np.searchsorted(self.rows, rows, side="right") - first
        last = max(len(self) - 1, 0)
        ids = self.ids[np.minimum(first, last)]
        own = rows == self.find_row(without) if without is not None else np.zeros(len(rows), bool)
        # The next image of the same row takes the place of the one left out.
        second = self.ids[np.minimum(first + 1, last)]
        return np.where(own & (ids == without), second, ids), counts - own


def write_id_map(folder: Path, ids: Ids, rows: Ids, classes: Classes) -> None:
    """Write the three arrays of `ARRAY_FILES`.

    Raises StoreError unless the ids are ascending and ≥ 0, and OSError.
    """
    if not len(ids):
        raise StoreError("No image could be read, so there is nothing to index")
    if not len(ids) == len(rows) == len(classes) or (np.diff(ids) <= 0).any() or ids[0] < 0:
        raise StoreError("Every image needs an id, a row and a class, and the ids must rise")
    values = (ids, rows, classes)
    for (name, dtype), array in zip(ARRAY_FILES.items(), values, strict=True):
        with (folder / name).open("wb") as out:
            np.save(out, np.asarray(array).astype(dtype))


def read_id_map(folder: Path, manifest: Manifest) -> IdMap:
    """Read the three arrays of `ARRAY_FILES`. Raises StoreError if they contradict the manifest."""
    ids, rows, classes = (load_array(folder / name, dtype) for name, dtype in ARRAY_FILES.items())
    if not len(ids) == len(rows) == len(classes) == manifest.images:
        raise StoreError(
            f"{folder} is damaged: it does not hold {manifest.images:,} images; {REBUILD_HINT}"
        )
    if len(rows) and not 0 <= rows.min() <= rows.max() < manifest.rows:
        raise StoreError(
            f"{folder / 'rows.npy'} is damaged: it names rows that do not exist; {REBUILD_HINT}"
        )
    return IdMap(ids, rows, classes)

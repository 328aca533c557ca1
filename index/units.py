"""The images of a version that excite each unit most: the file `units.npz`.

Units are numbered from 0 through all layers with weights, from conv1 to the labels, and in each
layer through the towers.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from index.arrays import Array, load_arrays, save_arrays
from index.manifest import REBUILD_HINT, Manifest, StoreError
from index.vectors import Floats, Ids

UNITS_FILE = "units.npz"
IMAGES_PER_UNIT = 9
UNITS_BYTES = 1_700_000
"""Bytes of disk space of the file, for the paper's network."""
NO_IMAGE = -1
"""Stands in the place of an image where there are fewer than nine."""
COLUMN_DTYPES = {"ids": "<i8", "values": "<f4", "places": "<i4", "seen": "<i8"}


@dataclass(frozen=True, kw_only=True)
class TopImages:
    """For each of U units the images that excite it most, the strongest first, ties by id.

    ids: int64 [U, 9]; NO_IMAGE where there are fewer. values: float32 [U, 9], the unit's largest
    output before its activation, −∞ without an image. places: int32 [U, 9], where it is largest,
    row · the map's width + column; 0 for neurons. seen: int64 [S], ascending, the images searched.
    """

    ids: Ids
    values: Floats
    places: Array
    seen: Ids


def write_units(folder: Path, top: TopImages) -> None:
    """Write the file into a version's folder. Raises OSError."""
    columns = {name: getattr(top, name).astype(dtype) for name, dtype in COLUMN_DTYPES.items()}
    save_arrays(folder / UNITS_FILE, columns)


def read_units(folder: Path, manifest: Manifest) -> TopImages | None:
    """Read a version's file; None if it was built before there was one. Raises StoreError."""
    if UNITS_FILE not in manifest.files:
        return None
    found = load_arrays(folder / UNITS_FILE, *COLUMN_DTYPES)
    shape = (*found["ids"].shape[:1], IMAGES_PER_UNIT)
    shapes = {name: shape if name != "seen" else (found["seen"].size,) for name in COLUMN_DTYPES}
    wrong = [n for n, a in found.items() if a.dtype != COLUMN_DTYPES[n] or a.shape != shapes[n]]
    if wrong or (np.diff(found["seen"]) <= 0).any():
        raise StoreError(
            f"{folder / UNITS_FILE} is damaged: {(wrong or ['seen'])[0]} has the wrong type, shape "
            f"or order; {REBUILD_HINT}"
        )
    return TopImages(**found)

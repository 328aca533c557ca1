"""Each validation image's nearest training vector, kept from version to version.

A version's calibration needs them. Those of an earlier version hold as long as the vector is still
there, but for what was added since: an update compares the new vectors only.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from index.arrays import load_arrays, save_arrays
from index.building.validation import ValidationImages
from index.exact import ExactSearch
from index.id_map import IdMap, read_id_map
from index.manifest import REBUILD_HINT, Manifest, StoreError
from index.ranking import ImageFilter, RankedCandidates
from index.vectors import Doubles, Ids, Vectors, map_kept_rows

NEAREST_FILE = "nearest.npz"
QUERIES_PER_SEARCH = 256


@dataclass(frozen=True, kw_only=True)
class NearestRows:
    """The nearest training vector of each of V validation images.

    rows: int64 [V], in the version's shards; −1 where it is not known. squared: float64 [V], its
    squared distance.
    """

    rows: Ids
    squared: Doubles


def find_nearest_rows(
    vectors: Vectors,
    id_map: IdMap,
    images: ValidationImages,
    before: tuple[Path, Manifest, ValidationImages] | None = None,
) -> NearestRows:
    """Find the nearest training vector of each validation image.

    before: folder, manifest and validation images of an earlier version with the same weights.
    Raises StoreError for damaged vectors.
    """
    count = len(images.entries)
    found = NearestRows(rows=np.full(count, -1, np.int64), squared=np.full(count, np.inf))
    new = (
        id_map.live_rows
        if before is None
        else copy_nearest_rows(vectors, id_map, images, before, found)
    )
    search, everything = ExactSearch(vectors), ImageFilter(id_map)
    lost = found.rows < 0
    for places in split_places(np.flatnonzero(lost)):
        put_nearer(found, places, search.search(images.features[places], 1, everything), id_map)
    for places in split_places(np.flatnonzero(~lost)):
        nearer = search.compare_together(
            images.features[places], new, 1, everything, found.squared[places]
        )
        put_nearer(found, places, nearer, id_map)
    return found


def copy_nearest_rows(
    vectors: Vectors,
    id_map: IdMap,
    images: ValidationImages,
    before: tuple[Path, Manifest, ValidationImages],
    found: NearestRows,
) -> Ids:
    """Copy what an earlier version knows and is still there; return the rows it did not have."""
    folder, manifest, earlier_images = before
    earlier = read_nearest_rows(folder)
    live = id_map.live_rows
    if earlier is None or len(earlier.rows) != len(earlier_images.entries):
        return live
    numbers = map_kept_rows(manifest.shards, vectors.shards)[live]
    kept = np.isin(numbers, read_id_map(folder, manifest).live_rows)
    present = dict(zip(numbers[kept].tolist(), live[kept].tolist(), strict=True))
    known = {entry.sha256: place for place, entry in enumerate(earlier_images.entries)}
    for place, entry in enumerate(images.entries):
        row = present.get(int(earlier.rows[known[entry.sha256]])) if entry.sha256 in known else None
        if row is not None:
            found.rows[place], found.squared[place] = row, earlier.squared[known[entry.sha256]]
    new: Ids = live[~kept]
    return new


def split_places(places: Ids) -> list[Ids]:
    """Split places into groups that are searched for together."""
    return [places[i : i + QUERIES_PER_SEARCH] for i in range(0, len(places), QUERIES_PER_SEARCH)]


def put_nearer(
    found: NearestRows, places: Ids, ranked: list[RankedCandidates], id_map: IdMap
) -> None:
    """Take over those of the ranked vectors that are nearer."""
    for place, one in zip(places.tolist(), ranked, strict=True):
        if len(one.squared) and one.squared[0] < found.squared[place]:
            row = id_map.find_row(int(one.ids[0]))
            assert row is not None
            found.rows[place], found.squared[place] = row, one.squared[0]


def write_nearest_rows(folder: Path, nearest: NearestRows) -> None:
    """Write them into a version's folder. Raises OSError."""
    columns = {
        "rows": np.asarray(nearest.rows, "<i8"),
        "squared": np.asarray(nearest.squared, "<f8"),
    }
    save_arrays(folder / NEAREST_FILE, columns)


def read_nearest_rows(folder: Path) -> NearestRows | None:
    """Read a version's; None if it was built before they were kept. Raises StoreError."""
    file = folder / NEAREST_FILE
    if not file.exists():
        return None
    columns = load_arrays(file, "rows", "squared")
    rows, squared = columns["rows"], columns["squared"]
    if rows.ndim != 1 or rows.shape != squared.shape:
        raise StoreError(f"{file} is damaged: its columns differ; {REBUILD_HINT}")
    return NearestRows(rows=rows, squared=squared)

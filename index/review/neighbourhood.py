"""Each reviewed image's nearest others, kept from version to version.

To compare all with all is most of what a review costs. What an earlier version found holds between
the images that are in both, so an update compares the new ones with all, and anew those that have
lost one of their nearest.
"""

from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path

import numpy as np
import numpy.typing as npt

from index.arrays import load_arrays, save_arrays
from index.manifest import REBUILD_HINT, StoreError
from index.vectors import Doubles, Floats, Ids

NEIGHBOURHOOD_FILE = "neighbourhood.npz"
ROWS_PER_BLOCK = 1024
"""Images compared with all others at a time."""
NEIGHBOURS = 16
"""Nearest others of each image: those that vote on its label, and those that may be its copies."""
SPARE = 8
"""Further candidates that float32 may have put in the wrong order."""
FLOAT32_SLACK = 1e-5
"""How far float32's squared distances may be off, as a share of the norms' squares."""
Keys = npt.NDArray[np.uint64]


@dataclass(frozen=True, kw_only=True)
class Neighbourhood:
    """The nearest others of N images, nearest first.

    keys: uint64 [N], digests of their features. places: int64 [N, k]. distances: float64 [N, k], in
    fc7.
    """

    keys: Keys
    places: Ids
    distances: Doubles


def find_neighbourhood(
    features: Floats, count: int = NEIGHBOURS, before: Neighbourhood | None = None
) -> Neighbourhood:
    """Find the nearest others of each of float32 [N, F]; fewer than `count` if there are fewer.

    They are found in float32 and their distances computed in float64. before: what was found among
    some of them and perhaps others, by the same network; it saves time and changes nothing.
    """
    count, keys = min(count, len(features) - 1), digest_features(features)
    found = Neighbourhood(
        keys=keys,
        places=np.full((len(features), count), -1, np.int64),
        distances=np.full((len(features), count), np.inf),
    )
    lost, new = np.arange(len(features)), np.empty(0, np.int64)
    if before is not None and before.places.shape[1] == count:
        lost, new = take_over(found, before)
    everything = np.arange(len(features))
    found.places[lost], found.distances[lost] = search_others(features, lost, everything, count)
    if len(new):
        put_new_among(found, features, np.setdiff1d(everything, lost), new)
    return found


def digest_features(features: Floats) -> Keys:
    """Digest each row of float32 [N, F]: uint64 [N]."""
    rows = np.ascontiguousarray(features)
    digests = b"".join(blake2b(row, digest_size=8).digest() for row in rows)
    return np.frombuffer(digests, np.uint64)


def take_over(found: Neighbourhood, before: Neighbourhood) -> tuple[Ids, Ids]:
    """Fill in what was known before: the places that must be searched for, and those that are new.

    An image whose nearest others are not all here any more is searched for. Places grow in the
    same order as before.
    """
    places = match_places(before.keys, found.keys)
    kept = np.flatnonzero(places >= 0)
    near = places[before.places[kept]]
    whole = (near >= 0).all(axis=1)
    found.places[places[kept[whole]]] = near[whole]
    found.distances[places[kept[whole]]] = before.distances[kept[whole]]
    new = np.setdiff1d(np.arange(len(found.keys)), places[kept])
    return np.flatnonzero(found.places[:, 0] < 0), new


def match_places(before: Keys, now: Keys) -> Ids:
    """Find where each image is now, by its key: int64, of the shape of `before`; −1 if nowhere.

    Of several with one key, whose features are equal, the first is the first, and so on.
    """
    waiting: dict[int, list[int]] = {}
    for place in range(len(now) - 1, -1, -1):
        waiting.setdefault(int(now[place]), []).append(place)
    return np.array([one.pop() if (one := waiting.get(k)) else -1 for k in before.tolist()], int)


def search_others(features: Floats, rows: Ids, among: Ids, count: int) -> tuple[Ids, Doubles]:
    """Find the nearest of `among`, themselves left out, of some rows of float32 [N, F].

    rows: int64 [M]. Returns int64 [M, count] and float64 [M, count], nearest first.
    """
    places, distances = np.empty((len(rows), count), np.int64), np.empty((len(rows), count))
    if not len(rows):
        return places, distances
    others = features if len(among) == len(features) else features[among]
    norms = np.square(others, dtype=np.float32).sum(axis=1)
    last = min(count + SPARE, len(among)) - 1
    for start in range(0, len(rows), ROWS_PER_BLOCK):
        block = rows[start : start + ROWS_PER_BLOCK]
        squared = norms - 2 * (features[block] @ others.T)
        squared[block[:, None] == among] = np.inf
        some = among[np.argpartition(squared, last, axis=1)[:, : last + 1]]
        for number, (row, candidates) in enumerate(zip(block.tolist(), some, strict=True), start):
            exact = measure_distances(features, row, candidates[candidates != row])
            places[number], distances[number] = sort_nearest(*exact, count)
    return places, distances


def put_new_among(found: Neighbourhood, features: Floats, rows: Ids, new: Ids) -> None:
    """Put new images among the nearest of rows that were found without them."""
    norms = np.square(features, dtype=np.float32).sum(axis=1)
    count = found.places.shape[1]
    for start in range(0, len(new), ROWS_PER_BLOCK):
        block = new[start : start + ROWS_PER_BLOCK]
        norm = norms[rows, None] + norms[block]
        squared = norm - 2 * (features[rows] @ features[block].T)
        near = squared <= found.distances[rows, -1:] ** 2 + FLOAT32_SLACK * norm
        for number in np.flatnonzero(near.any(axis=1)).tolist():
            row = int(rows[number])
            places, distances = measure_distances(features, row, block[near[number]])
            found.places[row], found.distances[row] = sort_nearest(
                np.concatenate([found.places[row], places]),
                np.concatenate([found.distances[row], distances]),
                count,
            )


def measure_distances(features: Floats, row: int, places: Ids) -> tuple[Ids, Doubles]:
    """Return places with their distances from a row: float64, of the same shape."""
    difference = features[places].astype(np.float64) - features[row]
    return places, np.sqrt(np.square(difference).sum(axis=1))


def sort_nearest(places: Ids, distances: Doubles, count: int) -> tuple[Ids, Doubles]:
    """Return the nearest, in order; of equally near ones the first place first."""
    order = np.lexsort((places, distances))[:count]
    return places[order], distances[order]


def write_neighbourhood(folder: Path, found: Neighbourhood) -> None:
    """Write it into a version's folder. Raises OSError."""
    columns = {
        "keys": np.asarray(found.keys, "<u8"),
        "places": np.asarray(found.places, "<i8"),
        "distances": np.asarray(found.distances, "<f8"),
    }
    save_arrays(folder / NEIGHBOURHOOD_FILE, columns)


def read_neighbourhood(folder: Path) -> Neighbourhood | None:
    """Read a version's; None if it was built before they were kept. Raises StoreError."""
    file = folder / NEIGHBOURHOOD_FILE
    if not file.exists():
        return None
    columns = load_arrays(file, "keys", "places", "distances")
    keys, places, distances = (columns[name] for name in ("keys", "places", "distances"))
    fit = keys.ndim == 1 and places.ndim == 2 and len(keys) == len(places)
    known = (places >= 0) & (places < len(keys))
    if not fit or places.shape != distances.shape or not known.all():
        raise StoreError(f"{file} is damaged: its columns do not fit together; {REBUILD_HINT}")
    return Neighbourhood(keys=keys, places=places, distances=distances)

"""The map of the training images: where each of the sample lies, and its class."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from app.database.browse import ClassCount
from app.inference.loader import Ready
from app.views.map.colours import Colour, colour_of
from index.vectors import Ids

Ints = npt.NDArray[np.int64]
MAX_COORDINATE = 16_383
"""The largest coordinate: finer than a pixel on a screen at the largest magnification, nearly."""
GRID_CELLS = 32
"""Cells a side by which a class's densest place is found."""
ROW_NAMES, COLUMN_NAMES = ("top", "middle", "bottom"), ("left", "centre", "right")


@dataclass(frozen=True, kw_only=True)
class MapClass:
    """A class on the map: how many of its images are on it, and where most of them lie.

    x, y: from 0 to SCALE, rightwards and downwards. where: the same in words. beside: the class
    whose densest place is nearest, or none where there is no other.
    """

    id: int
    label: str
    images: int
    x: int
    y: int
    where: str
    nearest: str | None
    colour: Colour


@dataclass(frozen=True, kw_only=True)
class MapLayout:
    """A map. ids, numbers, xs, ys: int64 [S], of each image, by rising id.

    version: the index version's name. images: all in it; whole: whether all are on the map.
    groups: by name. numbers: each image's place in `groups`. xs, ys: from 0 to SCALE.
    """

    version: str
    images: int
    whole: bool
    classes: list[MapClass]
    ids: Ids
    numbers: Ints
    xs: Ints
    ys: Ints


def build_map_layout(state: Ready, classes: Sequence[ClassCount]) -> MapLayout | None:
    """Make the map of an index version with these classes; None where it has no sample."""
    sample = state.sample
    if sample is None:
        return None
    kinds, inverse = np.unique(state.index.id_map.classes_of(sample.ids), return_inverse=True)
    labels = {c.id: c.label for c in classes}
    names = [labels.get(kind, "") for kind in kinds.tolist()]
    order = sorted(range(len(kinds)), key=lambda k: (names[k].casefold(), int(kinds[k])))
    numbers = np.argsort(order)[inverse]
    xs, ys = np.rint(sample.points.T.astype(np.float64) * MAX_COORDINATE).astype(np.int64)
    return MapLayout(
        version=state.version.name,
        images=state.version.count,
        whole=sample.whole,
        classes=summarise_classes([(int(kinds[k]), names[k]) for k in order], numbers, xs, ys),
        ids=sample.ids,
        numbers=numbers,
        xs=xs,
        ys=ys,
    )


def map_columns(atlas: MapLayout) -> dict[str, Any]:
    """Give a map as a program takes it: a list a column, not an object a point."""
    return {
        "version": atlas.version,
        "images": atlas.images,
        "whole": atlas.whole,
        "scale": MAX_COORDINATE,
        "classes": [
            {"id": g.id, "label": g.label, "images": g.images, "x": g.x, "y": g.y}
            for g in atlas.classes
        ],
        "ids": atlas.ids.tolist(),
        "numbers": atlas.numbers.tolist(),
        "x": atlas.xs.tolist(),
        "y": atlas.ys.tolist(),
    }


def summarise_classes(
    kinds: Sequence[tuple[int, str]], numbers: Ints, xs: Ints, ys: Ints
) -> list[MapClass]:
    """Give what the map says of each class, an id and a label."""
    counts = np.bincount(numbers, minlength=len(kinds))
    places = find_densest_places(numbers, xs, ys, len(kinds))
    others = find_nearest_places(places)
    return [
        MapClass(
            id=kind,
            label=label,
            images=int(counts[n]),
            x=int(places[n, 0]),
            y=int(places[n, 1]),
            where=describe_place(places[n]),
            nearest=None if len(kinds) == 1 else kinds[int(others[n])][1],
            colour=colour_of(n),
        )
        for n, (kind, label) in enumerate(kinds)
    ]


def find_densest_places(numbers: Ints, xs: Ints, ys: Ints, count: int) -> Ints:
    """Where each class lies densest: int64 [count, 2].

    The middle of its images in the three by three cells that hold most of them.
    """
    columns, rows = (v * GRID_CELLS // (MAX_COORDINATE + 1) for v in (xs, ys))
    cells = (numbers * GRID_CELLS + rows) * GRID_CELLS + columns
    filled = np.bincount(cells, minlength=count * GRID_CELLS * GRID_CELLS).reshape(
        count, GRID_CELLS, GRID_CELLS
    )
    padded = np.pad(filled, ((0, 0), (1, 1), (1, 1)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), axis=(1, 2))
    best = windows.sum(axis=(3, 4)).reshape(count, -1).argmax(axis=1)
    row, column = np.divmod(best, GRID_CELLS)
    inside = (abs(rows - row[numbers]) <= 1) & (abs(columns - column[numbers]) <= 1)
    near = [np.bincount(numbers[inside], v[inside], minlength=count) for v in (xs, ys)]
    found = np.stack(near, axis=1) / np.bincount(numbers[inside], minlength=count)[:, None]
    return np.rint(found).astype(np.int64)


def find_nearest_places(places: Ints) -> Ints:
    """Which other place is nearest to each of int64 [K, 2]."""
    distances = ((places[:, None] - places[None]) ** 2).sum(axis=2)
    np.fill_diagonal(distances, np.iinfo(np.int64).max)
    nearest: Ints = distances.argmin(axis=1)
    return nearest


def describe_place(place: Ints) -> str:
    """Say in which ninth of the map a place is."""
    across, down = (min(3 * int(v) // (MAX_COORDINATE + 1), 2) for v in place)
    if (down, across) == (1, 1):
        return "the middle"
    return f"the {ROW_NAMES[down]} {COLUMN_NAMES[across]}"

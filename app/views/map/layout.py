"""The map of the training images: where each of the sample lies, and its class."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from app.database.browse import ClassCount
from app.inference.answers import Ready
from app.views.map.colours import Colour, colour_of
from index.vectors import Ids

Numbers = npt.NDArray[np.int64]
SCALE = 16_383
"""The largest coordinate: finer than a pixel on a screen at the largest magnification, nearly."""
CELLS = 32
"""Cells a side by which a class's densest place is found."""
DOWN, ACROSS = ("top", "middle", "bottom"), ("left", "centre", "right")


@dataclass(frozen=True, kw_only=True)
class Group:
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
    beside: str | None
    colour: Colour


@dataclass(frozen=True, kw_only=True)
class Atlas:
    """A map. ids, numbers, xs, ys: int64 [S], of each image, by rising id.

    version: the index version's name. images: all in it; whole: whether all are on the map.
    groups: by name. numbers: each image's place in `groups`. xs, ys: from 0 to SCALE.
    """

    version: str
    images: int
    whole: bool
    groups: list[Group]
    ids: Ids
    numbers: Numbers
    xs: Numbers
    ys: Numbers


def atlas_of(state: Ready, classes: Sequence[ClassCount]) -> Atlas | None:
    """Make the map of an index version with these classes; None where it has no sample."""
    sample = state.sample
    if sample is None:
        return None
    kinds, inverse = np.unique(state.index.members.classes_of(sample.ids), return_inverse=True)
    labels = {c.id: c.label for c in classes}
    names = [labels.get(kind, "") for kind in kinds.tolist()]
    order = sorted(range(len(kinds)), key=lambda k: (names[k].casefold(), int(kinds[k])))
    numbers = np.argsort(order)[inverse]
    xs, ys = np.rint(sample.points.T.astype(np.float64) * SCALE).astype(np.int64)
    return Atlas(
        version=state.version.name,
        images=state.version.count,
        whole=sample.whole,
        groups=grouped([(int(kinds[k]), names[k]) for k in order], numbers, xs, ys),
        ids=sample.ids,
        numbers=numbers,
        xs=xs,
        ys=ys,
    )


def columns(atlas: Atlas) -> dict[str, Any]:
    """Give a map as a program takes it: a list a column, not an object a point."""
    return {
        "version": atlas.version,
        "images": atlas.images,
        "whole": atlas.whole,
        "scale": SCALE,
        "classes": [
            {"id": g.id, "label": g.label, "images": g.images, "x": g.x, "y": g.y}
            for g in atlas.groups
        ],
        "ids": atlas.ids.tolist(),
        "numbers": atlas.numbers.tolist(),
        "x": atlas.xs.tolist(),
        "y": atlas.ys.tolist(),
    }


def grouped(
    kinds: Sequence[tuple[int, str]], numbers: Numbers, xs: Numbers, ys: Numbers
) -> list[Group]:
    """Give what the map says of each class, an id and a label."""
    counts = np.bincount(numbers, minlength=len(kinds))
    places = densest(numbers, xs, ys, len(kinds))
    others = nearest_others(places)
    return [
        Group(
            id=kind,
            label=label,
            images=int(counts[n]),
            x=int(places[n, 0]),
            y=int(places[n, 1]),
            where=in_words(places[n]),
            beside=None if len(kinds) == 1 else kinds[int(others[n])][1],
            colour=colour_of(n),
        )
        for n, (kind, label) in enumerate(kinds)
    ]


def densest(numbers: Numbers, xs: Numbers, ys: Numbers, count: int) -> Numbers:
    """Where each class lies densest: int64 [count, 2].

    The middle of its images in the three by three cells that hold most of them.
    """
    columns, rows = (v * CELLS // (SCALE + 1) for v in (xs, ys))
    cells = (numbers * CELLS + rows) * CELLS + columns
    filled = np.bincount(cells, minlength=count * CELLS * CELLS).reshape(count, CELLS, CELLS)
    padded = np.pad(filled, ((0, 0), (1, 1), (1, 1)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), axis=(1, 2))
    best = windows.sum(axis=(3, 4)).reshape(count, -1).argmax(axis=1)
    row, column = np.divmod(best, CELLS)
    inside = (abs(rows - row[numbers]) <= 1) & (abs(columns - column[numbers]) <= 1)
    near = [np.bincount(numbers[inside], v[inside], minlength=count) for v in (xs, ys)]
    found = np.stack(near, axis=1) / np.bincount(numbers[inside], minlength=count)[:, None]
    return np.rint(found).astype(np.int64)


def nearest_others(places: Numbers) -> Numbers:
    """Which other place is nearest to each of int64 [K, 2]."""
    distances = ((places[:, None] - places[None]) ** 2).sum(axis=2)
    np.fill_diagonal(distances, np.iinfo(np.int64).max)
    nearest: Numbers = distances.argmin(axis=1)
    return nearest


def in_words(place: Numbers) -> str:
    """Say in which ninth of the map a place is."""
    across, down = (min(3 * int(v) // (SCALE + 1), 2) for v in place)
    if (down, across) == (1, 1):
        return "the middle"
    return f"the {DOWN[down]} {ACROSS[across]}"

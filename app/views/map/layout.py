"""The map's data: where each sampled image lies, and each class's colour and densest part."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from app.database.browse import ClassCount
from app.inference.state import Ready
from index.id_map import Classes
from index.review.stored import Review
from index.vectors import Ids

Ints = npt.NDArray[np.int64]
MAX_COORDINATE = 16_383
"""Coordinates are integers from 0: almost finer than a screen pixel at the largest zoom."""
GRID_CELLS = 32
"""Cells a side of the grid in which a class's densest part is found."""
UNKNOWN = 0xFFFF
"""Stands, in the points file, for a guess that is none of the classes on the map."""
ROW_NAMES, COLUMN_NAMES = ("top", "middle", "bottom"), ("left", "centre", "right")


@dataclass(frozen=True)
class Colour:
    """A CSS colour for the light scheme and one for the dark scheme."""

    light: str
    dark: str


COLOURS = (
    Colour("#0070a6", "#66b4e8"),
    Colour("#773913", "#b97b5b"),
    Colour("#6d9847", "#b4dd93"),
    Colour("#4c3f8a", "#8981ca"),
    Colour("#a77990", "#efbdd5"),
    Colour("#776559", "#bba699"),
    Colour("#3a5255", "#789294"),
    Colour("#934b83", "#d690c5"),
    Colour("#617209", "#a2b564"),
    Colour("#3a95b9", "#8ddafc"),
    Colour("#045d35", "#5c9d75"),
    Colour("#b66ba5", "#fbb3e9"),
    Colour("#ab821e", "#efc878"),
    Colour("#3b4c71", "#788cb4"),
    Colour("#6c6c3f", "#aeae7f"),
    Colour("#775996", "#b99cd8"),
    Colour("#499c76", "#97e1bc"),
    Colour("#3a756a", "#7cb9ac"),
    Colour("#7f9165", "#c3d6a8"),
    Colour("#6b3767", "#ab78a6"),
)
"""Class colours, reused from the twenty-first class on.

Chosen in OKLab to be as far apart as possible, for colour-blind readers too, each with a contrast
of at least 3 to the background. They are muted and leave out red, which marks correct labels on
the other pages. The first ten are farther apart than the rest.
"""


@dataclass(frozen=True, kw_only=True)
class MapClass:
    """A class on the map.

    images: how many of its images are on the map. x, y: its densest part, from 0 to
    MAX_COORDINATE, rightwards and downwards. where: the same in words. nearest: the label of the
    class with the nearest densest part, or None if there is only one class.
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
class TrainingMap:
    """The map of one index version. ids, numbers, xs, ys: int64 [S], in ascending order of id.

    version: the index version's name. images: how many are indexed. whole: whether all of them
    are on the map. classes: in alphabetical order. numbers: each image's position in `classes`.
    xs, ys: from 0 to MAX_COORDINATE. guesses: the position in `classes` of the network's guess for
    each image, UNKNOWN for another class; None for an index that was not reviewed.
    """

    version: str
    images: int
    whole: bool
    classes: list[MapClass]
    ids: Ids
    numbers: Ints
    xs: Ints
    ys: Ints
    guesses: Ints | None = None


def build_training_map(state: Ready, class_counts: Sequence[ClassCount]) -> TrainingMap | None:
    """Lay out the map of an index version; None if the version has no sample."""
    sample = state.sample
    if sample is None:
        return None
    class_ids, inverse = np.unique(state.index.id_map.find_classes(sample.ids), return_inverse=True)
    labels = {c.id: c.label for c in class_counts}
    names = [labels.get(class_id, "") for class_id in class_ids.tolist()]
    order = sorted(range(len(names)), key=lambda k: (names[k].casefold(), int(class_ids[k])))
    positions = np.argsort(order)
    numbers = positions[inverse]
    xs, ys = np.rint(sample.points.T.astype(np.float64) * MAX_COORDINATE).astype(np.int64)
    return TrainingMap(
        version=state.version.name,
        images=state.version.count,
        whole=sample.whole,
        classes=summarise_classes([(int(class_ids[k]), names[k]) for k in order], numbers, xs, ys),
        ids=sample.ids,
        numbers=numbers,
        xs=xs,
        ys=ys,
        guesses=None
        if state.review is None
        else find_guesses(state.review, sample.ids, class_ids, positions),
    )


def find_guesses(review: Review, ids: Ids, class_ids: Classes, numbers: Ints) -> Ints:
    """Find the network's guess for each image, int64 [S], as a position on the map.

    class_ids: of the map's classes, ascending; numbers: their positions on the map, int64. UNKNOWN
    stands for images that were not reviewed, too.
    """
    order = np.argsort(review.ids, kind="stable")
    places = order[np.minimum(np.searchsorted(review.ids, ids, sorter=order), len(order) - 1)]
    guesses = review.guesses[places]
    found = np.minimum(np.searchsorted(class_ids, guesses), len(class_ids) - 1)
    known = (review.ids[places] == ids) & (class_ids[found] == guesses)
    return np.where(known, numbers[found], UNKNOWN)


def list_map_columns(layout: TrainingMap) -> dict[str, Any]:
    """Return the map as JSON: one list per column rather than one object per point."""
    return {
        "version": layout.version,
        "images": layout.images,
        "whole": layout.whole,
        "scale": MAX_COORDINATE,
        "classes": list_classes_with_places(layout),
        "ids": layout.ids.tolist(),
        "numbers": layout.numbers.tolist(),
        "x": layout.xs.tolist(),
        "y": layout.ys.tolist(),
        "guesses": None
        if layout.guesses is None
        else [None if guess == UNKNOWN else guess for guess in layout.guesses.tolist()],
    }


def list_classes_with_places(layout: TrainingMap) -> list[dict[str, Any]]:
    """Return the map's classes as JSON, each with its densest part."""
    return [
        {"id": c.id, "label": c.label, "images": c.images, "x": c.x, "y": c.y}
        for c in layout.classes
    ]


def summarise_classes(
    classes: Sequence[tuple[int, str]], numbers: Ints, xs: Ints, ys: Ints
) -> list[MapClass]:
    """Describe each class, given its id and label, on the map."""
    counts = np.bincount(numbers, minlength=len(classes))
    places = find_densest_places(numbers, xs, ys, len(classes))
    nearest = find_nearest_places(places)
    return [
        MapClass(
            id=class_id,
            label=label,
            images=int(counts[n]),
            x=int(places[n, 0]),
            y=int(places[n, 1]),
            where=describe_place(places[n]),
            nearest=None if len(classes) == 1 else classes[int(nearest[n])][1],
            colour=COLOURS[n % len(COLOURS)],
        )
        for n, (class_id, label) in enumerate(classes)
    ]


def find_densest_places(numbers: Ints, xs: Ints, ys: Ints, count: int) -> Ints:
    """Find the densest part of each class: int64 [count, 2].

    The mean of the class's images in the 3 × 3 grid cells that hold most of them.
    """
    columns, rows = (v * GRID_CELLS // (MAX_COORDINATE + 1) for v in (xs, ys))
    cells = (numbers * GRID_CELLS + rows) * GRID_CELLS + columns
    filled = np.bincount(cells, minlength=count * GRID_CELLS * GRID_CELLS)
    padded = np.pad(filled.reshape(count, GRID_CELLS, GRID_CELLS), ((0, 0), (1, 1), (1, 1)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), axis=(1, 2))
    best = windows.sum(axis=(3, 4)).reshape(count, -1).argmax(axis=1)
    row, column = np.divmod(best, GRID_CELLS)
    inside = (abs(rows - row[numbers]) <= 1) & (abs(columns - column[numbers]) <= 1)
    sums = [np.bincount(numbers[inside], v[inside], minlength=count) for v in (xs, ys)]
    means = np.stack(sums, axis=1) / np.bincount(numbers[inside], minlength=count)[:, None]
    return np.rint(means).astype(np.int64)


def find_nearest_places(places: Ints) -> Ints:
    """Find the nearest other place for each of int64 [K, 2]: int64 [K]."""
    distances = ((places[:, None] - places[None]) ** 2).sum(axis=2)
    np.fill_diagonal(distances, np.iinfo(np.int64).max)
    nearest: Ints = distances.argmin(axis=1)
    return nearest


def describe_place(place: Ints) -> str:
    """Name the ninth of the map that a place lies in."""
    across, down = (min(3 * int(v) // (MAX_COORDINATE + 1), 2) for v in place)
    if (down, across) == (1, 1):
        return "middle"
    return f"{ROW_NAMES[down]} {COLUMN_NAMES[across]}"

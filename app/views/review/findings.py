"""What the review shows: which of its images, in which order."""

from collections.abc import Collection
from dataclasses import dataclass, field
from enum import StrEnum

import numpy as np

from index.review.doubts import Bools
from index.review.stored import Review
from index.vectors import Floats, Ids


class Show(StrEnum):
    """The parts of the review."""

    LABELS = "labels"
    LEAKS = "leaks"
    DUPLICATES = "duplicates"
    OUTLIERS = "outliers"
    ALL = "all"


class Sort(StrEnum):
    """What images are sorted by, largest first."""

    DOUBT = "doubt"
    LOSS = "loss"
    DISTANCE = "distance"


@dataclass(frozen=True, kw_only=True)
class ReviewQuery:
    """What to show.

    named: ids of the images whose file names match; None for all. split: `train`, `val` or empty
    for both. label, guess: class ids, 0 for any.
    """

    show: Show = Show.LABELS
    sort: Sort = Sort.DOUBT
    split: str = ""
    label: int = 0
    guess: int = 0
    named: Collection[int] | None = None


@dataclass(frozen=True, kw_only=True)
class PairFinding:
    """Two copies. distance, pixels: as stored. exact: whether all pixels are the same."""

    places: tuple[int, int]
    distance: float
    pixels: float
    exact: bool


@dataclass(frozen=True, kw_only=True)
class Findings:
    """What a query finds: images at these places of the review, int64, or pairs of them."""

    places: Ids = field(default_factory=lambda: np.empty(0, np.int64))
    pairs: list[PairFinding] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.places) + len(self.pairs)


def count_findings(review: Review) -> dict[Show, int]:
    """Count what each part of the review holds."""
    leaks = mark_leaks(review)
    return {
        Show.LABELS: int(review.contested.sum()),
        Show.LEAKS: int(leaks.sum()),
        Show.DUPLICATES: int((~leaks).sum()),
        Show.OUTLIERS: int(review.outliers.sum()),
        Show.ALL: len(review.ids),
    }


def find_findings(review: Review, query: ReviewQuery) -> Findings:
    """Find what a query asks for, in its order."""
    chosen = mark_chosen(review, query)
    if query.show in (Show.LEAKS, Show.DUPLICATES):
        return Findings(pairs=list_pairs(review, query.show, chosen))
    if query.show is Show.LABELS:
        chosen &= review.contested
    if query.show is Show.OUTLIERS:
        chosen &= review.outliers
    keys: dict[Sort, Floats] = {
        Sort.DOUBT: review.doubts,
        Sort.LOSS: review.losses,
        Sort.DISTANCE: review.outlying if query.show is Show.OUTLIERS else review.distances,
    }
    places = np.flatnonzero(chosen)
    return Findings(places=places[np.argsort(-keys[query.sort][places], kind="stable")])


def mark_chosen(review: Review, query: ReviewQuery) -> Bools:
    """Mark the images that a query's filters let through: bool [N]."""
    chosen = np.ones(len(review.ids), bool)
    if query.split:
        chosen &= review.validation == (query.split == "val")
    if query.label:
        chosen &= review.classes == query.label
    if query.guess:
        chosen &= review.guesses == query.guess
    if query.named is not None:
        chosen &= np.isin(review.ids, np.array(sorted(query.named), np.int64))
    return chosen


def mark_leaks(review: Review) -> Bools:
    """Mark the pairs of a training and a validation image: bool [P]."""
    return mark_different(review.validation[review.find_places(review.pairs)])


def mark_different(values: Bools | Ids) -> Bools:
    """Mark the rows whose two values differ: [P, 2] → bool [P]."""
    different: Bools = np.not_equal(values[:, 0], values[:, 1])
    return different


def list_pairs(review: Review, show: Show, chosen: Bools) -> list[PairFinding]:
    """List leaks or duplicates with a chosen image: of two classes first, then by distance."""
    places = review.find_places(review.pairs)
    leaks = mark_different(review.validation[places])
    wanted = leaks if show is Show.LEAKS else ~leaks
    across = mark_different(review.classes[places].astype(np.int64))
    numbers = np.flatnonzero(wanted & chosen[places].any(axis=1))
    order = np.lexsort((review.pair_distances[numbers], ~across[numbers]))
    return [
        PairFinding(
            places=(int(places[n, 0]), int(places[n, 1])),
            distance=float(review.pair_distances[n]),
            pixels=float(review.pair_pixels[n]),
            exact=bool(review.pair_exact[n]),
        )
        for n in numbers[order].tolist()
    ]

"""What a kind of index has to do: propose rows among which the nearest are."""

import math
from dataclasses import dataclass
from typing import Protocol

from index.vectors import Floats, Ids


class SearchError(Exception):
    """The engine that searches cannot be reached or has failed; trying again may help."""


@dataclass(frozen=True)
class RowFilter:
    """Which rows may be answered with.

    rows: int64, distinct and rising; None where every row may that an image points to.
    classes and without: what it was made of, for engines that filter by themselves.
    """

    rows: Ids | None = None
    classes: tuple[int, ...] | None = None
    without: int | None = None


MAX_CANDIDATES = 2048
"""The most candidates that every engine proposes at once."""
TUNED_NEIGHBOURS = 6
MIN_EXTRA_CANDIDATES = 32
"""Candidates beyond those asked for, at least."""


def scale_effort(k: int, candidates: int, effort: int) -> tuple[int, int]:
    """How many candidates, and with what effort, for k neighbours.

    candidates and effort: what was found to serve the six nearest. Neighbours farther off lie in
    more lists, so more are looked into; and codes tell them apart less well, so more are compared.
    """
    growth = math.sqrt(max(k, TUNED_NEIGHBOURS) / TUNED_NEIGHBOURS)
    count = min(MAX_CANDIDATES, max(4 * k, math.ceil(candidates * growth)))
    return max(count, k + MIN_EXTRA_CANDIDATES), effort + (k > 24) + (k >= 100)


class SearchEngine(Protocol):
    """Proposes rows; may be called from several threads at once.

    levels: efforts from 0 to levels − 1, of rising recall and cost. exhaustive: whether every
    vector is compared, so that what is proposed is the nearest up to float32's rounding.
    """

    levels: int
    exhaustive: bool

    def propose(self, queries: Floats, count: int, view: RowFilter, effort: int) -> Ids:
        """Rows near each query: float32 [N, 4096] → int64 [N, count], −1 where there are fewer.

        In any order; rows that the view does not hold may be among them. Raises SearchError.
        """

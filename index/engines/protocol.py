"""The interface of an engine, which proposes rows that should include the nearest neighbours."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from index.engines.options import SearchDevice
from index.id_map import IdMap
from index.manifest import Shard
from index.projection import Projections
from index.vectors import Floats, Ids, Vectors

MAX_CANDIDATES = 2048
"""The most candidates that every engine can propose at once."""
TUNED_NEIGHBOURS = 6
"""The number of neighbours that effort and candidates are tuned for."""
MIN_EXTRA_CANDIDATES = 8
"""The least number of candidates to request beyond the neighbours asked for: some may be left out,
or be of the same pixels."""


class SearchError(Exception):
    """The engine cannot be reached or has failed; trying again may help."""


@dataclass(frozen=True)
class RowFilter:
    """Which rows may be proposed.

    rows: int64, distinct and ascending; None for every row that an image points to. classes: ids of
    the classes that `rows` belong to, for engines that filter by class themselves.
    """

    rows: Ids | None = None
    classes: tuple[int, ...] | None = None


class SearchEngine(Protocol):
    """Proposes rows. Thread-safe.

    levels: efforts run from 0 to levels − 1, with increasing recall and cost. exhaustive: whether
    every vector is compared, so that the proposed rows are the nearest up to the rounding of
    float32, and of the query to the stored dtype. filters: whether it proposes only rows of a
    filter; one that does not is never asked with any.
    """

    levels: int
    exhaustive: bool
    filters: bool

    def propose(self, queries: Floats, count: int, row_filter: RowFilter, effort: int) -> Ids:
        """Propose rows near each query: float32 [N, 4096] → int64 [N, count], −1 as padding.

        In any order. Raises SearchError.
        """


@dataclass(frozen=True, kw_only=True)
class VersionData:
    """What an engine needs of an index version.

    name: the version's. folder: holds the engine's own files. projections: of the live rows, if
    there are any. device: where to search.
    """

    name: str
    folder: Path
    vectors: Vectors
    id_map: IdMap
    projections: Projections | None = None
    device: SearchDevice = field(default_factory=SearchDevice)


@dataclass(frozen=True, kw_only=True)
class EarlierEngine:
    """What an update reuses of an earlier version.

    folder: holds the engine's own files. shards: of the version's vectors.
    """

    folder: Path
    shards: Sequence[Shard]
    parameters: Mapping[str, Any]


def scale_effort(k: int, candidates: int, effort: int) -> tuple[int, int]:
    """Scale candidates and effort, tuned for six neighbours, to k; return (candidates, effort).

    More distant neighbours are spread over more lists, so more lists are searched; short codes
    separate them less well, so more candidates are compared.
    """
    growth = math.sqrt(max(k, TUNED_NEIGHBOURS) / TUNED_NEIGHBOURS)
    least = 4 * k if k > TUNED_NEIGHBOURS else 0
    count = min(MAX_CANDIDATES, max(least, math.ceil(candidates * growth)))
    return max(count, k + MIN_EXTRA_CANDIDATES), effort + (k > 24) + (k >= 100)

"""How much effort a kind needs for the recall that is asked for, measured on the index itself."""

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from faiss.contrib.exhaustive_search import knn_ground_truth

from index.candidates import RowFilter, SearchEngine, scale_effort
from index.engines.reduction import draw_rows
from index.progress import Report, silent
from index.vectors import DTYPES, Floats, Ids, Vectors

CANDIDATE_COUNTS = (64, 128, 256, 512, 1024, 2048)
"""How many rows may be proposed for the six nearest."""
FAR_NEIGHBOURS = 100
"""Of so many neighbours the recall is told too."""
MIN_MAX_QUERIES = (256, 1024)
"""Rows asked about: at least, where there are so many, and at most."""
NOT_INDEXED = -1
"""In place of a row's number: a query that is not in the index."""
SECONDS_PER_CANDIDATE = 1e-5
"""Seconds that a proposed row costs: 8 KiB read, 4096 differences squared and summed."""
Z_95 = 1.645
"""Standard deviations of the margin for what a sample may hide: 95 % certainty, one-sided."""


@dataclass(frozen=True, kw_only=True)
class TunedEffort:
    """The cheapest effort and number of candidates that reach the target, or else the best.

    recall: of the true nearest among the proposed, `recall@6` and `recall@100`, 0–1, the lower of
    those for the index's own vectors and for others, and over how many `queries`. reached: whether
    it is the target even where the sample flatters it.
    """

    effort: int
    candidates: int
    recall: dict[str, float]
    reached: bool


@dataclass(frozen=True)
class EffortTrial:
    """What one effort and number of candidates give: recall, and seconds a query."""

    effort: int
    count: int
    recall: float
    cost: float


def tune_effort(
    candidates: SearchEngine,
    vectors: Vectors,
    rows: Ids | None,
    target: float,
    *,
    k: int = 6,
    seed: int = 2012,
    held_out: Floats | None = None,
    report: Report | None = None,
) -> TunedEffort:
    """Find the least effort that gives `target` of the k nearest, 0–1, without the row itself.

    rows: int64, those that an image points to, rising; None for all. held_out: float32 [N, 4096]
    of images that are not in the index, as uploads are: their neighbours are farther off than
    those of its own vectors, and harder to find. Raises SearchError.
    """
    rows = np.arange(len(vectors)) if rows is None else rows
    asked = sample_query_rows(rows, target, seed)
    queries, sample = vectors.take(asked), asked is not rows
    if held_out is not None and len(held_out):
        stored = held_out.astype(DTYPES[vectors.dtype]).astype(np.float32)
        queries = np.concatenate([queries, stored])
        asked = np.concatenate([asked, np.full(len(stored), NOT_INDEXED)])
    true = true_neighbours(vectors, rows, asked, queries, max(k, FAR_NEIGHBOURS), report)
    bench = RecallBench(candidates, asked, queries, true[:, :k], sample)
    best = find_cheapest(bench, candidate_counts(len(rows)), target)
    count, effort = scale_effort(FAR_NEIGHBOURS, best.count, best.effort)
    far = bench.recall(min(effort, candidates.levels - 1), count, true)
    recall = {
        f"recall@{k}": best.recall,
        f"recall@{FAR_NEIGHBOURS}": far,
        "queries": float(len(asked)),
    }
    return TunedEffort(
        effort=best.effort,
        candidates=best.count,
        recall=recall,
        reached=bench.reaches(best.recall, target),
    )


def sample_query_rows(rows: Ids, target: float, seed: int) -> Ids:
    """Rows to ask about, rising: the more, the nearer the target is to 1."""
    least, most = MIN_MAX_QUERIES
    count = min(most, max(least, math.ceil(4 * Z_95**2 / max(1 - target, 1e-9))))
    return draw_rows(rows, count, seed)


def candidate_counts(rows: int) -> list[int]:
    """The numbers of candidates to try: none much larger than the index."""
    return [count for count in CANDIDATE_COUNTS if count < 2 * rows] or [CANDIDATE_COUNTS[0]]


def true_neighbours(
    vectors: Vectors, rows: Ids, asked: Ids, queries: Floats, k: int, report: Report | None
) -> Ids:
    """The true k nearest rows of each query but itself, by comparing all: −1 where fewer are."""
    step = (report or silent)("Measuring", len(rows))
    parts = vectors_with_progress(vectors.chunks_of(rows), step)
    most = min(k + 1, len(rows))
    places: Ids = knn_ground_truth(queries, parts, most, ngpu=0)[1]  # type: ignore[no-untyped-call]
    found = rows[places]
    own = found == asked[:, None]
    # A row with equal numbers may have taken the query's own place: then the last one goes.
    own[~own.any(axis=1), -1] = True
    others: Ids = found[~own].reshape(len(asked), -1)
    return others


def vectors_with_progress(
    parts: Iterator[tuple[Ids, Floats]], step: Callable[[int], object]
) -> Iterator[Floats]:
    """The vectors of each part, telling how many came before."""
    done = 0
    for numbers, values in parts:
        yield values
        done += len(numbers)
        step(done)


class RecallBench:
    """Measures an effort: `propose` for every query at once, against the truth."""

    def __init__(
        self, candidates: SearchEngine, asked: Ids, queries: Floats, true: Ids, sample: bool
    ) -> None:
        """sample: whether the index's own queries are only some of its rows."""
        self.candidates, self.asked, self.queries, self.true = candidates, asked, queries, true
        self.sample = sample or bool((asked == NOT_INDEXED).any())
        self.groups = [own for own in (asked != NOT_INDEXED, asked == NOT_INDEXED) if own.any()]
        self.tried: dict[tuple[int, int], EffortTrial] = {}

    def trial(self, effort: int, count: int) -> EffortTrial:
        """Recall and cost of an effort and number of candidates; measured once."""
        if (effort, count) not in self.tried:
            started = time.perf_counter()
            recall = self.recall(effort, count, self.true)
            seconds = (time.perf_counter() - started) / len(self.asked)
            self.tried[effort, count] = EffortTrial(
                effort, count, recall, seconds + count * SECONDS_PER_CANDIDATE
            )
        return self.tried[effort, count]

    def recall(self, effort: int, count: int, true: Ids) -> float:
        """Share of the true rows among the proposed, of the queries for which it is lower.

        One more is asked for, the row itself.
        """
        found = self.candidates.propose(self.queries, count + 1, RowFilter(), effort)
        if not true.size:
            return 1.0
        hits = np.array([np.isin(t, f).mean() for t, f in zip(true, found, strict=True)])
        return float(min(hits[group].mean() for group in self.groups))

    def reaches(self, recall: float, target: float) -> bool:
        """Whether the target is reached, less the margin for what a sample may hide.

        The lower end of Wilson's interval over the queries, not over their neighbours, which are
        found or missed together. A sample without any miss counts, however small.
        """
        if not self.sample or recall == 1:
            return recall >= target
        return wilson_lower_bound(recall, min(int(group.sum()) for group in self.groups)) >= target


def wilson_lower_bound(share: float, count: int) -> float:
    """Lower end of Wilson's interval for a share of so many."""
    square = Z_95**2 / count
    spread = math.sqrt(share * (1 - share) / count + square / (4 * count)) * Z_95
    return (share + square / 2 - spread) / (1 + square)


def find_cheapest(bench: RecallBench, counts: list[int], target: float) -> EffortTrial:
    """The cheapest trial that reaches the target; where none does, the one of highest recall."""
    good: list[EffortTrial] = []
    for count in counts:
        least = find_least_effort(bench, count, target)
        if least is not None:
            good.append(least)
        # More candidates cost more: past the cheapest by refining alone there is nothing to win.
        if good and count * 2 * SECONDS_PER_CANDIDATE > min(trial.cost for trial in good):
            break
    if good:
        return min(good, key=lambda trial: trial.cost)
    return max(bench.tried.values(), key=lambda trial: (trial.recall, -trial.cost))


def find_least_effort(bench: RecallBench, count: int, target: float) -> EffortTrial | None:
    """The trial of least effort that reaches the target with so many candidates, by halving."""
    low, high = 0, bench.candidates.levels - 1
    if not bench.reaches(bench.trial(high, count).recall, target):
        return None
    while low < high:
        middle = (low + high) // 2
        if bench.reaches(bench.trial(middle, count).recall, target):
            high = middle
        else:
            low = middle + 1
    return bench.trial(low, count)

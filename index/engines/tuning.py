"""The effort that an engine needs for a recall, measured on the index itself."""

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from faiss.contrib.exhaustive_search import knn_ground_truth

from index.engines.protocol import TUNED_NEIGHBOURS, RowFilter, SearchEngine, scale_effort
from index.engines.reduction import draw_rows
from index.vectors import DTYPES, Floats, Ids, Vectors
from storage.progress import Report, ignore_progress

CANDIDATE_COUNTS = (64, 128, 256, 512, 1024, 2048)
"""The numbers of candidates to try for the six nearest."""
FAR_NEIGHBOURS = 100
"""The recall of this many neighbours is reported too."""
MIN_MAX_QUERIES = (256, 1024)
"""The fewest queries, if there are so many rows, and the most."""
NOT_INDEXED = -1
"""Stands for the row number of a query that is not in the index."""
SECONDS_PER_CANDIDATE = 1e-5
"""What a candidate costs: 8 KiB read, 4096 differences squared and summed."""
Z_95 = 1.645
"""Standard deviations of the margin for sampling error: 95 % certainty, one-sided."""


@dataclass(frozen=True, kw_only=True)
class TunedEffort:
    """The cheapest effort and number of candidates that reach the target, or else the best.

    recall: the share of the true nearest among the candidates, `recall@6` and `recall@100`, 0–1,
    the lower of those for the index's own vectors and for others; and the number of `queries`.
    reached: whether it is the target, even if the sample flatters it.
    """

    effort: int
    candidates: int
    recall: dict[str, float]
    reached: bool


@dataclass(frozen=True)
class EffortTrial:
    """The recall, and the seconds a query, of one effort and number of candidates."""

    effort: int
    count: int
    recall: float
    cost: float


def tune_effort(
    engine: SearchEngine,
    vectors: Vectors,
    rows: Ids,
    target: float,
    *,
    k: int = TUNED_NEIGHBOURS,
    seed: int = 2012,
    held_out: Floats | None = None,
    report: Report = ignore_progress,
) -> TunedEffort:
    """Find the least effort that finds the share `target`, 0–1, of a row's k nearest other rows.

    rows: int64, those that an image points to, rising. held_out: float32 [N, 4096] of images that
    are not in the index, as uploads are: their neighbours are farther away than those of the
    index's own vectors, and harder to find. Raises SearchError.
    """
    query_rows = sample_query_rows(rows, target, seed)
    queries, sampled = vectors.take(query_rows), query_rows is not rows
    if held_out is not None and len(held_out):
        stored = held_out.astype(DTYPES[vectors.dtype]).astype(np.float32)
        queries = np.concatenate([queries, stored])
        query_rows = np.concatenate([query_rows, np.full(len(stored), NOT_INDEXED)])
    truth = find_true_neighbours(vectors, rows, query_rows, queries, max(k, FAR_NEIGHBOURS), report)
    measurement = RecallMeasurement(engine, query_rows, queries, truth[:, :k], sampled)
    best = find_cheapest(measurement, list_candidate_counts(len(rows)), target)
    count, effort = scale_effort(FAR_NEIGHBOURS, best.count, best.effort)
    far = measurement.measure_recall(min(effort, engine.levels - 1), count, truth)
    recall = {f"recall@{k}": best.recall, f"recall@{FAR_NEIGHBOURS}": far}
    return TunedEffort(
        effort=best.effort,
        candidates=best.count,
        recall=recall | {"queries": float(len(query_rows))},
        reached=measurement.reaches(best.recall, target),
    )


def sample_query_rows(rows: Ids, target: float, seed: int) -> Ids:
    """Draw rows to query with, rising: the nearer the target is to 1, the more."""
    fewest, most = MIN_MAX_QUERIES
    count = min(most, max(fewest, math.ceil(4 * Z_95**2 / max(1 - target, 1e-9))))
    return draw_rows(rows, count, seed)


def list_candidate_counts(rows: int) -> list[int]:
    """List the numbers of candidates to try: none much larger than the index."""
    return [count for count in CANDIDATE_COUNTS if count < 2 * rows] or [CANDIDATE_COUNTS[0]]


def find_true_neighbours(
    vectors: Vectors, rows: Ids, query_rows: Ids, queries: Floats, k: int, report: Report
) -> Ids:
    """Find each query's true k nearest rows without its own, by comparing all: int64 [N, ≤ k]."""
    done = report("Measuring", len(rows))
    parts = report_while_reading(vectors.read_row_chunks(rows), done)
    count = min(k + 1, len(rows))
    places: Ids = knn_ground_truth(queries, parts, count, ngpu=0)[1]  # type: ignore[no-untyped-call]
    nearest = rows[places]
    is_own = nearest == query_rows[:, None]
    # An equal vector may have taken the place of the query's own row: then the last one goes.
    is_own[~is_own.any(axis=1), -1] = True
    others: Ids = nearest[~is_own].reshape(len(query_rows), -1)
    return others


def report_while_reading(
    parts: Iterator[tuple[Ids, Floats]], report_done: Callable[[int], object]
) -> Iterator[Floats]:
    """Give the vectors of each part, and report how many have been used."""
    done = 0
    for numbers, values in parts:
        yield values
        done += len(numbers)
        report_done(done)


class RecallMeasurement:
    """Measures efforts: what an engine proposes for all queries, against the truth."""

    def __init__(
        self, engine: SearchEngine, query_rows: Ids, queries: Floats, truth: Ids, sampled: bool
    ) -> None:
        """sampled: whether the queries from the index are only some of its rows."""
        self.engine, self.query_rows, self.queries, self.truth = engine, query_rows, queries, truth
        indexed = query_rows != NOT_INDEXED
        self.sampled = sampled or not indexed.all()
        self.groups = [group for group in (indexed, ~indexed) if group.any()]
        self.trials: dict[tuple[int, int], EffortTrial] = {}

    def measure_trial(self, effort: int, count: int) -> EffortTrial:
        """Measure an effort and number of candidates once."""
        if (effort, count) not in self.trials:
            started = time.perf_counter()
            recall = self.measure_recall(effort, count, self.truth)
            seconds = (time.perf_counter() - started) / len(self.query_rows)
            cost = seconds + count * SECONDS_PER_CANDIDATE
            self.trials[effort, count] = EffortTrial(effort, count, recall, cost)
        return self.trials[effort, count]

    def measure_recall(self, effort: int, count: int, truth: Ids) -> float:
        """Give the share of the true rows among `count` candidates and the query's own row.

        Of queries from the index and others, the lower share counts.
        """
        proposed = self.engine.propose(self.queries, count + 1, RowFilter(), effort)
        if not truth.size:
            return 1.0
        hits = np.array([np.isin(t, p).mean() for t, p in zip(truth, proposed, strict=True)])
        return float(min(hits[group].mean() for group in self.groups))

    def reaches(self, recall: float, target: float) -> bool:
        """Whether a measured recall is the target, less a margin for sampling error.

        The lower end of Wilson's interval over the queries, not over their neighbours, which are
        found or missed together. A sample without a miss is believed, however small.
        """
        if not self.sampled or recall == 1:
            return recall >= target
        return wilson_lower_bound(recall, min(int(g.sum()) for g in self.groups)) >= target


def wilson_lower_bound(share: float, count: int) -> float:
    """Give the lower end of Wilson's interval for a share of `count` queries."""
    square = Z_95**2 / count
    spread = math.sqrt(share * (1 - share) / count + square / (4 * count)) * Z_95
    return (share + square / 2 - spread) / (1 + square)


def find_cheapest(measurement: RecallMeasurement, counts: list[int], target: float) -> EffortTrial:
    """Find the cheapest trial that reaches the target, or else the one with the highest recall."""
    reaching: list[EffortTrial] = []
    for count in counts:
        trial = find_least_effort(measurement, count, target)
        if trial is not None:
            reaching.append(trial)
        # More candidates cost more to compare: beyond the cheapest trial's cost nothing is won.
        if reaching and count * 2 * SECONDS_PER_CANDIDATE > min(t.cost for t in reaching):
            break
    if reaching:
        return min(reaching, key=lambda trial: trial.cost)
    return max(measurement.trials.values(), key=lambda trial: (trial.recall, -trial.cost))


def find_least_effort(
    measurement: RecallMeasurement, count: int, target: float
) -> EffortTrial | None:
    """Find the least effort that reaches the target with so many candidates, by bisection."""
    low, high = 0, measurement.engine.levels - 1
    if not measurement.reaches(measurement.measure_trial(high, count).recall, target):
        return None
    while low < high:
        middle = (low + high) // 2
        if measurement.reaches(measurement.measure_trial(middle, count).recall, target):
            high = middle
        else:
            low = middle + 1
    return measurement.measure_trial(low, count)

"""Tunes an engine: the effort it needs for a target recall, measured on the index itself."""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from time import perf_counter

import numpy as np

from index.engines.protocol import TUNED_NEIGHBOURS, RowFilter, SearchEngine, scale_effort
from index.engines.reduction import draw_rows
from index.exact import ExactSearch
from index.id_map import IdMap
from index.projection import Projections
from index.ranking import ImageFilter
from index.vectors import DTYPES, Floats, Ids, Vectors
from storage.progress import Report, ignore_progress

CANDIDATE_COUNTS = (16, 32, 64, 128, 256, 512, 1024, 2048)
"""Numbers of candidates to try for the six nearest."""
FAR_NEIGHBOURS = 100
"""The recall of this many neighbours is reported too."""
MIN_MAX_QUERIES = (256, 1024)
"""Limits of the number of queries: fewest, given enough rows, and most."""
WITHIN_CLASSES = f"recall@{TUNED_NEIGHBOURS} within classes"
"""The name of the recall of searches that are restricted to one class."""
QUERIES_WITHIN_CLASSES = 64
"""Queries to measure it with."""
QUERIES_OF_NEW_ROWS = 64
"""New rows of an updated index to query with, where its effort is kept."""
NOT_INDEXED = -1
"""Row number of a query that is not in the index."""
SECONDS_PER_CANDIDATE = 1e-5
"""Cost of comparing a candidate: 8 KiB read, 4096 squared differences summed."""
Z_95 = 1.645
"""Normal quantile for a one-sided 95 % confidence bound."""


@dataclass(frozen=True, kw_only=True)
class TunedEffort:
    """The cheapest effort and number of candidates that reach the target, or else the best.

    recall: `recall@6` and `recall@100`, the share of the true nearest among the candidates, 0–1,
    the lower of the values for indexed and for held-out queries; the recall within classes; and the
    number of `queries`.
    reached: whether the target is reached, allowing for sampling error.
    """

    effort: int
    candidates: int
    recall: dict[str, float]
    reached: bool


@dataclass(frozen=True)
class EffortTrial:
    """The recall, 0–1, and the cost, in seconds per query, of one effort and candidate count."""

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
    """Find the cheapest effort whose recall of a row's k nearest other rows is `target`, 0–1.

    rows: int64, ascending, those that an image points to. held_out: float32 [N, 4096] of images
    outside the index, like uploads: their neighbours are farther away than those of indexed
    vectors, and harder to find. Raises SearchError.
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


def tune_within_classes(
    engine: SearchEngine,
    vectors: Vectors,
    id_map: IdMap,
    tuned: TunedEffort,
    target: float,
    seed: int = 2012,
) -> TunedEffort:
    """Raise the effort until the target is reached within single classes too, and add that recall.

    A class's neighbours of an image of another class are far from it, and harder to find than its
    own. An engine that does not filter is not asked: every such answer is proven (index/exact.py).
    Raises SearchError.
    """
    if not engine.filters:
        return replace(tuned, recall=tuned.recall | {WITHIN_CLASSES: 1.0})
    rng, exact = np.random.default_rng(seed), ExactSearch(vectors)
    classes = np.unique(id_map.classes)
    questions = []
    for row in draw_rows(id_map.live_rows, QUERIES_WITHIN_CLASSES, seed).tolist():
        chosen = ImageFilter(id_map, [int(rng.choice(classes))])
        query, k = vectors.take([row]), min(TUNED_NEIGHBOURS, chosen.count)
        (nearest,) = exact.search(query, k, chosen)
        rows = [chosen.id_map.find_row(int(image)) for image in nearest.ids]
        questions.append((query, chosen.row_filter, np.array(rows)))
    count, recall = scale_effort(TUNED_NEIGHBOURS, tuned.candidates, tuned.effort)[0], 0.0
    effort = tuned.effort
    for effort in range(tuned.effort, engine.levels):
        shares = [
            np.isin(rows, engine.propose(query, count, row_filter, effort)[0]).mean()
            for query, row_filter, rows in questions
        ]
        recall = float(np.mean(shares))
        if recall >= target:
            break
    return replace(tuned, effort=effort, recall=tuned.recall | {WITHIN_CLASSES: recall})


def finds_new_rows(
    engine: SearchEngine,
    vectors: Vectors,
    projections: Projections | None,
    id_map: IdMap,
    new: Ids,
    effort: int,
    candidates: int,
    target: float,
    seed: int = 2012,
) -> bool:
    """Whether an effort finds the neighbours of rows that were added since it was measured.

    new: int64, ascending, of which some are drawn. Their recall may be below the target, 0–1, by
    what so few queries leave open. Raises SearchError.
    """
    rows = draw_rows(new, QUERIES_OF_NEW_ROWS, seed)
    k = min(TUNED_NEIGHBOURS, len(id_map.live_rows) - 1)
    if not len(rows) or k < 1:
        return True
    queries, exact = vectors.take(rows), ExactSearch(vectors, projections)
    truth = np.empty((len(rows), k), np.int64)
    for number, row in enumerate(rows.tolist()):
        own = int(id_map.ids[np.flatnonzero(id_map.rows == row)[0]])
        others = ImageFilter(id_map, without_copies=[own])
        (nearest,) = exact.search(queries[number : number + 1], k, others)
        truth[number] = np.array([id_map.find_row(int(i)) for i in nearest.ids], np.int64)
    measured = RecallMeasurement(engine, rows, queries, truth, True)
    recall = measured.measure_recall(effort, candidates, truth)
    return wilson_upper_bound(recall, len(rows)) >= target


def sample_query_rows(rows: Ids, target: float, seed: int) -> Ids:
    """Draw rows to query with: int64, ascending; the nearer the target to 1, the more."""
    fewest, most = MIN_MAX_QUERIES
    count = min(most, max(fewest, math.ceil(4 * Z_95**2 / max(1 - target, 1e-9))))
    return draw_rows(rows, count, seed)


def list_candidate_counts(rows: int) -> list[int]:
    """List the numbers of candidates to try, none much larger than the index."""
    return [count for count in CANDIDATE_COUNTS if count < 2 * rows] or [CANDIDATE_COUNTS[0]]


def find_true_neighbours(
    vectors: Vectors, rows: Ids, query_rows: Ids, queries: Floats, k: int, report: Report
) -> Ids:
    """Find each query's k nearest other rows by brute force: int64 [N, ≤ k]."""
    done = report("Measuring", len(rows))
    parts = report_while_reading(vectors.read_row_chunks(rows), done)
    count = min(k + 1, len(rows))
    # Not above: a server that searches exactly on the CPU does without FAISS and its 100 MB.
    from faiss.contrib.exhaustive_search import knn_ground_truth

    places: Ids = knn_ground_truth(queries, parts, count, ngpu=0)[1]  # type: ignore[no-untyped-call]
    nearest = rows[places]
    is_own = nearest == query_rows[:, None]
    # If equal vectors crowd out the query's own row, drop the last one instead.
    is_own[~is_own.any(axis=1), -1] = True
    others: Ids = nearest[~is_own].reshape(len(query_rows), -1)
    return others


def report_while_reading(
    parts: Iterator[tuple[Ids, Floats]], report_done: Callable[[int], object]
) -> Iterator[Floats]:
    """Yield the vectors of each part, reporting how many have been used."""
    done = 0
    for numbers, values in parts:
        yield values
        done += len(numbers)
        report_done(done)


class RecallMeasurement:
    """Measures the recall of efforts: an engine's proposals against the true neighbours."""

    def __init__(
        self, engine: SearchEngine, query_rows: Ids, queries: Floats, truth: Ids, sampled: bool
    ) -> None:
        """truth: int64 [N, ≤ k]. sampled: whether the indexed queries are only some of the rows."""
        self.engine, self.query_rows, self.queries, self.truth = engine, query_rows, queries, truth
        indexed = query_rows != NOT_INDEXED
        self.sampled = sampled or not indexed.all()
        self.groups = [group for group in (indexed, ~indexed) if group.any()]
        self.trials: dict[tuple[int, int], EffortTrial] = {}

    def measure_trial(self, effort: int, count: int) -> EffortTrial:
        """Measure an effort and number of candidates, cached. Raises SearchError."""
        if (effort, count) not in self.trials:
            started = perf_counter()
            recall = self.measure_recall(effort, count, self.truth)
            seconds = (perf_counter() - started) / len(self.query_rows)
            cost = seconds + count * SECONDS_PER_CANDIDATE
            self.trials[effort, count] = EffortTrial(effort, count, recall, cost)
        return self.trials[effort, count]

    def measure_recall(self, effort: int, count: int, truth: Ids) -> float:
        """Measure the share of true rows among `count` candidates beside the query's own row.

        Returns the lower of the shares for indexed and for held-out queries. Raises SearchError.
        """
        proposed = self.engine.propose(self.queries, count + 1, RowFilter(), effort)
        if not truth.size:
            return 1.0
        hits = np.array([np.isin(t, p).mean() for t, p in zip(truth, proposed, strict=True)])
        return float(min(hits[group].mean() for group in self.groups))

    def reaches(self, recall: float, target: float) -> bool:
        """Whether a measured recall reaches the target, allowing for sampling error.

        Uses the lower bound of Wilson's interval over the queries, not over their neighbours, which
        are found or missed together. A sample without a miss passes, however small.
        """
        if not self.sampled or recall == 1:
            return recall >= target
        return wilson_lower_bound(recall, min(int(g.sum()) for g in self.groups)) >= target


def wilson_lower_bound(share: float, count: int) -> float:
    """Compute the lower bound of Wilson's interval for a share of `count` queries."""
    square = Z_95**2 / count
    spread = math.sqrt(share * (1 - share) / count + square / (4 * count)) * Z_95
    return (share + square / 2 - spread) / (1 + square)


def wilson_upper_bound(share: float, count: int) -> float:
    """Compute the upper bound of Wilson's interval for a share of `count` queries."""
    return 1 - wilson_lower_bound(1 - share, count)


def find_cheapest(measurement: RecallMeasurement, counts: list[int], target: float) -> EffortTrial:
    """Find the cheapest trial that reaches the target, or else the one with the highest recall."""
    reaching: list[EffortTrial] = []
    for count in counts:
        trial = find_least_effort(measurement, count, target)
        if trial is not None:
            reaching.append(trial)
        # Stop once comparing the candidates alone costs more than the cheapest trial.
        if reaching and count * 2 * SECONDS_PER_CANDIDATE > min(t.cost for t in reaching):
            break
    if reaching:
        return min(reaching, key=lambda trial: trial.cost)
    return max(measurement.trials.values(), key=lambda trial: (trial.recall, -trial.cost))


def find_least_effort(
    measurement: RecallMeasurement, count: int, target: float
) -> EffortTrial | None:
    """Find the least effort that reaches the target with `count` candidates, by bisection."""
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

"""The rows of several shards that are alive → new shards, a group of sources at a time.

What was copied is deleted as soon as its new shard is whole, so the disk never holds much twice.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from index.building.checkpoint import BuildCheckpoint, ScannedFile, Segment
from index.building.file_list import FileEntry
from index.manifest import Shard
from index.progress import Report
from index.vectors import ROWS_PER_CHUNK, Floats, Ids, Vectors


@dataclass(frozen=True, kw_only=True, eq=False)
class SourceShard:
    """A shard, of the earlier version or of the work folder, some of whose rows are alive.

    start: its first row, where all sources' rows are counted through. alive: int64, rising, its
    rows that an image points to, counted in it.
    """

    path: Path
    shard: Shard
    start: int
    segment: Segment | None
    live_rows: Ids

    @property
    def is_reusable(self) -> bool:
        """Whether it may be part of the new version as it is."""
        whole = self.segment is None or self.segment.is_compacted
        return whole and 0 < self.shard.rows <= 2 * len(self.live_rows)


@dataclass(frozen=True, kw_only=True)
class OutputShard:
    """A shard of the new version. rows: int64 [R], where its rows are among the sources'."""

    path: Path
    shard: Shard
    keeps_name: bool
    rows: Ids


@dataclass(frozen=True, kw_only=True)
class SortedEntries:
    """Entries sorted by their row among the sources': int64 [M], rising."""

    entries: Sequence[FileEntry]
    at: Ids
    order: Ids

    @classmethod
    def sort(cls, entries: Sequence[FileEntry], at: Ids) -> "SortedEntries":
        """Sort entries."""
        order = np.argsort(at, kind="stable")
        return cls(entries=entries, at=at[order], order=order)

    def in_source(self, source: SourceShard) -> tuple[list[FileEntry], list[int]]:
        """The entries of a source's rows, and for each which of its alive rows it is."""
        first, end = np.searchsorted(self.at, [source.start, source.start + source.shard.rows])
        entries = [self.entries[i] for i in self.order[first:end].tolist()]
        rows = np.searchsorted(source.live_rows, self.at[first:end] - source.start)
        return entries, rows.tolist()


def compact_shards(
    work: BuildCheckpoint,
    loose: Sequence[SourceShard],
    wanted: SortedEntries,
    extra: Sequence[ScannedFile],
    number: int,
    most: int,
    report: Report,
) -> list[OutputShard]:
    """Copy the rows that are alive into new shards, deleting what was copied after each.

    extra: what else the work folder has to know, since it may have stood in what is deleted.
    number: of the first new piece.
    """
    placed: list[OutputShard] = []
    total, done = sum(len(source.live_rows) for source in loose), 0
    told = report("Putting them together", total) if total else None
    for group in group_sources(loose, most):
        placed.append(compact_group(work, f"shard-{number:07}", group, wanted, extra))
        for source in group:
            if source.segment is not None:
                work.delete_segment(source.segment)
        number, extra = number + 1, []
        done += len(placed[-1].rows)
        if told is not None:
            told(done)
    return placed


def group_sources(loose: Sequence[SourceShard], most: int) -> Iterator[list[SourceShard]]:
    """The sources whose rows go into one shard; none is torn apart, none without rows."""
    group: list[SourceShard] = []
    rows = 0
    for source in loose:
        if not len(source.live_rows):
            continue
        if group and rows + len(source.live_rows) > most:
            yield group
            group, rows = [], 0
        group.append(source)
        rows += len(source.live_rows)
    if group:
        yield group


def compact_group(
    work: BuildCheckpoint,
    name: str,
    group: Sequence[SourceShard],
    wanted: SortedEntries,
    extra: Sequence[ScannedFile],
) -> OutputShard:
    """Write one shard of the rows of several that are alive."""
    found: list[ScannedFile] = []
    rows: list[int] = []
    start = 0
    for source in group:
        entries, own = wanted.in_source(source)
        found += entries
        rows += [start + row for row in own]
        start += len(source.live_rows)
    listed = {one.path for one in found}
    more = [one for one in extra if one.path not in listed]
    shard = work.write_segment(
        name, read_live_rows(group, work.dtype), [*found, *more], [*rows, *[-1] * len(more)]
    )
    globally = [source.start + source.live_rows for source in group]
    return OutputShard(
        path=work.folder / shard.file, shard=shard, keeps_name=False, rows=np.concatenate(globally)
    )


def read_live_rows(group: Sequence[SourceShard], dtype: str) -> Iterator[Floats]:
    """The rows that are alive, float32 [n, 4096] at a time."""
    for source in group:
        vectors = Vectors(source.path.parent, [source.shard], dtype)
        for start in range(0, len(source.live_rows), ROWS_PER_CHUNK):
            yield vectors.take(source.live_rows[start : start + ROWS_PER_CHUNK])


def keep_shard(source: SourceShard) -> OutputShard:
    """A shard that is kept as it is."""
    return OutputShard(
        path=source.path,
        shard=source.shard,
        keeps_name=source.segment is None,
        rows=source.start + np.arange(source.shard.rows),
    )

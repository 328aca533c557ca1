"""Compaction: copies the live rows of several shards into new ones, a group of sources at a time.

Sources are deleted as soon as their new shard is complete, so little is on the disk twice.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from index.building.checkpoint import BuildCheckpoint, ScannedFile, Segment
from index.building.file_list import FileEntry
from index.manifest import Shard
from index.vectors import ROWS_PER_CHUNK, Floats, Ids, Vectors
from storage.progress import Report


@dataclass(frozen=True, kw_only=True, eq=False)
class SourceShard:
    """A shard of the earlier version or of the checkpoint.

    start: number of its first row, counted through all sources. live_rows: int64 [L], ascending,
    the rows within it that an image points to.
    """

    path: Path
    shard: Shard
    start: int
    segment: Segment | None
    live_rows: Ids

    @property
    def is_reusable(self) -> bool:
        """Whether the new version may use it unchanged: at least half of its rows are live."""
        is_shard = self.segment is None or self.segment.is_compacted
        return is_shard and 0 < self.shard.rows <= 2 * len(self.live_rows)


@dataclass(frozen=True, kw_only=True)
class OutputShard:
    """A shard of the new version.

    keeps_name: whether it is the earlier version's file. rows: int64 [R], the source row of each of
    its rows.
    """

    path: Path
    shard: Shard
    keeps_name: bool
    rows: Ids


@dataclass(frozen=True, kw_only=True)
class SortedEntries:
    """Entries, sorted by the source rows of their vectors: int64 [M], ascending."""

    entries: Sequence[FileEntry]
    source_rows: Ids

    @classmethod
    def sort(cls, entries: Sequence[FileEntry], source_rows: Ids) -> "SortedEntries":
        """Sort entries by their source rows."""
        order = np.argsort(source_rows, kind="stable")
        return cls(entries=[entries[i] for i in order.tolist()], source_rows=source_rows[order])

    def in_source(self, source: SourceShard) -> tuple[Sequence[FileEntry], list[int]]:
        """Return the entries whose vectors are in a source, and the index of each live row."""
        limits = [source.start, source.start + source.shard.rows]
        first, end = np.searchsorted(self.source_rows, limits)
        places = np.searchsorted(source.live_rows, self.source_rows[first:end] - source.start)
        return self.entries[first:end], places.tolist()


def compact_shards(
    checkpoint: BuildCheckpoint,
    sources: Sequence[SourceShard],
    entries: SortedEntries,
    extra: Sequence[ScannedFile],
    number: int,
    max_rows: int,
    report: Report,
) -> list[OutputShard]:
    """Copy the live rows of the sources into new shards, deleting the copied segments after each.

    extra: other files to record, since the deleted segments may have described them. number: that
    of the first new segment. max_rows: the limit per new shard. Raises StoreError.
    """
    outputs: list[OutputShard] = []
    total, done = sum(len(source.live_rows) for source in sources), 0
    report_done = report("Assembling the shards", total) if total else None
    for group in group_sources(sources, max_rows):
        outputs.append(compact_group(checkpoint, f"shard-{number:07}", group, entries, extra))
        for source in group:
            if source.segment is not None:
                checkpoint.delete_segment(source.segment)
        number, extra = number + 1, []
        done += len(outputs[-1].rows)
        if report_done is not None:
            report_done(done)
    return outputs


def group_sources(sources: Sequence[SourceShard], max_rows: int) -> Iterator[list[SourceShard]]:
    """Group sources so that each group's live rows fit into a shard; a source is never split."""
    group: list[SourceShard] = []
    rows = 0
    for source in sources:
        if not len(source.live_rows):
            continue
        if group and rows + len(source.live_rows) > max_rows:
            yield group
            group, rows = [], 0
        group.append(source)
        rows += len(source.live_rows)
    if group:
        yield group


def compact_group(
    checkpoint: BuildCheckpoint,
    name: str,
    group: Sequence[SourceShard],
    entries: SortedEntries,
    extra: Sequence[ScannedFile],
) -> OutputShard:
    """Write the live rows of several sources to one shard. Raises StoreError."""
    files: list[ScannedFile] = []
    rows: list[int] = []
    start = 0
    for source in group:
        described, places = entries.in_source(source)
        files += described
        rows += [start + place for place in places]
        start += len(source.live_rows)
    paths = {file.path for file in files}
    more = [file for file in extra if file.path not in paths]
    vectors = read_live_rows(group, checkpoint.dtype)
    shard = checkpoint.write_segment(name, vectors, [*files, *more], [*rows, *[-1] * len(more)])
    source_rows = [source.start + source.live_rows for source in group]
    return OutputShard(
        path=checkpoint.folder / shard.file,
        shard=shard,
        keeps_name=False,
        rows=np.concatenate(source_rows),
    )


def read_live_rows(group: Sequence[SourceShard], dtype: str) -> Iterator[Floats]:
    """Yield the live rows of sources in chunks of float32 [n, 4096]."""
    for source in group:
        vectors = Vectors(source.path.parent, [source.shard], dtype)
        for start in range(0, len(source.live_rows), ROWS_PER_CHUNK):
            yield vectors.take(source.live_rows[start : start + ROWS_PER_CHUNK])


def keep_shard(source: SourceShard) -> OutputShard:
    """Reuse a source in the new version unchanged."""
    return OutputShard(
        path=source.path,
        shard=source.shard,
        keeps_name=source.segment is None,
        rows=source.start + np.arange(source.shard.rows),
    )

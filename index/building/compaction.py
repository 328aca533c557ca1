"""The rows of several shards that are alive → new shards, a group of sources at a time.

What was copied is deleted as soon as its new shard is whole, so the disk never holds much twice.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from index.building.checkpoint import Found, Piece, Work
from index.building.file_list import Entry
from index.manifest import Shard
from index.progress import Report
from index.vectors import CHUNK, Floats, Ids, Vectors


@dataclass(frozen=True, kw_only=True, eq=False)
class Source:
    """A shard, of the earlier version or of the work folder, some of whose rows are alive.

    start: its first row, where all sources' rows are counted through. alive: int64, rising, its
    rows that an image points to, counted in it.
    """

    path: Path
    shard: Shard
    start: int
    piece: Piece | None
    alive: Ids

    @property
    def worth_keeping(self) -> bool:
        """Whether it may be part of the new version as it is."""
        whole = self.piece is None or self.piece.whole
        return whole and 0 < self.shard.rows <= 2 * len(self.alive)


@dataclass(frozen=True, kw_only=True)
class Placed:
    """A shard of the new version. rows: int64 [R], where its rows are among the sources'."""

    path: Path
    shard: Shard
    named: bool
    rows: Ids


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """Entries sorted by their row among the sources': int64 [M], rising."""

    entries: Sequence[Entry]
    at: Ids
    order: Ids

    @classmethod
    def of(cls, entries: Sequence[Entry], at: Ids) -> "Wanted":
        """Sort entries."""
        order = np.argsort(at, kind="stable")
        return cls(entries=entries, at=at[order], order=order)

    def within(self, source: Source) -> tuple[list[Entry], list[int]]:
        """The entries of a source's rows, and for each which of its alive rows it is."""
        first, end = np.searchsorted(self.at, [source.start, source.start + source.shard.rows])
        entries = [self.entries[i] for i in self.order[first:end].tolist()]
        rows = np.searchsorted(source.alive, self.at[first:end] - source.start)
        return entries, rows.tolist()


def copy_all(
    work: Work,
    loose: Sequence[Source],
    wanted: Wanted,
    extra: Sequence[Found],
    number: int,
    most: int,
    report: Report,
) -> list[Placed]:
    """Copy the rows that are alive into new shards, deleting what was copied after each.

    extra: what else the work folder has to know, since it may have stood in what is deleted.
    number: of the first new piece.
    """
    placed: list[Placed] = []
    total, done = sum(len(source.alive) for source in loose), 0
    told = report("Putting them together", total) if total else None
    for group in grouped(loose, most):
        placed.append(copy(work, f"shard-{number:07}", group, wanted, extra))
        for source in group:
            if source.piece is not None:
                work.drop(source.piece)
        number, extra = number + 1, []
        done += len(placed[-1].rows)
        if told is not None:
            told(done)
    return placed


def grouped(loose: Sequence[Source], most: int) -> Iterator[list[Source]]:
    """The sources whose rows go into one shard; none is torn apart, none without rows."""
    group: list[Source] = []
    rows = 0
    for source in loose:
        if not len(source.alive):
            continue
        if group and rows + len(source.alive) > most:
            yield group
            group, rows = [], 0
        group.append(source)
        rows += len(source.alive)
    if group:
        yield group


def copy(
    work: Work, name: str, group: Sequence[Source], wanted: Wanted, extra: Sequence[Found]
) -> Placed:
    """Write one shard of the rows of several that are alive."""
    found: list[Found] = []
    rows: list[int] = []
    start = 0
    for source in group:
        entries, own = wanted.within(source)
        found += entries
        rows += [start + row for row in own]
        start += len(source.alive)
    listed = {one.path for one in found}
    more = [one for one in extra if one.path not in listed]
    shard = work.write(name, parts(group, work.dtype), [*found, *more], [*rows, *[-1] * len(more)])
    globally = [source.start + source.alive for source in group]
    return Placed(
        path=work.folder / shard.file, shard=shard, named=False, rows=np.concatenate(globally)
    )


def parts(group: Sequence[Source], dtype: str) -> Iterator[Floats]:
    """The rows that are alive, float32 [n, 4096] at a time."""
    for source in group:
        vectors = Vectors(source.path.parent, [source.shard], dtype)
        for start in range(0, len(source.alive), CHUNK):
            yield vectors.take(source.alive[start : start + CHUNK])


def whole(source: Source) -> Placed:
    """A shard that is kept as it is."""
    return Placed(
        path=source.path,
        shard=source.shard,
        named=source.piece is None,
        rows=source.start + np.arange(source.shard.rows),
    )

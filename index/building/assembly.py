"""Blocks and an earlier version's shards → the shards of a new version, and every image's row.

A shard of the earlier version is kept as long as half of its rows are alive; what is kept is not
read. The rows of the others, and of the blocks, are copied into new shards, a shard's blocks being
deleted as soon as it is whole, so the disk never holds much twice.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from index.building.checkpoint import BuildCheckpoint, ScannedFile, Segment
from index.building.compaction import (
    OutputShard,
    SortedEntries,
    SourceShard,
    compact_shards,
    keep_shard,
)
from index.building.file_list import (
    FILE_LIST,
    FileEntry,
    UnreadableFile,
    escape_file_name,
    read_file_list,
)
from index.manifest import Manifest, Shard
from index.progress import Report
from index.vectors import Ids, Vectors
from model.dataset import Photograph

MAX_SMALL_SHARDS = 8
"""Shards of an earlier version that may have fewer than half the rows of a whole one."""


@dataclass(frozen=True, kw_only=True)
class BaseVersion:
    """An earlier version to go on from. rows: int64 [M], the row of each entry's vector."""

    folder: Path
    shards: Sequence[Shard]
    dtype: str
    entries: Sequence[FileEntry]
    rows: Ids

    @classmethod
    def read(cls, folder: Path, manifest: Manifest) -> "BaseVersion":
        """Read a version's listing, and see that its vectors are there. Raises StoreError."""
        Vectors(folder, manifest.shards, manifest.dtype)
        entries, rows = read_file_list(folder / FILE_LIST)
        return cls(
            folder=folder,
            shards=manifest.shards,
            dtype=manifest.dtype,
            entries=entries,
            rows=rows,
        )


@dataclass(frozen=True, kw_only=True)
class ChangeCounts:
    """What is different from the earlier version, in images; without one all are added.

    added, changed, vanished, kept: by path and content. computed: vectors that were computed now.
    reused: images added or changed whose vector was there, of a build that was cut off, or of
    another image with the same pixels.
    """

    added: int
    changed: int
    removed: int
    unchanged: int
    computed: int
    reused: int


@dataclass(frozen=True, kw_only=True)
class StoredShard:
    """A shard of the version to come, and the file to link: `shard.file` is its name there."""

    path: Path
    shard: Shard


@dataclass(frozen=True, kw_only=True)
class GatheredFeatures:
    """The readable photographs in the order of the scan, and their vectors.

    photographs and entries: M of each. rows: int64 [M], counted through the shards.
    """

    photographs: list[Photograph]
    entries: list[FileEntry]
    rows: Ids
    shards: list[StoredShard]
    unreadable: list[UnreadableFile]
    counts: ChangeCounts


def assemble_version(
    work: BuildCheckpoint,
    base: BaseVersion | None,
    photographs: Sequence[Photograph],
    number: int,
    report: Report,
    most: int,
) -> GatheredFeatures:
    """Put the shards together, of at most `most` rows each. Raises StoreError.

    number: of the first block that was computed now.
    """
    pieces = work.segments()
    earlier = {entry.path: entry for entry in base.entries} if base else {}
    taken, left = split_readable(photographs, latest_scans(earlier, pieces))
    entries = [entry for _, entry in taken]
    at = locate_vectors(entries, base, pieces)
    sources = list_sources(work, base, pieces, at)
    kept = choose_reused(sources, most)
    loose = [source for source in sources if source not in kept]
    extra: list[ScannedFile] = [*left, *(e for e in entries if earlier.get(e.path) is not e)]
    free = 1 + max((piece.number for piece in pieces), default=-1)
    copied = compact_shards(work, loose, SortedEntries.sort(entries, at), extra, free, most, report)
    stored, moved = renumber_rows([*map(keep_shard, kept), *copied], base)
    computed = sum(p.shard.rows for p in pieces if p.number >= number)
    return GatheredFeatures(
        photographs=[photograph for photograph, _ in taken],
        entries=entries,
        rows=moved[at],
        shards=stored,
        unreadable=left,
        counts=count_changes(earlier, entries, computed),
    )


def latest_scans(
    earlier: dict[str, FileEntry], pieces: Sequence[Segment]
) -> dict[str, ScannedFile]:
    """What was found out last of every file, by its path."""
    found: dict[str, ScannedFile] = dict(earlier)
    for piece in sorted(pieces, key=lambda piece: piece.number):
        found.update((one.path, one) for one in piece.files)
    return found


def split_readable(
    photographs: Sequence[Photograph], found: dict[str, ScannedFile]
) -> tuple[list[tuple[Photograph, FileEntry]], list[UnreadableFile]]:
    """The photographs that could be read, in their order, and those that could not."""
    taken: list[tuple[Photograph, FileEntry]] = []
    left: list[UnreadableFile] = []
    for photograph in photographs:
        name = escape_file_name(photograph.path)
        if name != photograph.path:
            left.append(UnreadableFile(path=name, reason="Its name is not UTF-8."))
        elif isinstance(one := found[photograph.path], FileEntry):
            taken.append((photograph, one))
        else:
            left.append(one)
    return taken, left


def locate_vectors(
    entries: Sequence[FileEntry], base: BaseVersion | None, pieces: Sequence[Segment]
) -> Ids:
    """The row of each entry's pixels among all sources' rows: int64 [M].

    Of equal ones the first counts: what was put together, then the earlier version, then blocks.
    """
    found: dict[str, int] = {}
    start = 0
    for shards, pairs in order_sources(base, pieces):
        for entry, row in pairs:
            if isinstance(entry, FileEntry) and row >= 0:
                found.setdefault(entry.pixels, start + row)
        start += sum(shard.rows for shard in shards)
    return np.array([found[entry.pixels] for entry in entries], np.int64)


def order_sources(
    base: BaseVersion | None, pieces: Sequence[Segment]
) -> Iterator[tuple[Sequence[Shard], Iterable[tuple[ScannedFile, int]]]]:
    """The sources of vectors, and what each knows of its rows."""
    for piece in pieces:
        if piece.is_compacted:
            yield [piece.shard], zip(piece.files, piece.rows, strict=True)
    if base is not None:
        yield base.shards, zip(base.entries, base.rows.tolist(), strict=True)
    for piece in pieces:
        if not piece.is_compacted:
            yield [piece.shard], zip(piece.files, piece.rows, strict=True)


def list_sources(
    work: BuildCheckpoint, base: BaseVersion | None, pieces: Sequence[Segment], at: Ids
) -> list[SourceShard]:
    """Every shard there is, in the order of `order_sources`, with its rows that are alive."""
    before = [(work.folder, piece.shard, piece) for piece in pieces if piece.is_compacted]
    middle = [(base.folder, shard, None) for shard in base.shards] if base else []
    after = [(work.folder, piece.shard, piece) for piece in pieces if not piece.is_compacted]
    alive = np.unique(at)
    sources: list[SourceShard] = []
    start = 0
    for folder, shard, piece in (*before, *middle, *after):
        first, end = np.searchsorted(alive, [start, start + shard.rows])
        sources.append(
            SourceShard(
                path=folder / shard.file,
                shard=shard,
                start=start,
                segment=piece,
                live_rows=alive[first:end] - start,
            )
        )
        start += shard.rows
    return sources


def choose_reused(sources: Sequence[SourceShard], most: int) -> list[SourceShard]:
    """The shards that are kept as they are: the earlier version's first, in their order."""
    worth = [source for source in sources if source.is_reusable]
    small = [source for source in worth if 2 * len(source.live_rows) < most]
    if len(small) > MAX_SMALL_SHARDS:
        worth = [source for source in worth if source not in small]
    return sorted(worth, key=lambda source: source.segment is not None)


def renumber_rows(
    placed: Sequence[OutputShard], base: BaseVersion | None
) -> tuple[list[StoredShard], Ids]:
    """The shards under their new names, and every source row's new number, −1 where it has none."""
    taken = {shard.file for shard in base.shards} if base else set()
    free = (name for n in range(10**9) if (name := f"vectors-{n:05}.npy") not in taken)
    moved = np.full(1 + max((int(p.rows.max()) for p in placed), default=-1), -1, np.int64)
    stored: list[StoredShard] = []
    start = 0
    for one in placed:
        shard = one.shard if one.keeps_name else replace(one.shard, file=next(free))
        stored.append(StoredShard(path=one.path, shard=shard))
        moved[one.rows] = start + np.arange(len(one.rows))
        start += len(one.rows)
    return stored, moved


def count_changes(
    earlier: dict[str, FileEntry], entries: Sequence[FileEntry], computed: int
) -> ChangeCounts:
    """Compare with the earlier version."""
    before = [earlier.get(entry.path) for entry in entries]
    known = [pair for pair in zip(before, entries, strict=True) if pair[0] is not None]
    kept = sum(old is not None and old.sha256 == new.sha256 for old, new in known)
    return ChangeCounts(
        added=len(entries) - len(known),
        changed=len(known) - kept,
        removed=len(earlier) - len(known),
        unchanged=kept,
        computed=computed,
        reused=max(0, len(entries) - kept - computed),
    )

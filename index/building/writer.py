"""Writes a new version's shards from a build's blocks and an earlier version's shards.

A shard of the earlier version is reused, without being read, while at least half of its rows are
live. Live rows of other shards and of blocks are copied into new shards (compaction.py).
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
from index.vectors import Ids, Vectors
from model.dataset.folder import Photograph
from storage.progress import Report

MAX_SMALL_SHARDS = 8
"""Reused shards with less than half the rows of a full one; if there are more, none is reused."""


@dataclass(frozen=True, kw_only=True)
class BaseVersion:
    """An earlier version that a build starts from. rows: int64 [M], those of the M entries."""

    folder: Path
    shards: Sequence[Shard]
    dtype: str
    entries: Sequence[FileEntry]
    rows: Ids

    @classmethod
    def read(cls, folder: Path, manifest: Manifest) -> "BaseVersion":
        """Read a version's file list, and check that its vectors are there. Raises StoreError."""
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
    """How many images differ from the earlier version; without one, all count as added.

    added, changed, removed, unchanged: by path and content. computed: vectors computed in this
    build. reused: added or changed images whose vector existed already, from an interrupted build
    or from another image with the same pixels.
    """

    added: int
    changed: int
    removed: int
    unchanged: int
    computed: int
    reused: int


@dataclass(frozen=True, kw_only=True)
class StoredShard:
    """A shard of the new version, and the file to link under the name `shard.file`."""

    path: Path
    shard: Shard


@dataclass(frozen=True, kw_only=True)
class GatheredFeatures:
    """The readable photographs in the order of the scan, and their vectors.

    photographs and entries: M each. rows: int64 [M], counted through the shards.
    """

    photographs: list[Photograph]
    entries: list[FileEntry]
    rows: Ids
    shards: list[StoredShard]
    unreadable: list[UnreadableFile]
    counts: ChangeCounts


def write_shards(
    checkpoint: BuildCheckpoint,
    base: BaseVersion | None,
    photographs: Sequence[Photograph],
    first_block: int,
    report: Report,
    max_rows: int,
) -> GatheredFeatures:
    """Write the shards of a version, of at most `max_rows` rows each. Raises StoreError.

    first_block: the number of the first block that was computed now.
    """
    segments = checkpoint.list_segments()
    earlier = {entry.path: entry for entry in base.entries} if base else {}
    readable, unreadable = split_readable(photographs, find_latest_scans(earlier, segments))
    entries = [entry for _, entry in readable]
    source_rows = locate_vectors(entries, base, segments)
    sources = list_sources(checkpoint, base, segments, source_rows)
    reused = choose_reused(sources, max_rows)
    copied = compact_shards(
        checkpoint,
        [source for source in sources if source not in reused],
        SortedEntries.sort(entries, source_rows),
        [*unreadable, *(entry for entry in entries if earlier.get(entry.path) is not entry)],
        1 + max((segment.number for segment in segments), default=-1),
        max_rows,
        report,
    )
    shards, new_rows = renumber_rows([*map(keep_shard, reused), *copied], base)
    computed = sum(s.shard.rows for s in segments if s.number >= first_block)
    return GatheredFeatures(
        photographs=[photograph for photograph, _ in readable],
        entries=entries,
        rows=new_rows[source_rows],
        shards=shards,
        unreadable=unreadable,
        counts=count_changes(earlier, entries, computed),
    )


def find_latest_scans(
    earlier: dict[str, FileEntry], segments: Sequence[Segment]
) -> dict[str, ScannedFile]:
    """Map each path to the latest scan of the file."""
    latest: dict[str, ScannedFile] = dict(earlier)
    for segment in sorted(segments, key=lambda segment: segment.number):
        latest.update((file.path, file) for file in segment.files)
    return latest


def split_readable(
    photographs: Sequence[Photograph], scans: dict[str, ScannedFile]
) -> tuple[list[tuple[Photograph, FileEntry]], list[UnreadableFile]]:
    """Split the photographs into those that could be read and those that could not, in order."""
    readable: list[tuple[Photograph, FileEntry]] = []
    unreadable: list[UnreadableFile] = []
    for photograph in photographs:
        name = escape_file_name(photograph.path)
        if name != photograph.path:
            unreadable.append(UnreadableFile(path=name, reason="Its name is not UTF-8."))
        elif isinstance(file := scans[photograph.path], FileEntry):
            readable.append((photograph, file))
        else:
            unreadable.append(file)
    return readable, unreadable


def locate_vectors(
    entries: Sequence[FileEntry], base: BaseVersion | None, segments: Sequence[Segment]
) -> Ids:
    """Find the row of each entry's pixels, counted through all sources: int64 [M].

    The first of equal ones counts, in the order of `order_sources`.
    """
    row_of_pixels: dict[str, int] = {}
    start = 0
    for shards, pairs in order_sources(base, segments):
        for file, row in pairs:
            if isinstance(file, FileEntry) and row >= 0:
                row_of_pixels.setdefault(file.pixels, start + row)
        start += sum(shard.rows for shard in shards)
    return np.array([row_of_pixels[entry.pixels] for entry in entries], np.int64)


def order_sources(
    base: BaseVersion | None, segments: Sequence[Segment]
) -> Iterator[tuple[Sequence[Shard], Iterable[tuple[ScannedFile, int]]]]:
    """Yield compacted shards, the earlier version, then blocks, with their files and rows."""
    for segment in segments:
        if segment.is_compacted:
            yield [segment.shard], zip(segment.files, segment.rows, strict=True)
    if base is not None:
        yield base.shards, zip(base.entries, base.rows.tolist(), strict=True)
    for segment in segments:
        if not segment.is_compacted:
            yield [segment.shard], zip(segment.files, segment.rows, strict=True)


def list_sources(
    checkpoint: BuildCheckpoint,
    base: BaseVersion | None,
    segments: Sequence[Segment],
    source_rows: Ids,
) -> list[SourceShard]:
    """List every shard in the order of `order_sources`, with its live rows."""
    folder = checkpoint.folder
    compacted = [(folder, s.shard, s) for s in segments if s.is_compacted]
    earlier = [(base.folder, shard, None) for shard in base.shards] if base else []
    blocks = [(folder, s.shard, s) for s in segments if not s.is_compacted]
    live_rows = np.unique(source_rows)
    sources: list[SourceShard] = []
    start = 0
    for folder, shard, segment in (*compacted, *earlier, *blocks):
        first, end = np.searchsorted(live_rows, [start, start + shard.rows])
        sources.append(
            SourceShard(
                path=folder / shard.file,
                shard=shard,
                start=start,
                segment=segment,
                live_rows=live_rows[first:end] - start,
            )
        )
        start += shard.rows
    return sources


def choose_reused(sources: Sequence[SourceShard], max_rows: int) -> list[SourceShard]:
    """Choose the shards to reuse unchanged: the earlier version's first, in order."""
    reusable = [source for source in sources if source.is_reusable]
    small = [source for source in reusable if 2 * len(source.live_rows) < max_rows]
    if len(small) > MAX_SMALL_SHARDS:
        reusable = [source for source in reusable if source not in small]
    return sorted(reusable, key=lambda source: source.segment is not None)


def renumber_rows(
    outputs: Sequence[OutputShard], base: BaseVersion | None
) -> tuple[list[StoredShard], Ids]:
    """Name the shards, and map each source row to its new number: int64, −1 for a dropped row."""
    taken = {shard.file for shard in base.shards} if base else set()
    names = (name for n in range(10**9) if (name := f"vectors-{n:05}.npy") not in taken)
    source_rows = 1 + max((int(output.rows.max()) for output in outputs), default=-1)
    new_rows = np.full(source_rows, -1, np.int64)
    shards: list[StoredShard] = []
    start = 0
    for output in outputs:
        shard = output.shard
        if not output.keeps_name:
            shard = replace(shard, file=next(names))
        shards.append(StoredShard(path=output.path, shard=shard))
        new_rows[output.rows] = start + np.arange(len(output.rows))
        start += len(output.rows)
    return shards, new_rows


def count_changes(
    earlier: dict[str, FileEntry], entries: Sequence[FileEntry], computed: int
) -> ChangeCounts:
    """Count the changes against the earlier version, by path."""
    pairs = [(old, new) for new in entries if (old := earlier.get(new.path)) is not None]
    unchanged = sum(old.sha256 == new.sha256 for old, new in pairs)
    return ChangeCounts(
        added=len(entries) - len(pairs),
        changed=len(pairs) - unchanged,
        removed=len(earlier) - len(pairs),
        unchanged=unchanged,
        computed=computed,
        reused=max(0, len(entries) - unchanged - computed),
    )

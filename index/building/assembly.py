"""Blocks and an earlier version's shards → the shards of a new version, and every image's row.

A shard of the earlier version is kept as long as half of its rows are alive; what is kept is not
read. The rows of the others, and of the blocks, are copied into new shards, a shard's blocks being
deleted as soon as it is whole, so the disk never holds much twice.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from index.building.checkpoint import Found, Piece, Work
from index.building.compaction import Placed, Source, Wanted, copy_all, whole
from index.building.file_list import FILE, Entry, LeftOut, read_listing, shown
from index.manifest import Manifest, Shard
from index.progress import Report
from index.vectors import Ids, Vectors
from model.dataset import Photograph

FEW = 8
"""Shards of an earlier version that may have fewer than half the rows of a whole one."""


@dataclass(frozen=True, kw_only=True)
class Base:
    """An earlier version to go on from. rows: int64 [M], the row of each entry's vector."""

    folder: Path
    shards: Sequence[Shard]
    dtype: str
    entries: Sequence[Entry]
    rows: Ids

    @classmethod
    def of(cls, folder: Path, manifest: Manifest) -> "Base":
        """Read a version's listing, and see that its vectors are there. Raises StoreError."""
        Vectors(folder, manifest.shards, manifest.dtype)
        entries, rows = read_listing(folder / FILE)
        return cls(
            folder=folder,
            shards=manifest.shards,
            dtype=manifest.dtype,
            entries=entries,
            rows=rows,
        )


@dataclass(frozen=True, kw_only=True)
class Counts:
    """What is different from the earlier version, in images; without one all are added.

    added, changed, vanished, kept: by path and content. computed: vectors that were computed now.
    reused: images added or changed whose vector was there, of a build that was cut off, or of
    another image with the same pixels.
    """

    added: int
    changed: int
    vanished: int
    kept: int
    computed: int
    reused: int


@dataclass(frozen=True, kw_only=True)
class Stored:
    """A shard of the version to come, and the file to link: `shard.file` is its name there."""

    path: Path
    shard: Shard


@dataclass(frozen=True, kw_only=True)
class Gathered:
    """The readable photographs in the order of the scan, and their vectors.

    photographs and entries: M of each. rows: int64 [M], counted through the shards.
    """

    photographs: list[Photograph]
    entries: list[Entry]
    rows: Ids
    stored: list[Stored]
    unreadable: list[LeftOut]
    counts: Counts


def assemble(
    work: Work,
    base: Base | None,
    photographs: Sequence[Photograph],
    number: int,
    report: Report,
    most: int,
) -> Gathered:
    """Put the shards together, of at most `most` rows each. Raises StoreError.

    number: of the first block that was computed now.
    """
    pieces = work.pieces()
    earlier = {entry.path: entry for entry in base.entries} if base else {}
    taken, left = divide(photographs, newest(earlier, pieces))
    entries = [entry for _, entry in taken]
    at = places(entries, base, pieces)
    sources = sources_of(work, base, pieces, at)
    kept = choose_kept(sources, most)
    loose = [source for source in sources if source not in kept]
    extra: list[Found] = [*left, *(e for e in entries if earlier.get(e.path) is not e)]
    free = 1 + max((piece.number for piece in pieces), default=-1)
    copied = copy_all(work, loose, Wanted.of(entries, at), extra, free, most, report)
    stored, moved = number_rows([*map(whole, kept), *copied], base)
    computed = sum(p.shard.rows for p in pieces if p.number >= number)
    return Gathered(
        photographs=[photograph for photograph, _ in taken],
        entries=entries,
        rows=moved[at],
        stored=stored,
        unreadable=left,
        counts=count(earlier, entries, computed),
    )


def newest(earlier: dict[str, Entry], pieces: Sequence[Piece]) -> dict[str, Found]:
    """What was found out last of every file, by its path."""
    found: dict[str, Found] = dict(earlier)
    for piece in sorted(pieces, key=lambda piece: piece.number):
        found.update((one.path, one) for one in piece.found)
    return found


def divide(
    photographs: Sequence[Photograph], found: dict[str, Found]
) -> tuple[list[tuple[Photograph, Entry]], list[LeftOut]]:
    """The photographs that could be read, in their order, and those that could not."""
    taken: list[tuple[Photograph, Entry]] = []
    left: list[LeftOut] = []
    for photograph in photographs:
        name = shown(photograph.path)
        if name != photograph.path:
            left.append(LeftOut(path=name, reason="Its name is not UTF-8."))
        elif isinstance(one := found[photograph.path], Entry):
            taken.append((photograph, one))
        else:
            left.append(one)
    return taken, left


def places(entries: Sequence[Entry], base: Base | None, pieces: Sequence[Piece]) -> Ids:
    """The row of each entry's pixels among all sources' rows: int64 [M].

    Of equal ones the first counts: what was put together, then the earlier version, then blocks.
    """
    found: dict[str, int] = {}
    start = 0
    for shards, pairs in ordered(base, pieces):
        for entry, row in pairs:
            if isinstance(entry, Entry) and row >= 0:
                found.setdefault(entry.pixels, start + row)
        start += sum(shard.rows for shard in shards)
    return np.array([found[entry.pixels] for entry in entries], np.int64)


def ordered(
    base: Base | None, pieces: Sequence[Piece]
) -> Iterator[tuple[Sequence[Shard], Iterable[tuple[Found, int]]]]:
    """The sources of vectors, and what each knows of its rows."""
    for piece in pieces:
        if piece.whole:
            yield [piece.shard], zip(piece.found, piece.rows, strict=True)
    if base is not None:
        yield base.shards, zip(base.entries, base.rows.tolist(), strict=True)
    for piece in pieces:
        if not piece.whole:
            yield [piece.shard], zip(piece.found, piece.rows, strict=True)


def sources_of(work: Work, base: Base | None, pieces: Sequence[Piece], at: Ids) -> list[Source]:
    """Every shard there is, in the order of `ordered`, with its rows that are alive."""
    before = [(work.folder, piece.shard, piece) for piece in pieces if piece.whole]
    middle = [(base.folder, shard, None) for shard in base.shards] if base else []
    after = [(work.folder, piece.shard, piece) for piece in pieces if not piece.whole]
    alive = np.unique(at)
    sources: list[Source] = []
    start = 0
    for folder, shard, piece in (*before, *middle, *after):
        first, end = np.searchsorted(alive, [start, start + shard.rows])
        sources.append(
            Source(
                path=folder / shard.file,
                shard=shard,
                start=start,
                piece=piece,
                alive=alive[first:end] - start,
            )
        )
        start += shard.rows
    return sources


def choose_kept(sources: Sequence[Source], most: int) -> list[Source]:
    """The shards that are kept as they are: the earlier version's first, in their order."""
    worth = [source for source in sources if source.worth_keeping]
    small = [source for source in worth if 2 * len(source.alive) < most]
    if len(small) > FEW:
        worth = [source for source in worth if source not in small]
    return sorted(worth, key=lambda source: source.piece is not None)


def number_rows(placed: Sequence[Placed], base: Base | None) -> tuple[list[Stored], Ids]:
    """The shards under their new names, and every source row's new number, −1 where it has none."""
    taken = {shard.file for shard in base.shards} if base else set()
    free = (name for n in range(10**9) if (name := f"vectors-{n:05}.npy") not in taken)
    moved = np.full(1 + max((int(p.rows.max()) for p in placed), default=-1), -1, np.int64)
    stored: list[Stored] = []
    start = 0
    for one in placed:
        shard = one.shard if one.named else replace(one.shard, file=next(free))
        stored.append(Stored(path=one.path, shard=shard))
        moved[one.rows] = start + np.arange(len(one.rows))
        start += len(one.rows)
    return stored, moved


def count(earlier: dict[str, Entry], entries: Sequence[Entry], computed: int) -> Counts:
    """Compare with the earlier version."""
    before = [earlier.get(entry.path) for entry in entries]
    known = [pair for pair in zip(before, entries, strict=True) if pair[0] is not None]
    kept = sum(old is not None and old.sha256 == new.sha256 for old, new in known)
    return Counts(
        added=len(entries) - len(known),
        changed=len(known) - kept,
        vanished=len(earlier) - len(known),
        kept=kept,
        computed=computed,
        reused=max(0, len(entries) - kept - computed),
    )

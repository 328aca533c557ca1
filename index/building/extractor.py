"""The work of one process of a build: its files → batches → blocks in the work folder."""

from collections.abc import Callable, Collection, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import TypeVar

import numpy as np

from index.building.assembly import Base
from index.building.checkpoint import Found, Piece, Work
from index.building.distributed import Company
from index.building.file_list import Entry, LeftOut
from index.building.reader import Read, read_ahead, read_photograph, stamp_of
from index.manifest import StoreError
from index.vectors import Floats
from model.predict import Pixels, Predictor

T = TypeVar("T")
BATCH = 64
"""Images that go through the network at once."""
AHEAD = 2 * BATCH
"""Squares that wait in memory, of 192 KiB each."""


@dataclass(frozen=True, kw_only=True)
class Todo:
    """The files to read, by their paths, and the number of the first block that they make."""

    paths: list[str]
    number: int


class Known:
    """The files whose vectors are there already."""

    def __init__(self, base: Base | None, pieces: Sequence[Piece]) -> None:
        self.by_path: dict[str, Found] = {}
        self.by_sha256: dict[str, Entry] = {}
        self.pixels: set[str] = set()
        if base is not None:
            self.learn(base.entries, base.rows.tolist())
        for piece in sorted(pieces, key=lambda piece: piece.number):
            self.learn(piece.found, piece.rows)

    def learn(self, found: Sequence[Found], rows: Sequence[int]) -> None:
        """Take in what is known of files; their row is −1 where it is another's."""
        for one, row in zip(found, rows, strict=True):
            self.by_path[one.path] = one
            if isinstance(one, Entry):
                self.by_sha256[one.sha256] = one
                if row >= 0:
                    self.pixels.add(one.pixels)

    def same_bytes(self, sha256: str) -> Entry | None:
        """An entry of these bytes whose vector is there."""
        found = self.by_sha256.get(sha256)
        return found if found is not None and found.pixels in self.pixels else None

    def still(self, root: Path, path: str) -> bool:
        """Whether a file is as it was when it became known, and need not be read."""
        found = self.by_path.get(path)
        if found is None or (isinstance(found, Entry) and found.pixels not in self.pixels):
            return False
        return found.stamp is not None and found.stamp == stamp_of(root / path)


@dataclass(frozen=True)
class Run:
    """What this process does of a build."""

    predictor: Predictor
    root: Path
    work: Work
    company: Company
    todo: Todo
    batch: int
    block: int
    told: Callable[[int], None] | None

    def compute(self, known: Known) -> None:
        """Compute this process's blocks, writing each while the next is computed."""
        total, block = len(self.todo.paths), self.block
        numbers = range(self.company.rank, -(-total // block), self.company.size)
        paths = (path for n in numbers for path in self.todo.paths[n * block : (n + 1) * block])

        def read(path: str) -> Read | LeftOut:
            return read_photograph(self.root, path, known.same_bytes)

        with (
            ThreadPoolExecutor(1, thread_name_prefix="write") as writer,
            closing(read_ahead(read, paths, AHEAD)) as files,
        ):
            written: Future[object] = writer.submit(int)
            for number in numbers:
                size = min(block, total - number * block)
                done = self.compute_block(islice(files, size), known)
                written.result()
                name = f"block-{self.company.rank}-{self.todo.number + number:07}"
                written = writer.submit(self.work.write, name, done.vectors, done.found, done.rows)
                known.learn(done.found, done.rows)
            written.result()

    def compute_block(self, files: Iterator[Read | LeftOut], known: Known) -> "Block":
        """Compute one block's features. Raises StoreError."""
        block = Block(known.pixels)
        for group in groups(files, self.batch):
            block.add(group, self.predictor, self.batch)
            done = self.company.count(len(group))
            if self.told is not None:
                self.told(done)
        block.compute(self.predictor, self.batch, whole=True)
        check_there(self.root, block.found)
        return block


@dataclass
class Block:
    """Files being computed, as a piece will keep them.

    elsewhere: digests of the pixels whose vectors are there already.
    """

    elsewhere: Collection[str]
    found: list[Found] = field(default_factory=list)
    rows: list[int] = field(default_factory=list)
    vectors: list[Floats] = field(default_factory=list)
    own: dict[str, Entry] = field(default_factory=dict)
    waiting: list[tuple[Entry, Pixels]] = field(default_factory=list)

    def add(self, group: Sequence[Read | LeftOut], predictor: Predictor, batch: int) -> None:
        """Take in files that were read, and compute what makes a whole batch."""
        for one in group:
            entry = one.entry if isinstance(one, Read) else one
            row = -1
            if isinstance(one, Read) and one.square is not None and self.new(one.entry):
                row = len(self.own)
                self.own[one.entry.pixels] = one.entry
                self.waiting.append((one.entry, one.square))
            self.found.append(entry)
            self.rows.append(row)
        self.compute(predictor, batch, whole=False)

    def new(self, entry: Entry) -> bool:
        """Whether no vector of these pixels is there yet."""
        return entry.pixels not in self.own and entry.pixels not in self.elsewhere

    def compute(self, predictor: Predictor, batch: int, *, whole: bool) -> None:
        """Compute the batches that wait; the last, smaller one when the block is whole."""
        while len(self.waiting) >= (1 if whole else batch):
            some, self.waiting = self.waiting[:batch], self.waiting[batch:]
            features = predictor.features(np.stack([square for _, square in some]))
            check_numbers(features, [entry for entry, _ in some])
            self.vectors.append(features)


def check_numbers(features: Floats, entries: Sequence[Entry]) -> None:
    """Raise StoreError, naming the image, unless all features are numbers."""
    finite = np.isfinite(features).all(axis=1)
    if not finite.all():
        path = entries[int(finite.argmin())].path
        raise StoreError(
            f"The features of {path} are not finite numbers: the weights are broken; train anew"
        )


def check_there(root: Path, found: Sequence[Found]) -> None:
    """Raise StoreError when files could not be opened because their folder is gone."""
    lost = [one for one in found if isinstance(one, LeftOut) and one.stamp is None]
    if not lost:
        return
    split = root / lost[0].path.partition("/")[0]
    try:
        there = split.is_dir()
    except OSError:
        there = False
    if not there:
        raise StoreError(
            f"The folder {split} has vanished. What was finished is kept: put it back, then start "
            "the build again"
        )


def groups(values: Iterator[T], size: int) -> Iterator[list[T]]:
    """Lists of `size` values, the last one shorter."""
    while group := list(islice(values, size)):
        yield group

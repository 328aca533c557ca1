"""The work of one process of a build: its files → batches → blocks in the work folder."""

from collections.abc import Callable, Collection, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import TypeVar

import numpy as np

from index.building.assembly import BaseVersion
from index.building.checkpoint import BuildCheckpoint, ScannedFile, Segment
from index.building.distributed import ProcessGroup
from index.building.file_list import FileEntry, UnreadableFile
from index.building.reader import DecodedFile, file_stamp, read_ahead, read_photograph
from index.manifest import StoreError
from index.vectors import Floats
from model.predict import Pixels, Predictor

T = TypeVar("T")
BATCH = 64
"""Images that go through the network at once."""
MAX_WAITING_IMAGES = 2 * BATCH
"""Squares that wait in memory, of 192 KiB each."""


@dataclass(frozen=True, kw_only=True)
class BuildPlan:
    """The files to read, by their paths, and the number of the first block that they make."""

    paths: list[str]
    first_block: int


class KnownFiles:
    """The files whose vectors are there already."""

    def __init__(self, base: BaseVersion | None, pieces: Sequence[Segment]) -> None:
        self.by_path: dict[str, ScannedFile] = {}
        self.by_sha256: dict[str, FileEntry] = {}
        self.pixels: set[str] = set()
        if base is not None:
            self.add(base.entries, base.rows.tolist())
        for piece in sorted(pieces, key=lambda piece: piece.number):
            self.add(piece.files, piece.rows)

    def add(self, found: Sequence[ScannedFile], rows: Sequence[int]) -> None:
        """Take in what is known of files; their row is −1 where it is another's."""
        for one, row in zip(found, rows, strict=True):
            self.by_path[one.path] = one
            if isinstance(one, FileEntry):
                self.by_sha256[one.sha256] = one
                if row >= 0:
                    self.pixels.add(one.pixels)

    def find_by_sha256(self, sha256: str) -> FileEntry | None:
        """An entry of these bytes whose vector is there."""
        found = self.by_sha256.get(sha256)
        return found if found is not None and found.pixels in self.pixels else None

    def is_unchanged(self, root: Path, path: str) -> bool:
        """Whether a file is as it was when it became known, and need not be read."""
        found = self.by_path.get(path)
        if found is None or (isinstance(found, FileEntry) and found.pixels not in self.pixels):
            return False
        return found.stamp is not None and found.stamp == file_stamp(root / path)


@dataclass(frozen=True)
class Extractor:
    """What this process does of a build."""

    predictor: Predictor
    root: Path
    checkpoint: BuildCheckpoint
    processes: ProcessGroup
    plan: BuildPlan
    batch: int
    block: int
    report_done: Callable[[int], None] | None

    def run(self, known: KnownFiles) -> None:
        """Compute this process's blocks, writing each while the next is computed."""
        total, block = len(self.plan.paths), self.block
        numbers = range(self.processes.rank, -(-total // block), self.processes.size)
        paths = (path for n in numbers for path in self.plan.paths[n * block : (n + 1) * block])

        def read(path: str) -> DecodedFile | UnreadableFile:
            return read_photograph(self.root, path, known.find_by_sha256)

        with (
            ThreadPoolExecutor(1, thread_name_prefix="write") as writer,
            closing(read_ahead(read, paths, MAX_WAITING_IMAGES)) as files,
        ):
            written: Future[object] = writer.submit(int)
            for number in numbers:
                size = min(block, total - number * block)
                done = self.compute_block(islice(files, size), known)
                written.result()
                name = f"block-{self.processes.rank}-{self.plan.first_block + number:07}"
                written = writer.submit(
                    self.checkpoint.write_segment, name, done.vectors, done.files, done.rows
                )
                known.add(done.files, done.rows)
            written.result()

    def compute_block(
        self, files: Iterator[DecodedFile | UnreadableFile], known: KnownFiles
    ) -> "FeatureBlock":
        """Compute one block's features. Raises StoreError."""
        block = FeatureBlock(known.pixels)
        for group in split_batches(files, self.batch):
            block.add(group, self.predictor, self.batch)
            done = self.processes.count_files(len(group))
            if self.report_done is not None:
                self.report_done(done)
        block.compute(self.predictor, self.batch, whole=True)
        check_folder_exists(self.root, block.files)
        return block


@dataclass
class FeatureBlock:
    """Files being computed, as a piece will keep them.

    elsewhere: digests of the pixels whose vectors are there already.
    """

    known_pixels: Collection[str]
    files: list[ScannedFile] = field(default_factory=list)
    rows: list[int] = field(default_factory=list)
    vectors: list[Floats] = field(default_factory=list)
    new_entries: dict[str, FileEntry] = field(default_factory=dict)
    waiting: list[tuple[FileEntry, Pixels]] = field(default_factory=list)

    def add(
        self, group: Sequence[DecodedFile | UnreadableFile], predictor: Predictor, batch: int
    ) -> None:
        """Take in files that were read, and compute what makes a whole batch."""
        for one in group:
            entry = one.entry if isinstance(one, DecodedFile) else one
            row = -1
            if isinstance(one, DecodedFile) and one.square is not None and self.is_new(one.entry):
                row = len(self.new_entries)
                self.new_entries[one.entry.pixels] = one.entry
                self.waiting.append((one.entry, one.square))
            self.files.append(entry)
            self.rows.append(row)
        self.compute(predictor, batch, whole=False)

    def is_new(self, entry: FileEntry) -> bool:
        """Whether no vector of these pixels is there yet."""
        return entry.pixels not in self.new_entries and entry.pixels not in self.known_pixels

    def compute(self, predictor: Predictor, batch: int, *, whole: bool) -> None:
        """Compute the batches that wait; the last, smaller one when the block is whole."""
        while len(self.waiting) >= (1 if whole else batch):
            some, self.waiting = self.waiting[:batch], self.waiting[batch:]
            features = predictor.extract_features(np.stack([square for _, square in some]))
            check_finite_features(features, [entry for entry, _ in some])
            self.vectors.append(features)


def check_finite_features(features: Floats, entries: Sequence[FileEntry]) -> None:
    """Raise StoreError, naming the image, unless all features are numbers."""
    finite = np.isfinite(features).all(axis=1)
    if not finite.all():
        path = entries[int(finite.argmin())].path
        raise StoreError(
            f"The features of {path} are not finite numbers: the weights are broken; train anew"
        )


def check_folder_exists(root: Path, found: Sequence[ScannedFile]) -> None:
    """Raise StoreError when files could not be opened because their folder is gone."""
    lost = [one for one in found if isinstance(one, UnreadableFile) and one.stamp is None]
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


def split_batches(values: Iterator[T], size: int) -> Iterator[list[T]]:
    """Lists of `size` values, the last one shorter."""
    while group := list(islice(values, size)):
        yield group

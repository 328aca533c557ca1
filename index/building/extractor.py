"""Extracts the features of one process's files: pixels → batches → fc7 → blocks on disk."""

from collections.abc import Callable, Collection, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import TypeVar

import numpy as np

from index.building.checkpoint import BuildCheckpoint, ScannedFile, Segment
from index.building.distributed import ProcessGroup
from index.building.file_list import FileEntry, UnreadableFile
from index.building.reader import DecodedFile, read_file_stamp, read_photograph
from index.building.writer import BaseVersion
from index.manifest import StoreError
from index.vectors import Floats
from model.predict import Pixels, Predictor
from storage.parallel import map_ahead, split_batches

T = TypeVar("T")
IMAGES_PER_BATCH = 64
"""Images per forward pass."""
MAX_WAITING_IMAGES = 2 * IMAGES_PER_BATCH
"""Decoded images waiting in memory, 192 KiB each."""


@dataclass(frozen=True, kw_only=True)
class BuildPlan:
    """The paths of the files to read, and the number of the first new block."""

    paths: list[str]
    first_block: int


class KnownFiles:
    """The files scanned so far, and the pixels whose vectors exist."""

    def __init__(self, base: BaseVersion | None, segments: Sequence[Segment]) -> None:
        self.by_path: dict[str, ScannedFile] = {}
        self.by_sha256: dict[str, FileEntry] = {}
        self.pixels: set[str] = set()
        if base is not None:
            self.add(base.entries, base.rows.tolist())
        for segment in sorted(segments, key=lambda segment: segment.number):
            self.add(segment.files, segment.rows)

    def add(self, files: Sequence[ScannedFile], rows: Sequence[int]) -> None:
        """Add files; row −1 stands for an unreadable file or a duplicate."""
        for file, row in zip(files, rows, strict=True):
            self.by_path[file.path] = file
            if isinstance(file, FileEntry):
                self.by_sha256[file.sha256] = file
                if row >= 0:
                    self.pixels.add(file.pixels)

    def find_by_sha256(self, sha256: str) -> FileEntry | None:
        """Find an entry with these bytes whose vector exists."""
        entry = self.by_sha256.get(sha256)
        return entry if entry is not None and entry.pixels in self.pixels else None

    def is_unchanged(self, root: Path, path: str) -> bool:
        """Whether a file is unchanged since it was scanned and need not be read again."""
        file = self.by_path.get(path)
        if file is None or (isinstance(file, FileEntry) and file.pixels not in self.pixels):
            return False
        return file.stamp is not None and file.stamp == read_file_stamp(root / path)


@dataclass(frozen=True)
class Extractor:
    """Computes this process's share of a build.

    batch: images per forward pass. block: files per block.
    """

    predictor: Predictor
    root: Path
    checkpoint: BuildCheckpoint
    processes: ProcessGroup
    plan: BuildPlan
    batch: int
    block: int
    report_done: Callable[[int], None] | None

    def run(self, known: KnownFiles) -> None:
        """Compute every n-th block of n processes, writing each while the next is computed.

        Raises StoreError.
        """
        total, block = len(self.plan.paths), self.block
        numbers = range(self.processes.rank, -(-total // block), self.processes.size)
        resize = self.predictor.config.resize
        paths = (path for n in numbers for path in self.plan.paths[n * block : (n + 1) * block])

        def read(path: str) -> DecodedFile | UnreadableFile:
            return read_photograph(self.root, path, known.find_by_sha256, resize)

        with (
            ThreadPoolExecutor(1, thread_name_prefix="write") as writer,
            closing(map_ahead(read, paths, MAX_WAITING_IMAGES)) as files,
        ):
            written: Future[object] = writer.submit(int)
            for number in numbers:
                size = min(block, total - number * block)
                computed = self.compute_block(islice(files, size), known)
                written.result()
                name = f"block-{self.processes.rank}-{self.plan.first_block + number:07}"
                written = writer.submit(
                    self.checkpoint.write_segment,
                    name,
                    computed.vectors,
                    computed.files,
                    computed.rows,
                )
                known.add(computed.files, computed.rows)
            written.result()

    def compute_block(
        self, files: Iterator[DecodedFile | UnreadableFile], known: KnownFiles
    ) -> "FeatureBlock":
        """Compute the features of one block. Raises StoreError."""
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
    """A block of files and their features, under construction.

    known_pixels: digests of pixels whose vectors exist already. rows: each file's row, or −1.
    vectors: float32 [n, 4096] per batch. waiting: entries and squares of the next batch.
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
        """Add decoded files, and compute the full batches."""
        for file in group:
            row = -1
            entry, square = (
                (file.entry, file.square) if isinstance(file, DecodedFile) else (file, None)
            )
            if isinstance(entry, FileEntry) and square is not None and self.is_new(entry):
                row = len(self.new_entries)
                self.new_entries[entry.pixels] = entry
                self.waiting.append((entry, square))
            self.files.append(entry)
            self.rows.append(row)
        self.compute(predictor, batch, whole=False)

    def is_new(self, entry: FileEntry) -> bool:
        """Whether there is no vector of these pixels yet."""
        return entry.pixels not in self.new_entries and entry.pixels not in self.known_pixels

    def compute(self, predictor: Predictor, batch: int, *, whole: bool) -> None:
        """Compute the full batches; with `whole` the last, smaller one too."""
        while len(self.waiting) >= (1 if whole else batch):
            images, self.waiting = self.waiting[:batch], self.waiting[batch:]
            features = predictor.extract_features(np.stack([square for _, square in images]))
            check_finite_features(features, [entry for entry, _ in images])
            self.vectors.append(features)


def check_finite_features(features: Floats, entries: Sequence[FileEntry]) -> None:
    """Raise StoreError, naming the image, unless all features are finite."""
    finite = np.isfinite(features).all(axis=1)
    if not finite.all():
        path = entries[int(finite.argmin())].path
        raise StoreError(
            f"The features of {path} are not finite numbers: the weights are broken; train anew"
        )


def check_folder_exists(root: Path, files: Sequence[ScannedFile]) -> None:
    """Raise StoreError if files could not be opened because the folder they are in is gone."""
    lost = [file for file in files if isinstance(file, UnreadableFile) and file.stamp is None]
    if not lost:
        return
    folder, slash, _ = lost[0].path.partition("/")
    place = root / folder if slash else root
    try:
        exists = place.is_dir()
    except OSError:
        exists = False
    if not exists:
        raise StoreError(
            f"The folder {place} has vanished. What was finished is kept: put it back, then start "
            "the build again"
        )

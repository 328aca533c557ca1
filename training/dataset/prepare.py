"""Photographs decoded once into a store for training: pixels, mean image and PCA in one pass.

The work can be cut off at any moment, by `kill -9` or a power failure too; the next call keeps the
chunks that were finished.
"""

import hashlib
import os
import shutil
from collections.abc import Sequence
from contextlib import closing, suppress
from pathlib import Path

from model.config import SQUARE_SIDE
from model.dataset import ImageFolder
from storage.files import write_atomically
from training.dataset.decode import ChunkId, PreparationJob, Progress, decode_chunks
from training.dataset.folder import FolderSource
from training.dataset.prepared import META_FILE, PreparedDataset, finish_dataset, open_prepared
from training.dataset.source import SPLITS, DataError, Sample, Source, UnfinishedError
from training.dataset.store import (
    ChunkWriter,
    EncodedImage,
    Encoding,
    Split,
    hold_lock,
    read_finished_chunk,
    report_disk_errors,
)

__all__ = [
    "MAX_RAW_BYTES",
    "DataError",
    "PreparedDataset",
    "Progress",
    "Split",
    "UnfinishedError",
    "prepare",
]

MAX_RAW_BYTES = 50_000_000_000
"""Bytes of raw pixels a store may have; a larger set is stored as JPEG. A quarter of a million
photographs at 256×256 fit (Imagenette takes 2.6 GB), as a disk and most of a server's memory hold
them; ImageNet's 1.28 million would take 252 GB and take about 50 as JPEG."""
FORMAT = 2


def prepare(
    source: ImageFolder | Source,
    store: Path,
    progress: Progress,
    *,
    side: int = SQUARE_SIDE,
    budget: int = MAX_RAW_BYTES,
) -> PreparedDataset:
    """Decode every photograph of a source into `store`, or open what was decoded before.

    They are stored as squares of `side` pixels, raw where all of them fit into `budget` bytes,
    as JPEG otherwise. Files that cannot be read are left out and named. `progress` is called
    with how many more are done. Of several processes that are told the same, one does the work
    and the others wait for it.

    Raises DataError: the disk has too little room, the store cannot be written, a class has no
    readable photograph, a shard is damaged.
    """
    source = FolderSource(source) if isinstance(source, ImageFolder) else source
    with report_disk_errors(store):
        store.mkdir(parents=True, exist_ok=True)
    images = count_images(source, store)
    kind: Encoding = "raw" if images * side * side * 3 <= budget else "jpeg"
    key = short_digest(f"{FORMAT} {source.listing()} {side} {kind}")
    place = store / key
    if not (place / META_FILE).exists():
        with hold_lock(store / f".{key}.lock"):
            if not (place / META_FILE).exists():
                build_dataset(PreparationJob(source, place, side, kind, progress), images)
                return open_prepared(place, source)
    prepared = open_prepared(place, source)
    progress(len(prepared.train) + len(prepared.val) + len(prepared.unreadable))
    return prepared


def short_digest(text: str) -> str:
    """A short name for what a text says."""
    return hashlib.sha256(os.fsencode(text)).hexdigest()[:16]


def count_images(source: Source, store: Path) -> int:
    """How many photographs a source has; shards, which must be read for that, are asked once."""
    if isinstance(source, FolderSource):
        return source.images()
    note = store / f".{short_digest(source.listing())}.count"
    with hold_lock(note.with_suffix(".lock")):
        with suppress(OSError, ValueError):
            return int(note.read_text())
        images = source.images()
        with report_disk_errors(store):
            write_atomically(note, str(images))
        return images


def build_dataset(work: PreparationJob, images: int) -> None:
    """Write the chunks that are not there yet; last, what describes them all.

    What can never become whole is removed; what was only cut off stays for the next call.
    """
    chunks = [ChunkId(s, number) for s in SPLITS for number in range(work.source.chunks(s))]
    done = {p: index for p in chunks if (index := read_finished_chunk(work.folder, p.name))}
    held = sum(len(index.codes) + len(index.unreadable) for index in done.values())
    check_store_space(work, images - held)
    work.progress(held)
    with report_disk_errors(work.folder.parent):
        work.folder.mkdir(exist_ok=True)
    try:
        write_chunks(work, [chunk for chunk in chunks if chunk not in done])
        finish_dataset(work, chunks)
    except UnfinishedError:
        raise
    except DataError:
        shutil.rmtree(work.folder, ignore_errors=True)
        raise
    finally:
        with suppress(OSError):
            work.folder.rmdir()  # when there is nothing in it


def check_store_space(work: PreparationJob, images: int) -> None:
    """Raise DataError unless the disk can hold so many more."""
    store = work.folder.parent
    need, free = max(0, images) * work.estimate_image_bytes(), shutil.disk_usage(store).free
    if need > free:
        raise DataError(
            f"{images:,} images at {work.side}×{work.side} need {need / 1e9:.1f} GB as "
            f"{'raw pixels' if work.kind == 'raw' else 'JPEG'} under {store}, which has "
            f"{free / 1e9:.1f} GB free; make room or set ALEXNET_HOME to another disk"
        )


def write_chunks(work: PreparationJob, chunks: Sequence[ChunkId]) -> None:
    """Decode on all cores and write in order, one chunk after the other."""
    writer: ChunkWriter | None = None
    with closing(decode_chunks(work, chunks)) as images:
        try:
            for chunk, decoded in images:
                with report_disk_errors(work.folder.parent):
                    writer = writer or ChunkWriter(work.folder, chunk.name, work.side)
                    if decoded is None:
                        writer.finish()
                        writer = None
                        continue
                    add_sample(writer, *decoded)
                work.progress(1)
        finally:
            if writer is not None:
                writer.abandon()


def add_sample(writer: ChunkWriter, sample: Sample, entry: EncodedImage | str) -> None:
    """Add an image to a chunk, or what is wrong with it."""
    if isinstance(entry, str):
        writer.unreadable.append(entry)
    else:
        writer.add(entry, sample.label)

"""Decode photographs once into a store for training: pixels, mean image and PCA in one pass.

Preparation may be interrupted at any moment, even by `kill -9` or a power failure; the next call
keeps the finished chunks. Photographs that an earlier set holds are not decoded again.
"""

import hashlib
import os
import shutil
from collections.abc import Sequence
from contextlib import closing, suppress
from pathlib import Path

from model.dataset.folder import ImageFolder
from model.network.config import SQUARE_SIDE, Resize
from storage.files import switch_link, write_atomically
from training.dataset.decode import ChunkId, PreparationJob, Progress, decode_chunks
from training.dataset.folder import FolderSource
from training.dataset.known import (
    NOTHING_KNOWN,
    KnownPhotographs,
    find_related_set,
    has_same_content,
    index_known,
)
from training.dataset.listing import Origin, read_listings
from training.dataset.prepared import PreparedDataset, finish_dataset, open_prepared
from training.dataset.source import SPLITS, DataError, Sample, Source, SplitName, UnfinishedError
from training.dataset.store import (
    META_FILE,
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
"""Size up to which a training set is stored as raw pixels; a larger one is stored as JPEG. A
quarter of a million photographs at 256×256 fit (Imagenette takes 2.6 GB), which a server's memory
can mostly cache; ImageNet's 1.28 million would take 252 GB raw and take about 45 as JPEG."""
STORE_FORMAT = 3
"""Version of the stored format, part of each set's key."""


def prepare(
    source: ImageFolder | Source,
    store: Path,
    progress: Progress,
    *,
    side: int = SQUARE_SIDE,
    resize: Resize = "bicubic",
    budget: int = MAX_RAW_BYTES,
) -> PreparedDataset:
    """Decode all photographs of a source into the folder `store`, or open an earlier result.

    They are stored as squares of `side` pixels, made as `resize` says (AlexNetConfig), raw if all
    of them fit into `budget` bytes, else as JPEG. Files that cannot be read are left out and listed
    in the result. `progress` is called with how many more photographs are done. If several
    processes prepare the same set, one works and the others wait.

    Raises DataError if the disk has too little space, the store cannot be written, a class has no
    readable photograph, or a shard is damaged; UnfinishedError if calling again would continue.
    """
    source = FolderSource(source) if isinstance(source, ImageFolder) else source
    with report_disk_errors(store):
        store.mkdir(parents=True, exist_ok=True)
    images = count_images(source, store)
    kind: Encoding = "raw" if images * side * side * 3 <= budget else "jpeg"
    form = describe_form(side, kind, resize)
    key = name_set(source, form)
    folder = store / key
    if not (folder / META_FILE).exists():
        with hold_lock(store / f".{key}.lock"):
            if not (folder / META_FILE).exists() and not link_same_set(source, folder, form):
                known = find_known(source, store, form)
                job = PreparationJob(source, folder, side, kind, progress, resize, known)
                build_dataset(job, images, form)
                return open_prepared(folder, source)
    prepared = open_prepared(folder, source)
    with suppress(OSError):  # a store that can only be read
        os.utime(folder.resolve())  # when it was last used
    progress(len(prepared.train) + len(prepared.val) + len(prepared.unreadable))
    return prepared


def describe_form(side: int, kind: Encoding, resize: Resize) -> str:
    """Describe how photographs are stored."""
    return f"{STORE_FORMAT} {side} {kind} {resize}"


def name_set(source: Source, form: str) -> str:
    """Return the name of a source's set in this form: it changes when one of its files does."""
    return short_digest(f"{source.fingerprint()} {form}")


def link_same_set(source: Source, folder: Path, form: str) -> bool:
    """Link to the set of a folder that was moved or copied here, if there is one.

    Its photographs are read to compare them, but not decoded.
    """
    if folder.is_symlink():
        folder.unlink()  # what it led to was removed
    related = find_related_set(folder.parent, source.root, form)
    if related is None or not isinstance(source, FolderSource):
        return False
    names = tuple(photograph.path for photograph in (*source.folder.train, *source.folder.val))
    if not has_same_content(source.root, names, related[0]):
        return False
    switch_link(folder, related[0])
    return True


def find_known(source: Source, store: Path, form: str) -> KnownPhotographs:
    """Return the photographs that need not be decoded, from the set most like this one."""
    related = find_related_set(store, source.root, form)
    if related is None:
        return NOTHING_KNOWN
    folder, same_place = related
    with suppress(DataError, OSError, ValueError, KeyError):
        prepared = open_prepared(folder, source)
        splits: dict[SplitName, Split] = {"train": prepared.train, "val": prepared.val}
        return index_known(splits, read_listings(folder), same_place=same_place)
    return NOTHING_KNOWN


def short_digest(text: str) -> str:
    """Digest a text to 16 hex digits."""
    return hashlib.sha256(os.fsencode(text)).hexdigest()[:16]


def count_images(source: Source, store: Path) -> int:
    """Return how many photographs a source has; for shards, which must be read, only once."""
    if isinstance(source, FolderSource):
        return source.count_photographs()
    note = store / f".{short_digest(source.fingerprint())}.count"
    with hold_lock(note.with_suffix(".lock")):
        with suppress(OSError, ValueError):
            return int(note.read_text())
        images = source.count_photographs()
        with report_disk_errors(store):
            write_atomically(note, str(images))
        return images


def build_dataset(job: PreparationJob, images: int, form: str) -> None:
    """Write the missing chunks, then the files that describe the whole set.

    After an interruption the finished chunks stay for the next call; after any other DataError
    everything is removed.
    """
    chunks = [ChunkId(s, number) for s in SPLITS for number in range(job.source.count_chunks(s))]
    done = {p: index for p in chunks if (index := read_finished_chunk(job.folder, p.name))}
    held = sum(len(index.codes) + len(index.unreadable) for index in done.values())
    check_store_space(job, images - held)
    job.progress(held)
    with report_disk_errors(job.folder.parent):
        job.folder.mkdir(exist_ok=True)
    try:
        write_chunks(job, [chunk for chunk in chunks if chunk not in done])
        finish_dataset(job, chunks, form)
    except UnfinishedError:
        raise
    except DataError:
        shutil.rmtree(job.folder, ignore_errors=True)
        raise
    finally:
        with suppress(OSError):
            job.folder.rmdir()  # if it is empty


def check_store_space(job: PreparationJob, images: int) -> None:
    """Raise DataError unless the disk has space for this many more images."""
    store = job.folder.parent
    need, free = max(0, images) * job.estimate_image_bytes(), shutil.disk_usage(store).free
    if need > free:
        raise DataError(
            f"{images:,} images at {job.side}×{job.side} need {need / 1e9:.1f} GB as "
            f"{'raw pixels' if job.kind == 'raw' else 'JPEG'} under {store}, which has "
            f"{free / 1e9:.1f} GB free; make room or set ALEXNET_HOME to another disk"
        )


def write_chunks(job: PreparationJob, chunks: Sequence[ChunkId]) -> None:
    """Decode photographs on all cores and write them in order, chunk by chunk."""
    writer: ChunkWriter | None = None
    with closing(decode_chunks(job, chunks)) as images:
        try:
            for chunk, decoded in images:
                with report_disk_errors(job.folder.parent):
                    writer = writer or ChunkWriter(job.folder, chunk.name, job.side)
                    if decoded is None:
                        writer.finish()
                        writer = None
                        continue
                    add_sample(writer, *decoded)
                job.progress(1)
        finally:
            if writer is not None:
                writer.abandon()


def add_sample(
    writer: ChunkWriter, sample: Sample, origin: Origin, entry: EncodedImage | str
) -> None:
    """Add an image to a chunk, or the reason why it cannot be read."""
    if isinstance(entry, str):
        writer.leave_out(entry, origin)
    else:
        writer.add(entry, sample.label, origin)

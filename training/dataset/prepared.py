"""A dataset ready for training: completed from its chunks, and opened again later."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from model.dataset.folder import ClassName, describe_class_mismatch, find_wordnet_labels
from model.network.config import SQUARE_SIDE
from model.weights.checkpoint import Pca
from storage.files import write_atomically
from training.dataset.decode import ChunkId, PreparationJob
from training.dataset.folder import FolderSource
from training.dataset.listing import LISTING_FILE, Arrays, Listing, digest_content
from training.dataset.source import SPLITS, DataError, Source, SplitName
from training.dataset.statistics import PixelSums
from training.dataset.store import (
    META_FILE,
    ChunkIndex,
    Split,
    bin_file,
    index_file,
    map_chunks,
    read_chunk_sums,
    read_finished_chunk,
    report_disk_errors,
    write_arrays,
)

ARRAYS_FILE = "arrays.npz"


@dataclass(frozen=True)
class PreparedDataset:
    """A dataset ready for training.

    key:        identifies its content, side and encoding, wherever the photographs lie.
    root:       the folder, or the URL pattern of the shards.
    mean:       float32 [3, side, side], 0–255, the training set's mean image (§2).
    pca:        of the training set's RGB values (§4.1).
    unreadable: the files that were left out, each with the reason.
    side:       of the squares, in pixels.
    folder:     where it is stored; None if it is in memory alone.
    """

    key: str
    root: Path | str
    class_names: tuple[ClassName, ...]
    train: Split
    val: Split
    mean: Tensor
    pca: Pca
    unreadable: tuple[str, ...]
    side: int = SQUARE_SIDE
    folder: Path | None = None


def finish_dataset(job: PreparationJob, chunks: Sequence[ChunkId], form: str) -> None:
    """Merge the chunks' indices into one file, and write the files that describe the set.

    form: how photographs are stored in it; sets of another form share none.
    """
    finished = {chunk: read_finished_chunk(job.folder, chunk.name) for chunk in chunks}
    indices = {chunk: index for chunk, index in finished.items() if index is not None}
    unreadable = [line for chunk in chunks for line in indices[chunk].unreadable]
    names = order_classes(job.source, indices, unreadable)
    listings: dict[str, Listing] = {
        split: Listing.join([indices[chunk].listing for chunk in chunks if chunk.split == split])
        for split in SPLITS
    }
    meta = {
        "root": str(job.source.root),
        "form": form,
        "images": sum(len(index.codes) for index in indices.values()),
        "content": digest_content(f"{form} {[name.folder for name in names]}", listings),
        "side": job.side,
        "kind": job.kind,
        "names": [[name.folder, name.label] for name in names],
        "unreadable": unreadable,
    }
    arrays = compute_statistics(job, chunks)
    for split in SPLITS:
        own = [indices[chunk] for chunk in chunks if chunk.split == split]
        arrays |= {f"{split}_{key}": value for key, value in join_indices(own, names).items()}
    with report_disk_errors(job.folder.parent):
        write_arrays(job.folder / ARRAYS_FILE, arrays)
        listed = {k: v for s in SPLITS for k, v in listings[s].to_arrays(f"{s}_").items()}
        write_arrays(job.folder / LISTING_FILE, listed)
        write_atomically(job.folder / META_FILE, json.dumps(meta))
        for chunk in chunks:
            index_file(job.folder, chunk.name).unlink()


def compute_statistics(job: PreparationJob, chunks: Sequence[ChunkId]) -> Arrays:
    """Compute the mean image and the principal components of the training chunks."""
    moments = PixelSums.zero(job.side)
    for chunk in chunks:
        if chunk.split == "train":
            moments.merge(read_chunk_sums(job.folder, chunk.name))
    pca = moments.pca()
    return {
        "mean": moments.mean_image().numpy(),
        "pca": torch.vstack([pca.eigenvalues, pca.eigenvectors]).numpy(),
    }


def join_indices(indices: Sequence[ChunkIndex], names: Sequence[ClassName]) -> Arrays:
    """Merge one split's indices: classes and sizes, int64 [N], and the images in each chunk."""
    numbers = {name.folder: number for number, name in enumerate(names)}
    nothing = np.empty(0, np.int64)
    classes = [nothing]
    for index in indices:
        own = np.array([numbers[label] for label in index.labels], np.int64)
        classes.append(own[index.codes])
    return {
        "classes": np.concatenate(classes),
        "sizes": np.concatenate([nothing, *(index.sizes for index in indices)]),
        "counts": np.array([len(index.codes) for index in indices], np.int64),
    }


def order_classes(
    source: Source, indices: dict[ChunkId, ChunkIndex], unreadable: Sequence[str]
) -> tuple[ClassName, ...]:
    """Return the classes by index.

    Raises DataError unless each has a readable photograph in both splits.
    """
    seen: dict[SplitName, set[str]] = {split: set() for split in SPLITS}
    for chunk, index in indices.items():
        seen[chunk.split].update(index.labels)
    if not any(seen.values()):
        first = f"; the first: {unreadable[0]}" if unreadable else ""
        raise DataError(f"no photograph in {source.root} can be read{first}")
    names = source.classes or infer_classes(source, seen)
    for split in SPLITS:
        for name in names:
            if name.folder not in seen[split]:
                first = f"; the first: {unreadable[0]}" if unreadable else ""
                where = f"{source.root}: class {name.folder} of {split}"
                if isinstance(source, FolderSource):
                    where = str(source.root / split / name.folder)
                raise DataError(f"no photograph in {where} can be read{first}")
    return names


def infer_classes(source: Source, seen: dict[SplitName, set[str]]) -> tuple[ClassName, ...]:
    """Derive the classes from the samples' labels, in numeric order if all are numbers.

    Raises DataError if the splits differ, or the numbers have gaps.
    """
    both = seen["train"] | seen["val"]
    numbered = all(label.isdecimal() for label in both)
    order = sorted(both, key=int) if numbered else sorted(both)
    if seen["train"] != seen["val"]:
        train, val = ([name for name in order if name in seen[split]] for split in SPLITS)
        raise DataError(f"{source.root}: {describe_class_mismatch(train, val)}")
    if len(order) < 2:
        raise DataError(f"{source.root} holds one class, {order[0]}; at least two are needed")
    if numbered and order != [str(number) for number in range(len(order))]:
        gap = next(n for n in range(len(order)) if str(n) not in both)
        raise DataError(
            f"{source.root}: {len(order)} class indices up to {order[-1]}, but not {gap}; they "
            "must be 0, 1, 2, …"
        )
    labels = find_wordnet_labels(order)
    return tuple(ClassName(name, labels.get(name, name)) for name in order)


def open_prepared(folder: Path, source: Source) -> PreparedDataset:
    """Open a finished set, mapping its pixels. Raises DataError if a file is missing or damaged."""
    try:
        meta = json.loads((folder / META_FILE).read_text())
        with np.load(folder / ARRAYS_FILE, allow_pickle=False) as arrays:
            train, val = (open_split(folder, split, meta, arrays) for split in SPLITS)
            mean, pca = (torch.from_numpy(arrays[name]) for name in ("mean", "pca"))
    except (OSError, ValueError, KeyError) as error:
        why = f"{folder} is damaged ({error}); remove the folder and try again"
        raise DataError(why) from error
    # A folder's labels may have changed since; those of shards are not downloaded again.
    names = tuple(ClassName(*pair) for pair in meta["names"])
    names = source.classes if isinstance(source, FolderSource) else names
    return PreparedDataset(
        key=meta["content"],
        root=source.root,
        class_names=names,
        train=train,
        val=val,
        mean=mean,
        pca=Pca(pca[0].clone(), pca[1:].clone()),
        unreadable=tuple(meta["unreadable"]),
        side=meta["side"],
        folder=folder,
    )


def open_split(
    folder: Path, split: SplitName, meta: dict[str, object], arrays: "np.lib.npyio.NpzFile"
) -> Split:
    """Map one split's chunks. Raises ValueError if a file has the wrong length."""
    classes, sizes, counts = (arrays[f"{split}_{name}"] for name in ("classes", "sizes", "counts"))
    names = [ChunkId(split, number).name for number in range(len(counts))]
    ends = np.concatenate([[0], np.cumsum(sizes)])
    bounds = np.concatenate([[0], np.cumsum(counts)])
    for name, first, last in zip(names, bounds, bounds[1:], strict=False):
        if bin_file(folder, name).stat().st_size != ends[last] - ends[first]:
            raise ValueError(f"{name} has the wrong length")
    starts = ends[:-1] - np.repeat(ends[bounds[:-1]], counts)
    return Split(
        classes=classes,
        side=int(str(meta["side"])),
        kind="raw" if meta["kind"] == "raw" else "jpeg",
        chunks=map_chunks(folder, names),
        counts=counts,
        starts=starts,
        sizes=sizes,
    )

"""The features of a training set, computed once: files → pixels → fc7 → shards on disk.

Threads read each file once, ahead of the network (reader.py). fc7 is computed in batches and saved
to a checkpoint block by block (extractor.py). Finally the blocks become shards (writer.py). A
killed build resumes from its checkpoint; an update of an earlier version computes only what is new.
"""

import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from index.building.checkpoint import BuildCheckpoint, name_checkpoint_folder
from index.building.distributed import join_processes
from index.building.extractor import IMAGES_PER_BATCH, BuildPlan, Extractor, KnownFiles
from index.building.file_list import escape_file_name
from index.building.sampling import estimate_sample_bytes
from index.building.writer import BaseVersion, GatheredFeatures, write_shards
from index.engines.factory import KINDS
from index.manifest import StoreError
from index.sample import SAMPLE_IMAGES
from index.units import UNITS_BYTES
from index.vectors import ROWS_PER_SHARD, Floats, Ids
from model.dataset.folder import Photograph
from model.image.decode import ImageError
from model.network.config import FEATURES
from model.predict import Pixels, Predictor
from storage.parallel import map_ahead, split_batches
from storage.progress import Report, ignore_progress

__all__ = [
    "BaseVersion",
    "ComputedFeatures",
    "GatheredFeatures",
    "compute_features",
    "estimate_disk_bytes",
    "gather_features",
]

FILES_PER_BLOCK = 512
"""Files saved to the checkpoint at a time: the most that a killed build has to repeat."""
LISTING_BYTES_PER_IMAGE = 700
"""Disk space of the file lists, the checkpoint's included."""
Item = tuple[int, Path]


@dataclass(frozen=True, kw_only=True)
class ComputedFeatures:
    """The features of files.

    ids: int64 [M], in the order of the items. features: float32 [M, 4096] of the centre crops.
    unreadable: id, file and reason of each file left out.
    """

    ids: Ids
    features: Floats
    unreadable: list[tuple[int, Path, str]]


def compute_features(
    predictor: Predictor,
    items: Sequence[Item],
    *,
    batch: int = IMAGES_PER_BATCH,
    on_progress: Callable[[int], None] | None = None,
) -> ComputedFeatures:
    """Compute fc7 of the centre crop of every file, given by id and path, in memory.

    A file that cannot be read is listed and left out. on_progress: called after each batch with
    the number of items done.
    """
    ids: list[int] = []
    features = np.empty((len(items), FEATURES), np.float32)
    unreadable: list[tuple[int, Path, str]] = []
    done = 0
    decode = partial(decode_item, predictor=predictor)
    for group in split_batches(map_ahead(decode, items, 2 * batch), batch):
        good = [(item, pixels) for item, pixels in group if not isinstance(pixels, str)]
        unreadable += [(*item, bad) for item, bad in group if isinstance(bad, str)]
        if good:
            rows = predictor.extract_features(np.stack([pixels for _, pixels in good]))
            features[len(ids) : len(ids) + len(rows)] = rows
            ids += [item[0] for item, _ in good]
        done += len(group)
        if on_progress:
            on_progress(done)
    return ComputedFeatures(
        ids=np.array(ids, np.int64), features=features[: len(ids)], unreadable=unreadable
    )


def decode_item(item: Item, predictor: Predictor) -> tuple[Item, Pixels | str]:
    """Decode one file to uint8 [256, 256, 3], or say what is wrong without repeating its path."""
    try:
        return item, predictor.read_square(item[1])
    except ImageError as error:
        return item, str(error).removeprefix(f"{item[1]}: ")


def gather_features(
    predictor: Predictor,
    root: Path,
    photographs: Sequence[Photograph],
    index_folder: Path,
    *,
    dtype: str = "float16",
    kind: str = "exact",
    base: BaseVersion | None = None,
    report: Report = ignore_progress,
    batch: int = IMAGES_PER_BATCH,
    block: int = FILES_PER_BLOCK,
    rows: int = ROWS_PER_SHARD,
    sample: int = SAMPLE_IMAGES,
) -> GatheredFeatures | None:
    """Write the features of every readable photograph under `root` to shards on disk.

    index_folder: holds the hidden checkpoint; the caller, which holds the build lock, deletes it
    (`delete_checkpoints`) once the version is published. base: an earlier version with the same
    weights and dtype, whose vectors are reused for unchanged files and for equal pixels. kind: that
    of the index to build, to estimate the disk space. batch: images per forward pass. block: files
    per block. rows: the limit per shard. sample: images of the sample, at most, for that estimate.

    With several processes each computes its share of the blocks; the first returns the result, the
    others None. Raises StoreError if the disk is too small, the features of a photograph are not
    finite, the photographs' folder has vanished, or another process is gone.
    """
    if base is not None and base.dtype != dtype:
        raise StoreError(f"An index of {base.dtype} cannot become one of {dtype}; build it anew")
    folder = name_checkpoint_folder(index_folder, predictor.identity, root, dtype)
    checkpoint = BuildCheckpoint(folder, dtype)
    with join_processes() as processes:
        plan = processes.broadcast(
            plan_build(checkpoint, root, photographs, base, kind, sample)
            if processes.is_first
            else None
        )
        total = len(plan.paths)
        report_done = report("Computing features", total) if total else None
        Extractor(predictor, root, checkpoint, processes, plan, batch, block, report_done).run(
            KnownFiles(base, checkpoint.list_segments())
        )
        processes.barrier()
        if not processes.is_first:
            return None
    if report_done is not None:
        report_done(total)
    return write_shards(checkpoint, base, photographs, plan.first_block, report, rows)


def plan_build(
    checkpoint: BuildCheckpoint,
    root: Path,
    photographs: Sequence[Photograph],
    base: BaseVersion | None,
    kind: str,
    sample: int,
) -> BuildPlan:
    """List the files to read. Raises StoreError if the disk is too small for their features."""
    checkpoint.remove_partial()
    segments = checkpoint.list_segments()
    known = KnownFiles(base, segments)
    paths = [p.path for p in photographs if escape_file_name(p.path) == p.path]
    new = [path for path in paths if not known.is_unchanged(root, path)]
    needed = estimate_disk_bytes(len(new), checkpoint.dtype, kind)
    needed += estimate_sample_bytes(len(photographs), sample) + UNITS_BYTES
    free = shutil.disk_usage(checkpoint.folder).free
    if needed > free:
        raise StoreError(
            f"{len(new):,} images need {needed / 1e6:,.1f} MB under {checkpoint.folder.parent}, "
            f"which has {free / 1e6:,.1f} MB free; make room or set ALEXNET_HOME to another disk"
        )
    first_block = 1 + max((segment.number for segment in segments), default=-1)
    return BuildPlan(paths=new, first_block=first_block)


def estimate_disk_bytes(count: int, dtype: str, kind: str) -> int:
    """Estimate the bytes of disk space that new images take, including during the build."""
    width = FEATURES * np.dtype(dtype).itemsize
    kept = width + KINDS[kind].disk_bytes + LISTING_BYTES_PER_IMAGE
    return count * kept + min(count, ROWS_PER_SHARD) * width

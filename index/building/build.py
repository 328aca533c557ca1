"""The features of a training set, computed once: files → pixels → fc7 → shards on disk.

Files are read ahead of the network by threads, once each. What is finished is kept in a work
folder, so that a build that was killed goes on from there, and one that has an earlier version to
go on from computes only what is new.
"""

import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from index.building.assembly import BaseVersion, GatheredFeatures, assemble_version
from index.building.checkpoint import BuildCheckpoint, checkpoint_folder
from index.building.distributed import join_processes
from index.building.extractor import BATCH, BuildPlan, Extractor, KnownFiles, split_batches
from index.building.file_list import escape_file_name
from index.building.reader import read_ahead
from index.building.sampling import sample_bytes_needed
from index.manifest import StoreError
from index.progress import Report, silent
from index.vectors import ROWS_PER_SHARD, Floats, Ids
from model.config import FEATURES
from model.dataset import Photograph
from model.decode import ImageError
from model.predict import Pixels, Predictor
from model.preprocess import read_square

__all__ = [
    "BaseVersion",
    "ComputedFeatures",
    "GatheredFeatures",
    "compute_features",
    "disk_bytes_needed",
    "gather_features",
]

FILES_PER_BLOCK = 512
"""Files whose features are kept together: what a build loses when it is killed, at most."""
Item = tuple[int, Path]


@dataclass(frozen=True, kw_only=True)
class ComputedFeatures:
    """What was computed.

    ids: int64 [M], rising as the items' did. features: float32 [M, 4096] of the centre crops.
    unreadable: id, file and reason of those that were left out.
    """

    ids: Ids
    features: Floats
    unreadable: list[tuple[int, Path, str]]


def compute_features(
    predictor: Predictor,
    items: Sequence[Item],
    *,
    batch: int = BATCH,
    on_progress: Callable[[int], None] | None = None,
) -> ComputedFeatures:
    """Compute fc7 for the centre crop of every file, an id and a path each, in memory.

    A file that cannot be read is listed and left out. `on_progress` is told how many items are
    done, after each batch.
    """
    ids: list[int] = []
    features = np.empty((len(items), FEATURES), np.float32)
    unreadable: list[tuple[int, Path, str]] = []
    done = 0
    for group in split_batches(read_ahead(decode_item, items, 2 * batch), batch):
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


def decode_item(item: Item) -> tuple[Item, Pixels | str]:
    """The pixels of one file, or what is wrong with it, without its path, which stands beside."""
    try:
        return item, read_square(item[1])
    except ImageError as error:
        return item, str(error).removeprefix(f"{item[1]}: ")


def gather_features(
    predictor: Predictor,
    root: Path,
    photographs: Sequence[Photograph],
    place: Path,
    *,
    dtype: str = "float16",
    kind: str = "exact",
    base: BaseVersion | None = None,
    report: Report = silent,
    batch: int = BATCH,
    block: int = FILES_PER_BLOCK,
    rows: int = ROWS_PER_SHARD,
) -> GatheredFeatures | None:
    """Bring the features of every readable photograph under `root` into shards on disk.

    place: the folder of the index, in which a hidden work folder keeps what is finished; the
    caller, who holds the right to build, deletes it (`delete_checkpoints`) once the version is
    there.
    base: an earlier version of the same weights and dtype, whose vectors are taken where the
    files or their pixels are the same. kind: of the index to come, for the room it will take.

    Of several processes each computes its share of the blocks; the first alone gets a result,
    the others get None. Raises StoreError: no room on the disk, a photograph whose features are
    no numbers, the folder has vanished, another process is gone.
    """
    if base is not None and base.dtype != dtype:
        raise StoreError(f"An index of {base.dtype} cannot become one of {dtype}; build it anew")
    work = BuildCheckpoint(checkpoint_folder(place, predictor.identity, root, dtype), dtype)
    with join_processes() as company:
        todo = company.broadcast(
            plan_build(work, root, photographs, base, kind) if company.is_first else None
        )
        told = report("Computing their features", len(todo.paths)) if todo.paths else None
        run = Extractor(predictor, root, work, company, todo, batch, block, told)
        run.run(KnownFiles(base, work.segments()))
        company.barrier()
        if not company.is_first:
            return None
    if told is not None:
        told(len(todo.paths))
    return assemble_version(work, base, photographs, todo.first_block, report, rows)


def plan_build(
    work: BuildCheckpoint,
    root: Path,
    photographs: Sequence[Photograph],
    base: BaseVersion | None,
    kind: str,
) -> BuildPlan:
    """Find what there is to do. Raises StoreError when the disk has no room for that."""
    work.remove_partial()
    pieces = work.segments()
    known = KnownFiles(base, pieces)
    paths = [p.path for p in photographs if escape_file_name(p.path) == p.path]
    todo = [path for path in paths if not known.is_unchanged(root, path)]
    need = disk_bytes_needed(len(todo), work.dtype, kind) + sample_bytes_needed(len(photographs))
    check_disk_space(work.folder, len(todo), need)
    return BuildPlan(
        paths=todo, first_block=1 + max((piece.number for piece in pieces), default=-1)
    )


ENGINE_BYTES_PER_IMAGE = {
    "exact": 0,
    "ivf": 400,
    "hnsw": 800,
    "pq": 150,
    "binary": 150,
    "milvus": 0,
}
"""Bytes an image that each kind's own files take beside the vectors, with something to spare."""
LISTING_BYTES_PER_IMAGE = 700
"""Bytes an image that the listings take, the work folder's included."""


def disk_bytes_needed(count: int, dtype: str, kind: str) -> int:
    """How much room on the disk so many new images take, while they are built too."""
    width = FEATURES * np.dtype(dtype).itemsize
    return (
        count * (width + ENGINE_BYTES_PER_IMAGE.get(kind, 0) + LISTING_BYTES_PER_IMAGE)
        + min(count, ROWS_PER_SHARD) * width
    )


def check_disk_space(folder: Path, count: int, need: int) -> None:
    """Raise StoreError unless the disk can hold so many bytes more."""
    free = shutil.disk_usage(folder).free
    if need > free:
        raise StoreError(
            f"{count:,} images need {need / 1e6:,.1f} MB under {folder.parent}, which has "
            f"{free / 1e6:,.1f} MB free; make room or set ALEXNET_HOME to another disk"
        )

"""Batches for the network, prepared on another thread while it trains (§4.1)."""

import threading
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from queue import Empty, Full, Queue
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from model.preprocess import subtract_mean
from model.ten_crop import crop_offsets
from training.augment import Augmentation, Augmenter, draw_augmentations
from training.dataset.prepare import Prepared

AHEAD = 2
ReplicaSlice = tuple[int, int]
Rows = npt.NDArray[np.int64]


class Batch(NamedTuple):
    """Images ready for the network.

    x:       float32 [B, 3, crop, crop], channels last.
    classes: int64 [B].
    rows:    int64 [B], each image's row in its split.
    """

    x: Tensor
    classes: Tensor
    rows: Tensor


@dataclass(frozen=True)
class Batches:
    """The batches of one epoch of the training set, starting after `first` steps.

    An image's augmentation depends only on the seed, the epoch and the image; where images share
    crops, on its position in the whole batch as well. With `replica_slice` (i, n), each batch is
    the i-th of n nearly equal slices. Images that do not fill the last batch are left out of this
    epoch, unless the set is smaller than one batch.
    """

    data: Prepared
    augmentation: Augmentation
    batch: int = 128
    seed: int = 0
    epoch: int = 1
    first: int = 0
    replica_slice: ReplicaSlice = (0, 1)

    def __len__(self) -> int:
        """Return the steps of the whole epoch, including the first ones."""
        return max(1, len(self.data.train) // self.batch)

    def __iter__(self) -> Iterator[Batch]:
        return ahead(self.generate())

    def generate(self) -> Iterator[Batch]:
        """Yield the batches, prepared in the caller's thread."""
        data, split = self.data, self.data.train
        order = np.random.default_rng([self.seed, self.epoch, 0]).permutation(len(split))
        draws = draw_augmentations(
            self.augmentation,
            order,
            batch=self.batch,
            side=data.side,
            seed=self.seed,
            epoch=self.epoch,
        )
        augment = Augmenter(self.augmentation, data.mean, data.pca)
        for step in range(self.first, len(self)):
            rows = slice_rows(order[step * self.batch :][: self.batch], self.replica_slice)
            x = augment(split.each(rows), draws, rows)
            yield Batch(x, torch.from_numpy(split.classes[rows]), torch.from_numpy(rows))


def slice_rows(rows: Rows, replica_slice: ReplicaSlice) -> Rows:
    """Return the i-th of n nearly equal slices."""
    number, parts = replica_slice
    return rows[len(rows) * number // parts : len(rows) * (number + 1) // parts]


def validation_crops(
    data: Prepared,
    augmentation: Augmentation,
    size: int = 128,
    replica_slice: ReplicaSlice = (0, 1),
) -> Iterator[Batch]:
    """Yield the validation images' centre crops, in order, of one slice of the set."""
    return ahead(
        centre_crops(data, augmentation.crop, augmentation.input_scale, size, replica_slice)
    )


def validation_squares(
    data: Prepared, augmentation: Augmentation, size: int, replica_slice: ReplicaSlice = (0, 1)
) -> Iterator[Batch]:
    """Yield the whole validation images, in order: `x` is float32 [B, 3, side, side]."""
    return ahead(centre_crops(data, data.side, augmentation.input_scale, size, replica_slice))


def centre_crops(
    data: Prepared, crop: int, scale: float, size: int, replica_slice: ReplicaSlice
) -> Iterator[Batch]:
    """Yield the centre of each validation image, minus that of the mean image."""
    top, left = crop_offsets(data.side, crop)[4]
    middle = (slice(top, top + crop), slice(left, left + crop))
    mean = data.mean[:, *middle].contiguous()
    rows = slice_rows(np.arange(len(data.val)), replica_slice)
    for start in range(0, len(rows), size):
        own = rows[start : start + size]
        pixels = np.empty((len(own), crop, crop, 3), np.uint8)
        for to, image in zip(pixels, data.val.each(own), strict=True):
            to[...] = image[middle]
        x = subtract_mean(torch.from_numpy(pixels), mean).div_(scale)
        yield Batch(x, torch.from_numpy(data.val.classes[own]), torch.from_numpy(own))


def ahead(batches: Iterator[Batch]) -> Iterator[Batch]:
    """Make batches on another thread, at most two before they are asked for.

    An error on that thread is raised here; the thread ends when the iterator is closed.
    """
    queue: Queue[Batch | BaseException | None] = Queue(AHEAD)
    closed = threading.Event()

    def put(item: Batch | BaseException | None) -> None:
        while not closed.is_set():
            with suppress(Full):
                queue.put(item, timeout=0.1)
                return

    def work() -> None:
        try:
            for batch in batches:
                put(batch)
                if closed.is_set():
                    return
            put(None)
        except BaseException as error:  # noqa: BLE001 - handed to the thread that asked
            put(error)

    thread = threading.Thread(target=work, name="batches", daemon=True)
    thread.start()
    try:
        yield from taken(queue, thread)
    finally:
        closed.set()
        thread.join()


def taken(
    queue: "Queue[Batch | BaseException | None]", thread: threading.Thread
) -> Iterator[Batch]:
    """What comes out of the queue until its end."""
    while True:
        try:
            item = queue.get(timeout=1)
        except Empty:
            if not thread.is_alive() and queue.empty():
                raise RuntimeError("the thread that makes batches died") from None
            continue
        if item is None:
            return
        if isinstance(item, BaseException):
            raise item
        yield item

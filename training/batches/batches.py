"""Batches for the network, prepared on other threads while it trains, or in turns with it (§4.1).

For a GPU only bytes are prepared: it augments the images itself, whether it keeps them
(training/batches/resident.py) or they cross batch by batch (training/batches/streaming.py).
"""

from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from model.image.preprocess import CENTRE_CROP, crop_offsets, scale_pixels, subtract_mean
from storage.parallel import cores, local_processes, map_ahead, prefetch
from training.batches.augment import Augmentation, AugmentationDraws, Augmenter, draw_augmentations
from training.batches.resident import GpuAugmenter, ResidentSplit
from training.batches.streaming import PixelSender, SentPixels, Square, StreamedSplit, stream_split
from training.dataset.prepare import PreparedDataset
from training.dataset.store import Split

MAX_AHEAD = 2
"""Batches prepared in advance."""
MAX_THREADS = 8
"""Threads that prepare batches at most, each one whole batch: as many batches wait in memory."""
MAX_STREAM_THREADS = 16
"""The same where a GPU augments: there a batch of 128 takes 25 MB instead of 77."""
ReplicaSlice = tuple[int, int]
"""(i, n): the i-th of n nearly equal slices of each batch, from 0."""
Rows = npt.NDArray[np.int64]


class Batch(NamedTuple):
    """Images ready for the network.

    x:       float32 [B, 3, crop, crop], channels last; on the GPU if it augments.
    classes: int64 [B].
    rows:    int64 [B], each image's row in its split.
    """

    x: Tensor
    classes: Tensor
    rows: Tensor


@dataclass(frozen=True)
class Batches:
    """The batches of one epoch of the training set, starting after `first` steps.

    With `fixed_order` all epochs have the batches of the first, in the same order, as run in 2012.
    An image's augmentation depends only on the seed, the epoch and the image; where images share
    crops, on its position in the whole batch as well. With `replica_slice` (i, n), each batch is
    the i-th of n nearly equal slices. Images that do not fill the last batch are left out of this
    epoch, unless the set is smaller than one batch. `hold_out` is the share of the images that the
    epoch leaves out, the same ones in all epochs of a seed. `together`: all cores prepare a batch
    when its step comes, instead of some ahead of it while the others train: what they take from
    layers that run on all cores costs these twice as much, since each waits for its slowest thread.
    """

    data: PreparedDataset
    augmentation: Augmentation
    batch: int = 128
    seed: int = 0
    epoch: int = 1
    first: int = 0
    replica_slice: ReplicaSlice = (0, 1)
    fixed_order: bool = False
    hold_out: float = 0.0
    together: bool = False

    def __len__(self) -> int:
        """Return the number of steps in the whole epoch, including the first ones."""
        return max(1, self.images // self.batch)

    @property
    def images(self) -> int:
        """The number of images that the epoch may use."""
        return len(self.data.train) - count_held_out(len(self.data.train), self.hold_out)

    @property
    def batch_images(self) -> int:
        """The number of images in each whole batch."""
        return min(self.batch, self.images)

    def __iter__(self) -> Iterator[Batch]:
        steps, split = range(self.first, len(self)), self.data.train
        if isinstance(split, StreamedSplit):
            return self.stream_batches(split, steps)
        if self.together and not isinstance(split, ResidentSplit):
            return self.prepare_together(steps)
        make_batch = self.plan_batches()
        if isinstance(split, ResidentSplit):
            return map(make_batch, steps)
        threads = count_threads()
        # A layer's threads wait for the last of them: one that shares its core delays the others.
        return map_ahead(make_batch, steps, max(MAX_AHEAD, threads), threads=threads, yielding=True)

    def stream_batches(self, split: StreamedSplit, steps: range) -> Iterator[Batch]:
        """Yield batches whose bytes cross to the split's device, which augments them."""
        plan = self.plan_epoch()
        augment = GpuAugmenter(self.augmentation, self.data.mean, self.data.pca, split.device)
        with closing(send_batches(split, map(plan.select_rows, steps))) as sent:
            for rows, pixels in sent:
                x = augment(pixels.receive(), plan.draws, rows)
                yield label_batch(x, split, rows)

    def prepare_together(self, steps: range) -> Iterator[Batch]:
        """Yield batches, each prepared by all cores when it is asked for."""
        plan, split = self.plan_epoch(), self.data.train
        augment = Augmenter(self.augmentation, self.data.mean, self.data.pca)

        def write(rows: Rows, out: npt.NDArray[np.float32]) -> None:
            augment.write(split.iter_images(rows, threads=1), plan.draws, rows, out)

        with ThreadPoolExecutor(cores(), thread_name_prefix="together") as pool:
            for step in steps:
                rows = plan.select_rows(step)
                out = augment.make_room(len(rows))
                parts = (np.array_split(array, cores()) for array in (rows, out))
                for _ in pool.map(write, *parts):
                    pass
                x = torch.from_numpy(out).permute(0, 3, 1, 2)
                yield label_batch(x, split, rows)

    def plan_batches(self) -> Callable[[int], Batch]:
        """Draw what is random about the epoch; return a function that prepares a step's batch.

        The steps may be prepared in any order, on any thread.
        """
        plan, split = self.plan_epoch(), self.data.train
        augment = make_augmenter(self.data, self.augmentation)

        def make_batch(step: int) -> Batch:
            rows = plan.select_rows(step)
            x = augment(plan.draws, rows)
            return label_batch(x, split, rows)

        return make_batch

    def plan_epoch(self) -> "EpochPlan":
        """Draw what is random about the epoch."""
        split = self.data.train
        epoch = 1 if self.fixed_order else self.epoch
        order = np.random.default_rng([self.seed, epoch, 0]).permutation(len(split))
        if self.hold_out:
            held = mark_held_out(len(split), self.hold_out, self.seed)[order]
            order = np.concatenate([order[~held], order[held]])
        draws = draw_augmentations(
            self.augmentation,
            order,
            batch=self.batch,
            side=self.data.side,
            seed=self.seed,
            epoch=self.epoch,
        )
        return EpochPlan(order[: self.images], draws, self.batch, self.replica_slice)


def label_batch(x: Tensor, split: Split, rows: Rows) -> Batch:
    """Put the classes of a split's rows to their images."""
    return Batch(x, torch.from_numpy(split.classes[rows]), torch.from_numpy(rows))


class EpochPlan(NamedTuple):
    """What is random about an epoch.

    order: int64, the rows of the images that it may use. draws: of all images.
    """

    order: Rows
    draws: AugmentationDraws
    batch: int
    replica_slice: ReplicaSlice

    def select_rows(self, step: int) -> Rows:
        """Return the rows of this process's images in a step, from 0: int64 [B]."""
        return slice_rows(self.order[step * self.batch :][: self.batch], self.replica_slice)


def send_batches(
    split: StreamedSplit, batches: Iterable[Rows]
) -> Generator[tuple[Rows, SentPixels], None, None]:
    """Read the images of each batch's rows on threads and send them; yield rows and pixels."""
    sender, threads = PixelSender(split), count_stream_threads()
    # With several threads each decodes the batch that it sends; one alone uses all cores.
    decoders = 1 if threads > 1 else None

    def send(rows: Rows) -> tuple[Rows, SentPixels]:
        return rows, sender.send(rows, threads=decoders)

    return map_ahead(send, batches, max(MAX_AHEAD, threads), threads=threads)


def count_threads() -> int:
    """Return on how many threads a process of this run prepares batches.

    All of its share of the cores but one, which the training loop keeps busy: with a thread on each
    of two cores, batches were not ready any sooner.
    """
    return max(1, min(MAX_THREADS, cores() // local_processes() - 1))


def count_stream_threads() -> int:
    """Return on how many threads a process of this run reads and sends batches.

    All of its share of the cores: they only read and decode, and the training loop mostly waits for
    the GPU.
    """
    return max(1, min(MAX_STREAM_THREADS, cores() // local_processes()))


def count_held_out(images: int, share: float) -> int:
    """Count the images that are held out; one at least stays."""
    return min(round(share * images), images - 1)


def mark_held_out(images: int, share: float, seed: int) -> npt.NDArray[np.bool_]:
    """Mark the images that are held out, by the seed alone: bool [images]."""
    held = np.zeros(images, np.bool_)
    order = np.random.default_rng([seed, 0, 4]).permutation(images)
    held[order[: count_held_out(images, share)]] = True
    return held


def make_augmenter(
    data: PreparedDataset, augmentation: Augmentation
) -> Callable[[AugmentationDraws, Rows], Tensor]:
    """Return a function that augments training images where they are: on a GPU, or on the CPU."""
    split = data.train
    if isinstance(split, ResidentSplit):
        on_gpu = GpuAugmenter(augmentation, data.mean, data.pca, split.pixels.device)
        return lambda draws, rows: on_gpu(split.select(rows), draws, rows)
    augment = Augmenter(augmentation, data.mean, data.pca)
    # With several threads each decodes the batch that it prepares; one alone uses all cores.
    threads = 1 if count_threads() > 1 else None
    return lambda draws, rows: augment(split.iter_images(rows, threads=threads), draws, rows)


def slice_rows(rows: Rows, replica_slice: ReplicaSlice) -> Rows:
    """Return the i-th of n nearly equal slices."""
    number, parts = replica_slice
    return rows[len(rows) * number // parts : len(rows) * (number + 1) // parts]


def load_validation_crops(
    data: PreparedDataset,
    augmentation: Augmentation,
    size: int = 128,
    replica_slice: ReplicaSlice = (0, 1),
) -> Iterator[Batch]:
    """Yield the validation images' centre crops, in order, of one slice of the set."""
    crops = load_centre_crops(data, augmentation.crop, augmentation, size, replica_slice)
    return prefetch(crops, MAX_AHEAD)


def load_validation_squares(
    data: PreparedDataset,
    augmentation: Augmentation,
    size: int,
    replica_slice: ReplicaSlice = (0, 1),
) -> Iterator[Batch]:
    """Yield the whole validation images, in order: `x` is float32 [B, 3, side, side]."""
    squares = load_centre_crops(data, data.side, augmentation, size, replica_slice)
    return prefetch(squares, MAX_AHEAD)


def load_centre_crops(
    data: PreparedDataset,
    crop: int,
    augmentation: Augmentation,
    size: int,
    replica_slice: ReplicaSlice,
) -> Iterator[Batch]:
    """Yield batches of the validation images' centre crops, minus the mean image's."""
    top, left = crop_offsets(data.side, crop)[CENTRE_CROP]
    middle = (slice(top, top + crop), slice(left, left + crop))
    mean, cut = data.mean[:, *middle].contiguous(), make_cutter(data.val, middle)
    rows = slice_rows(np.arange(len(data.val)), replica_slice)
    for start in range(0, len(rows), size):
        own = rows[start : start + size]
        pixels = cut(own)
        mean = mean.to(pixels.device)
        centred = subtract_mean(pixels, mean)
        x = scale_pixels(centred, augmentation.input_scale, augmentation.channel_scales)
        yield Batch(x, torch.from_numpy(data.val.classes[own]), torch.from_numpy(own))


def make_cutter(split: Split, part: Square) -> Callable[[Rows], Tensor]:
    """Return a function that cuts the same square out of the images of rows.

    It gives uint8 [B, crop, crop, 3], on the device if the images are there or cross to it.
    """
    if isinstance(split, ResidentSplit):
        return lambda rows: split.select(rows)[:, *part]
    sender = PixelSender(
        split if isinstance(split, StreamedSplit) else stream_split(split, torch.device("cpu"))
    )
    return lambda rows: sender.send(rows, part).receive()

"""Batches for the network, made on another thread while it trains (§4.1)."""

import threading
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from queue import Empty, Full, Queue

import numpy as np
import torch
from torch import Tensor

from model.images import centre_crop, subtract_mean
from training.augment import Draws, colour_shift, crop_and_mirror, draw
from training.config import Recipe
from training.prepare import Prepared

Batch = tuple[Tensor, Tensor]
AHEAD = 2


@dataclass(frozen=True)
class Batches:
    """The batches of one epoch: float32 [B, 3, 224, 224], channels last, and int64 [B].

    What is drawn for an image depends on the seed, the epoch and the image alone. Images that do
    not fill a last batch sit this epoch out, unless there are fewer than a batch in all.
    """

    data: Prepared
    recipe: Recipe
    epoch: int

    def __len__(self) -> int:
        return max(1, len(self.data.train.classes) // self.recipe.batch)

    def __iter__(self) -> Iterator[Batch]:
        return ahead(self.make())

    def make(self) -> Iterator[Batch]:
        """Make them one by one, in the caller's thread."""
        images, recipe = len(self.data.train.classes), self.recipe
        order = np.random.default_rng([recipe.seed, self.epoch, 0]).permutation(images)
        draws = draw(images, recipe.colour_noise, recipe.seed, self.epoch)
        for step in range(len(self)):
            yield self.batch(order[step * recipe.batch :][: recipe.batch], draws)

    def batch(self, which: np.ndarray, draws: Draws) -> Batch:
        """Cut, mirror and colour the images of these rows."""
        pixels = torch.from_numpy(self.data.train.images[which])
        x = crop_and_mirror(subtract_mean(pixels, self.data.mean), draws, which)
        shift = colour_shift(self.data.pca, torch.from_numpy(draws.alphas[which]))
        x.add_(shift[:, :, None, None]).div_(self.recipe.input_scale)
        return x, torch.from_numpy(self.data.train.classes[which])


def validation(data: Prepared, recipe: Recipe, size: int = 128) -> Iterator[Batch]:
    """The validation images' centre crops, in order: float32 [B, 3, 224, 224] and int64 [B]."""
    return ((centre_crop(x), classes) for x, classes in validation_squares(data, recipe, size))


def validation_squares(data: Prepared, recipe: Recipe, size: int) -> Iterator[Batch]:
    """The validation images whole, in order: float32 [B, 3, 256, 256] and int64 [B]."""

    def make() -> Iterator[Batch]:
        for start in range(0, len(data.val.classes), size):
            pixels = torch.from_numpy(np.array(data.val.images[start : start + size]))
            x = subtract_mean(pixels, data.mean) / recipe.input_scale
            yield x, torch.from_numpy(data.val.classes[start : start + size])

    return ahead(make())


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
            if not thread.is_alive():
                raise RuntimeError("the thread that makes batches died") from None
            continue
        if item is None:
            return
        if isinstance(item, BaseException):
            raise item
        yield item

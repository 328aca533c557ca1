"""Images that cross to a GPU as bytes, batch by batch, and are augmented there (§4.1).

A set that does not fit into a GPU's memory (training/batches/resident.py) stays in the store.
Threads read and decode its squares, on as many cores as there are, straight into page-locked
memory, from which they cross on a stream of their own while the GPU trains on earlier ones: a third
of the bytes of augmented images, and no arithmetic on the CPU. They become the same pixels as
resident images.
"""

from dataclasses import dataclass, fields, replace

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from training.batches.resident import ResidentSplit, keep_on_gpu
from training.dataset.prepare import PreparedDataset
from training.dataset.store import Split

Square = tuple[slice, slice]
"""The rows and the columns of a square part of an image."""
WHOLE: Square = (slice(None), slice(None))


@dataclass(frozen=True)
class StreamedSplit(Split):
    """A split whose images cross to `device` batch by batch."""

    device: torch.device


def place_images(data: PreparedDataset, device: torch.device) -> PreparedDataset:
    """Return the dataset with its images where training on this device takes them from.

    A GPU with room for them keeps them; to another they are streamed. Otherwise, on a CPU, they
    stay as they are.
    """
    kept = keep_on_gpu(data, device)
    return kept if isinstance(kept.train, ResidentSplit) else place_for_one_pass(kept, device)


def place_for_one_pass(data: PreparedDataset, device: torch.device) -> PreparedDataset:
    """Return the dataset as `place_images` does, but with no more images on a GPU than before."""
    if device.type != "cuda" or isinstance(data.train, ResidentSplit | StreamedSplit):
        return data
    return stream_images(data, device)


def stream_images(data: PreparedDataset, device: torch.device) -> PreparedDataset:
    """Return the dataset with images that cross to a device batch by batch."""
    return replace(data, train=stream_split(data.train, device), val=stream_split(data.val, device))


def stream_split(split: Split, device: torch.device) -> StreamedSplit:
    """Return a split whose images cross to a device batch by batch."""
    known = {field.name: getattr(split, field.name) for field in fields(Split)}
    return StreamedSplit(**known, device=device)


@dataclass(frozen=True)
class SentPixels:
    """Pixels on their way to a device: uint8 [B, h, w, 3].

    arrival: when they are there; None if they already are.
    """

    pixels: Tensor
    arrival: torch.cuda.Event | None = None

    def receive(self) -> Tensor:
        """Return the pixels, for use on the device's current stream, which waits for them."""
        if self.arrival is not None:
            stream = torch.cuda.current_stream(self.pixels.device)
            stream.wait_event(self.arrival)
            # They were allocated on another stream, which must not reuse the memory too early.
            self.pixels.record_stream(stream)
        return self.pixels


class PixelSender:
    """Reads images of a split and sends them to its device; from any thread."""

    def __init__(self, split: StreamedSplit) -> None:
        self.split, self.device = split, split.device
        self.stream = None
        if self.device.type == "cuda":
            self.stream = torch.cuda.Stream(self.device)  # type: ignore[no-untyped-call]

    def send(
        self, rows: npt.NDArray[np.int64], part: Square = WHOLE, *, threads: int | None = None
    ) -> SentPixels:
        """Read the same part of the images of these rows, and let it cross.

        threads: on how many JPEGs are decoded, 1 being the caller's; by default on all cores.
        """
        if self.stream is None:
            return SentPixels(self.read(rows, part, threads, pinned=False).to(self.device))
        # The context also makes the device this thread's own: page-locking memory for another one
        # would set that up as well.
        with torch.cuda.stream(self.stream):
            # torch keeps page-locked memory, and reuses it once what crosses from it is across.
            pixels = self.read(rows, part, threads, pinned=True)
            crossing = pixels.to(self.device, non_blocking=True)
            return SentPixels(crossing, self.stream.record_event())

    def read(
        self, rows: npt.NDArray[np.int64], part: Square, threads: int | None, *, pinned: bool
    ) -> Tensor:
        """Read a part of the images of these rows: uint8 [B, h, w, 3], in the CPU's memory."""
        height, width = (len(range(self.split.side)[span]) for span in part)
        pixels = torch.empty((len(rows), height, width, 3), dtype=torch.uint8, pin_memory=pinned)
        images = self.split.iter_images(rows, threads=threads)
        for to, image in zip(pixels.numpy(), images, strict=True):
            to[...] = image[part]
        return pixels

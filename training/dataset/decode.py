"""Photographs decoded on all cores, in order.

By threads, since Pillow decodes and scales outside the interpreter's lock: on two cores as fast as
by processes, for less work in all.
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import NamedTuple

from model.decode import ImageError
from model.preprocess import decode_square, read_square
from training.dataset.moments import outer_sum
from training.dataset.sample import DataError, Sample, Source, SplitName
from training.dataset.store import Entry, Kind, decode, encode
from training.machine import cores

JPEG_BYTES = 0.9
"""A cautious estimate for a pixel stored as JPEG; 0.54 were measured on ImageNet's photographs."""

Progress = Callable[[int], None]


class PieceId(NamedTuple):
    """A part of a split."""

    split: SplitName
    number: int

    @property
    def name(self) -> str:
        """Of its files, without their suffix."""
        return f"{self.split}-{self.number:05d}"


class Work(NamedTuple):
    """What is to be made, and where."""

    source: Source
    place: Path
    side: int
    kind: Kind
    progress: Progress

    def image_bytes(self) -> float:
        """How much room one photograph takes, exactly or about."""
        return self.side**2 * (3 if self.kind == "raw" else JPEG_BYTES)


Decoded = tuple[Sample, Entry | str]


def flow(
    work: Work, pieces: Iterable[PieceId], pool: ThreadPoolExecutor
) -> Iterator[tuple[PieceId, Decoded | None]]:
    """The pieces' decoded images in order, None at each piece's end; a few are made ahead."""
    waiting: deque[tuple[PieceId, Future[Decoded] | None]] = deque()
    ahead, failed = 32 + 8 * cores(), None
    decoder = partial(decoded, side=work.side, kind=work.kind)
    try:
        for piece in pieces:
            for sample in work.source.samples(piece.split, piece.number):
                waiting.append((piece, pool.submit(decoder, sample)))
                if len(waiting) > ahead:
                    yield result(*waiting.popleft())
            waiting.append((piece, None))
    except DataError as error:
        failed = error  # what comes before it is finished first
    while waiting:
        yield result(*waiting.popleft())
    if failed is not None:
        raise failed


def result(piece: PieceId, future: Future[Decoded] | None) -> tuple[PieceId, Decoded | None]:
    """Wait for an image."""
    return piece, future.result() if future else None


def decoded(sample: Sample, side: int, kind: Kind) -> Decoded:
    """Decode one photograph, and encode it as it is stored; or say what is wrong with it."""
    try:
        if isinstance(sample.data, Path):
            pixels = read_square(sample.data, side=side)
        else:
            pixels = decode_square(sample.data, side=side)
    except ImageError as error:
        where = "" if isinstance(sample.data, Path) else f"{sample.where}: "
        return sample, f"{where}{error}"
    stored = encode(pixels, kind)
    pixels = decode(stored, side, kind)
    return sample, Entry(stored, pixels, outer_sum(pixels))

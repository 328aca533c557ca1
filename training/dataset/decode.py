"""Photographs decoded on all cores, in order.

By threads, since Pillow decodes and scales outside the interpreter's lock: on two cores as fast as
by processes, for less work in all.
"""

from collections.abc import Callable, Generator, Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from model.decode import ImageError
from model.preprocess import decode_square, read_square
from storage.parallel import cores, map_ahead
from training.dataset.moments import outer_sum
from training.dataset.sample import Sample, Source, SplitName
from training.dataset.store import Entry, Kind, decode, encode

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


def decode_pieces(
    work: Work, pieces: Iterable[PieceId]
) -> Generator[tuple[PieceId, Decoded | None], None, None]:
    """The decoded images of the pieces in order, None at each piece's end; a few are made ahead."""

    def samples() -> Iterator[tuple[PieceId, Sample | None]]:
        for piece in pieces:
            for sample in work.source.samples(piece.split, piece.number):
                yield piece, sample
            yield piece, None

    def decode_next(item: tuple[PieceId, Sample | None]) -> tuple[PieceId, Decoded | None]:
        piece, sample = item
        return piece, decode_sample(sample, work.side, work.kind) if sample else None

    return map_ahead(decode_next, samples(), 32 + 8 * cores())


def decode_sample(sample: Sample, side: int, kind: Kind) -> Decoded:
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

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
from training.dataset.source import Sample, Source, SplitName
from training.dataset.statistics import sum_outer_products
from training.dataset.store import EncodedImage, Encoding, decode_stored, encode_stored

JPEG_BYTES_PER_PIXEL = 0.9
"""A cautious estimate for a pixel stored as JPEG; 0.54 were measured on ImageNet's photographs."""

Progress = Callable[[int], None]


class ChunkId(NamedTuple):
    """A part of a split."""

    split: SplitName
    number: int

    @property
    def name(self) -> str:
        """Of its files, without their suffix."""
        return f"{self.split}-{self.number:05d}"


class PreparationJob(NamedTuple):
    """What is to be made, and where."""

    source: Source
    folder: Path
    side: int
    kind: Encoding
    progress: Progress

    def estimate_image_bytes(self) -> float:
        """How much room one photograph takes, exactly or about."""
        return self.side**2 * (3 if self.kind == "raw" else JPEG_BYTES_PER_PIXEL)


DecodedSample = tuple[Sample, EncodedImage | str]


def decode_chunks(
    work: PreparationJob, chunks: Iterable[ChunkId]
) -> Generator[tuple[ChunkId, DecodedSample | None], None, None]:
    """The decoded images of the chunks in order, None at each chunk's end; a few are made ahead."""

    def samples() -> Iterator[tuple[ChunkId, Sample | None]]:
        for chunk in chunks:
            for sample in work.source.samples(chunk.split, chunk.number):
                yield chunk, sample
            yield chunk, None

    def decode_next(item: tuple[ChunkId, Sample | None]) -> tuple[ChunkId, DecodedSample | None]:
        chunk, sample = item
        return chunk, decode_sample(sample, work.side, work.kind) if sample else None

    return map_ahead(decode_next, samples(), 32 + 8 * cores())


def decode_sample(sample: Sample, side: int, kind: Encoding) -> DecodedSample:
    """Decode one photograph, and encode it as it is stored; or say what is wrong with it."""
    try:
        if isinstance(sample.data, Path):
            pixels = read_square(sample.data, side=side)
        else:
            pixels = decode_square(sample.data, side=side)
    except ImageError as error:
        where = "" if isinstance(sample.data, Path) else f"{sample.where}: "
        return sample, f"{where}{error}"
    stored = encode_stored(pixels, kind)
    pixels = decode_stored(stored, side, kind)
    return sample, EncodedImage(stored, pixels, sum_outer_products(pixels))

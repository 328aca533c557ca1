"""Decode photographs on all cores, in order.

Threads suffice, since Pillow decodes and scales without holding the GIL: on two cores they are as
fast as processes, and use less processor time in total.
"""

from collections.abc import Callable, Generator, Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from model.image.decode import ImageError
from model.image.preprocess import decode_square
from model.network.config import Resize
from storage.parallel import cores, map_ahead
from training.dataset.known import NOTHING_KNOWN, KnownPhotographs
from training.dataset.listing import DIGEST_BYTES, Origin, digest_photograph, examine_file
from training.dataset.source import Sample, Source, SplitName
from training.dataset.statistics import sum_outer_products
from training.dataset.store import EncodedImage, Encoding, decode_entry, encode_entry

JPEG_BYTES_PER_PIXEL = 0.9
"""Cautious estimate of the size of a stored JPEG; ImageNet's photographs take 0.54."""

Progress = Callable[[int], None]


class ChunkId(NamedTuple):
    """Identifies a chunk: its split and its number in it, from 0."""

    split: SplitName
    number: int

    @property
    def name(self) -> str:
        """The name of its files, without suffix."""
        return f"{self.split}-{self.number:05d}"


class PreparationJob(NamedTuple):
    """What to prepare, where to write it, and how to report progress.

    folder: the folder of the prepared set. side: of the stored squares, in pixels. progress: called
    with how many more photographs are done. resize: how a photograph becomes such a square. known:
    photographs that need not be decoded.
    """

    source: Source
    folder: Path
    side: int
    kind: Encoding
    progress: Progress
    resize: Resize = "bicubic"
    known: KnownPhotographs = NOTHING_KNOWN

    def estimate_image_bytes(self) -> float:
        """Return the bytes that one stored photograph takes; for JPEG an estimate."""
        return self.side**2 * (3 if self.kind == "raw" else JPEG_BYTES_PER_PIXEL)


DecodedSample = tuple[Sample, Origin, EncodedImage | str]


def decode_chunks(
    job: PreparationJob, chunks: Iterable[ChunkId]
) -> Generator[tuple[ChunkId, DecodedSample | None], None, None]:
    """Yield the chunks' decoded photographs in order, and None at the end of each chunk.

    Some photographs are decoded ahead.
    """

    def samples() -> Iterator[tuple[ChunkId, Sample | None]]:
        for chunk in chunks:
            for sample in job.source.read_samples(chunk.split, chunk.number):
                yield chunk, sample
            yield chunk, None

    def decode_next(item: tuple[ChunkId, Sample | None]) -> tuple[ChunkId, DecodedSample | None]:
        chunk, sample = item
        return chunk, decode_sample(sample, job) if sample else None

    return map_ahead(decode_next, samples(), 32 + 8 * cores())


def decode_sample(sample: Sample, job: PreparationJob) -> DecodedSample:
    """Decode one photograph and encode it for storage; or return why it cannot be read.

    One that is known is taken over as it was stored.
    """
    origin = Origin(sample.name, bytes(DIGEST_BYTES), 0, 0)
    try:
        size, changed = examine_file(sample)
        if found := job.known.find_unchanged(sample.name, size, changed):
            stored, digest = found
            return sample, Origin(sample.name, digest, size, changed), describe_entry(stored, job)
        data = sample.data.read_bytes() if isinstance(sample.data, Path) else sample.data
        origin = Origin(sample.name, digest_photograph(data), len(data), changed)
        known = job.known.find_content(origin.digest)
        if known is not None:
            return sample, origin, describe_entry(known, job)
        pixels = decode_square(data, side=job.side, resize=job.resize, trusted=True)
    except ImageError as error:
        return sample, origin, f"{sample.where}: {error}"
    except OSError as error:
        reason = error.strerror or type(error).__name__
        return sample, origin, f"{sample.where}: The file cannot be opened: {reason}."
    return sample, origin, describe_entry(encode_entry(pixels, job.kind), job)


def describe_entry(stored: bytes, job: PreparationJob) -> EncodedImage:
    """Return stored bytes with the pixels that they decode to, and their products."""
    pixels = decode_entry(stored, job.side, job.kind)
    return EncodedImage(stored, pixels, sum_outer_products(pixels))

"""Images on the disk, read back by row."""

from pathlib import Path

import numpy as np
import pytest
import skimage.data

from training.dataset.listing import Origin, digest_photograph
from training.dataset.statistics import sum_outer_products
from training.dataset.store import (
    ChunkWriter,
    EncodedImage,
    Split,
    decode_entry,
    encode_entry,
    read_chunk_sums,
    read_finished_chunk,
)

ASTRONAUT: np.ndarray = skimage.data.astronaut()  # type: ignore[no-untyped-call]


def squares(count: int, side: int = 32) -> np.ndarray:
    random = np.random.default_rng(count)
    return random.integers(0, 256, (count, side, side, 3), dtype=np.uint8)


def origin(name: str) -> Origin:
    return Origin(name, digest_photograph(name.encode()), 1, 2)


def test_a_split_in_memory_gives_the_rows_that_are_asked_for() -> None:
    images = squares(7)
    split = Split.from_arrays(images, np.arange(7) % 2)
    assert len(split) == 7
    for rows in (np.array([6, 0, 0, 3]), np.arange(7), np.empty(0, np.int64)):
        np.testing.assert_array_equal(split.read(rows), images[rows])


@pytest.mark.parametrize("row", [-1, 7])
def test_a_row_that_there_is_not_is_refused(row: int) -> None:
    split = Split.from_arrays(squares(7), np.zeros(7, np.int64))
    with pytest.raises(IndexError, match="of 7"):
        split.read(np.array([3, row]))


def test_raw_pixels_are_not_copied_and_cannot_be_written(tmp_path: Path) -> None:
    image = decode_entry(encode_entry(squares(1)[0], "raw"), 32, "raw")
    np.testing.assert_array_equal(image, squares(1)[0])
    assert not image.flags.writeable


def test_a_jpeg_is_close_to_what_was_stored_and_several_times_smaller() -> None:
    for top, left in ((0, 0), (100, 100), (256, 256)):
        square = ASTRONAUT[top : top + 256, left : left + 256]
        stored = encode_entry(square, "jpeg")
        assert len(stored) < square.size / 3
        error = np.mean((decode_entry(stored, 256, "jpeg").astype(float) - square) ** 2)
        assert 10 * np.log10(255**2 / error) > 38  # dB


def test_a_chunk_is_there_when_it_is_finished_and_not_before(tmp_path: Path) -> None:
    images = squares(5)
    writer = ChunkWriter(tmp_path, "train-00000", 32)
    for image, label in zip(images, ("b", "a", "b", "c", "a"), strict=True):
        writer.add(
            EncodedImage(encode_entry(image, "raw"), image, sum_outer_products(image)),
            label,
            origin(label),
        )
    writer.leave_out("no such image", origin("d"))
    assert read_finished_chunk(tmp_path, "train-00000") is None
    writer.finish()
    index = read_finished_chunk(tmp_path, "train-00000")
    assert index is not None
    assert [index.labels[code] for code in index.codes] == ["b", "a", "b", "c", "a"]
    assert index.unreadable == ("no such image",)
    assert index.listing.names == ("b", "a", "b", "c", "a", "d")
    assert index.listing.readable.tolist() == [True] * 5 + [False]
    assert index.listing.digests[3].tobytes() == origin("c").digest
    moments = read_chunk_sums(tmp_path, "train-00000")
    assert moments.count == 5
    np.testing.assert_array_equal(moments.image, images.astype(int).sum(0))


def test_a_chunk_that_is_given_up_leaves_nothing(tmp_path: Path) -> None:
    writer = ChunkWriter(tmp_path, "train-00000", 32)
    image = squares(1)[0]
    entry = EncodedImage(encode_entry(image, "raw"), image, sum_outer_products(image))
    writer.add(entry, "a", origin("a"))
    writer.abandon()
    assert list(tmp_path.iterdir()) == []

"""The sample of a version's images: nearest by pixels, and the file it lies in."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from index.manifest import FileChecksum, Manifest, StoreError
from index.sample import (
    COLUMN_DTYPES,
    SAMPLE_FILE,
    ImageSample,
    make_thumbnail,
    read_sample,
    read_sample_columns,
    write_sample,
)

Columns = dict[str, npt.NDArray[Any]]
COUNT, KERNELS = 700, 4
Make = Callable[..., Manifest]


def columns() -> Columns:
    """The arrays of a file: 700 images, of which some are equal when small."""
    rng = np.random.default_rng(0)
    small = rng.integers(0, 256, (COUNT, 32, 32, 3))
    small[100:110] = small[5]
    return {
        "ids": 3 + 2 * np.arange(COUNT),
        "points": rng.random((COUNT, 2)),
        "span": np.array(40.0),
        "changed": np.array(3),
        "small": small,
        "peaks": rng.random((COUNT, KERNELS)),
        "spots": rng.integers(0, 3025, (COUNT, KERNELS)),
        "patch_ids": rng.integers(0, COUNT, (KERNELS, 9)),
        "patch_values": rng.random((KERNELS, 9)),
        "patch_places": rng.integers(0, 55, (KERNELS, 9, 2)),
        "patch_pixels": rng.integers(0, 256, (KERNELS, 9, 11, 11, 3)),
    }


def manifest(images: int = COUNT, files: tuple[str, ...] = (SAMPLE_FILE,)) -> Manifest:
    """A manifest that names these files."""
    return Manifest(
        name="n", weights="w", data="/d", created="", made_by="", images=images, vectors=images,
        unreadable=0, listing="", dtype="float32", kind="exact", target=1.0, shards=[],
        files={name: FileChecksum(bytes=0, sha256="") for name in files},
    )  # fmt: skip


@pytest.fixture
def sample(tmp_path: Path) -> ImageSample:
    """A sample that was written and read."""
    write_sample(tmp_path, columns())
    found = read_sample(tmp_path, manifest())
    assert found is not None
    return found


def test_what_was_written_is_read(sample: ImageSample, tmp_path: Path) -> None:
    right = columns()
    patches = sample.patches
    for name, read in {
        "ids": sample.ids,
        "points": sample.points,
        "small": sample.thumbnails,
        "patch_ids": patches.ids,
        "patch_values": patches.values,
        "patch_places": patches.places,
        "patch_pixels": patches.pixels,
    }.items():
        assert read.dtype == np.dtype(COLUMN_DTYPES[name])
        np.testing.assert_array_equal(read, right[name].astype(COLUMN_DTYPES[name]))
    assert sample.whole
    of_more = read_sample(tmp_path, manifest(images=COUNT + 1))
    assert of_more is not None
    assert not of_more.whole


@pytest.mark.parametrize("without", [None, 3 + 2 * 103, 4])
def test_nearest_by_pixels_as_by_brute_force(sample: ImageSample, without: int | None) -> None:
    rng = np.random.default_rng(1)
    equal = sample.thumbnails[5].repeat(8, axis=0).repeat(8, axis=1)
    for square in (rng.integers(0, 256, (256, 256, 3), np.uint8), equal):
        query = square.reshape(32, 8, 32, 8, 3).mean(axis=(1, 3))
        query = np.floor(query + 0.5)
        distances = np.sqrt(np.square(sample.thumbnails - query).sum(axis=(1, 2, 3)))
        order = [i for i in np.lexsort((sample.ids, distances)) if sample.ids[i] != without]
        for k in (1, 6, 20):
            ids, found = sample.find_nearest_by_pixels(square, k, without)
            assert (ids.dtype, found.dtype) == (np.int64, np.float64)
            np.testing.assert_array_equal(ids, sample.ids[order[:k]])
            np.testing.assert_array_equal(found, distances[order[:k]])
    ids, distances = sample.find_nearest_by_pixels(equal, COUNT + 5, without)
    assert len(ids) == len(distances) == COUNT - (without in sample.ids)


def test_a_small_picture_is_the_mean_of_each_field() -> None:
    square = np.random.default_rng(2).integers(0, 256, (256, 256, 3), np.uint8)
    square[:8, :8], square[:8, :4] = 7, 8
    small = make_thumbnail(square)
    fields = square.reshape(32, 8, 32, 8, 3).astype(float).mean(axis=(1, 3))
    np.testing.assert_array_equal(small, np.floor(fields + 0.5))
    assert small[0, 0].tolist() == [8, 8, 8]
    for wrong in (square[:100], square.astype(np.int64), square[..., :1]):
        with pytest.raises(ValueError, match="a square is"):
            make_thumbnail(wrong)


def test_an_index_of_before_has_none(tmp_path: Path) -> None:
    assert read_sample(tmp_path, manifest(files=())) is None


def test_without_any_image(tmp_path: Path) -> None:
    none = columns()
    for name, values in none.items():
        if name not in ("span", "changed"):
            none[name] = values[:, :0] if name.startswith("patch") else values[:0]
    write_sample(tmp_path, none)
    found = read_sample(tmp_path, manifest())
    assert found is not None
    assert len(found.find_nearest_by_pixels(np.zeros((256, 256, 3), np.uint8), 6)[0]) == 0


def test_a_damaged_file_is_told(tmp_path: Path) -> None:
    def refused(told: str, images: int = COUNT) -> None:
        with pytest.raises(StoreError, match=told):
            read_sample(tmp_path, manifest(images))

    refused("cannot be read")
    file = tmp_path / SAMPLE_FILE
    for wrong in (b"", b"PK nothing", b"\x93NUMPY"):
        file.write_bytes(wrong)
        refused("is damaged")
    write_sample(tmp_path, columns())
    refused("holds too many images", images=COUNT - 1)
    data = file.read_bytes()
    file.write_bytes(data[: len(data) // 2])
    refused("is damaged")
    file.write_bytes(data[: len(data) // 2] + b"\xff" + data[len(data) // 2 + 1 :])
    refused("is damaged")


@pytest.mark.parametrize(
    ("name", "wrong"),
    [
        ("ids", np.arange(COUNT)[::-1].copy()),
        ("ids", np.arange(COUNT, dtype=np.int32)),
        ("ids", np.arange(COUNT - 1)),
        ("ids", np.array(3)),
        ("points", np.zeros((COUNT, 3), np.float32)),
        ("small", np.zeros((COUNT, 32, 32), np.uint8)),
        ("patch_ids", np.zeros((KERNELS, 8), np.int64)),
        ("patch_ids", np.array(3)),
        ("patch_pixels", np.zeros((KERNELS, 9, 11, 3), np.uint8)),
        ("patch_places", np.zeros((KERNELS, 9, 2), object)),
        ("span", np.zeros(2)),
        ("peaks", np.zeros((COUNT, KERNELS + 1), np.float32)),
    ],
)
def test_an_array_of_another_kind_is_told(tmp_path: Path, name: str, wrong: Any) -> None:
    stored = {n: np.asarray(a, COLUMN_DTYPES[n]) for n, a in columns().items()} | {name: wrong}
    np.savez(tmp_path / SAMPLE_FILE, **stored)
    with pytest.raises(StoreError, match="is damaged"):
        read_sample_columns(tmp_path)


def test_a_file_of_before_changes_of_the_map_were_counted_has_none(tmp_path: Path) -> None:
    stored = {n: np.asarray(a, COLUMN_DTYPES[n]) for n, a in columns().items()}
    assert stored.pop("changed") == 3
    np.savez(tmp_path / SAMPLE_FILE, **stored)
    assert read_sample_columns(tmp_path)["changed"] == 0
    del stored["peaks"]
    np.savez(tmp_path / SAMPLE_FILE, **stored)
    with pytest.raises(StoreError, match="it lacks peaks"):
        read_sample_columns(tmp_path)

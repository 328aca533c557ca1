"""A version's sample, against the pixels and torch's own convolution of every image."""

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import skimage.data
import torch
from PIL import Image
from torch.nn.functional import conv2d, pad

from index.building.file_list import FileEntry
from index.building.reader import DecodedFile, read_photograph
from index.building.sampling import VersionImages, draw_sample, estimate_sample_bytes, make_sample
from index.building.top_patches import MAX_PATCHES_PER_KERNEL, SampleScan
from index.manifest import FileChecksum, Manifest
from index.sample import (
    SAMPLE_FILE,
    SAMPLE_IMAGES,
    ImageSample,
    read_sample,
    read_sample_columns,
    write_sample,
)
from index.vectors import Vectors, write_shard
from model.image.preprocess import read_square
from model.network.config import AlexNetConfig
from model.predict import Predictor
from model.weights.checkpoint import Weights

Columns = dict[str, npt.NDArray[Any]]
Pixels = npt.NDArray[np.uint8]
COUNT = 16
MEAN = 117.0
MAP = ("points", "span")


@pytest.fixture(scope="module")
def predictor(weights_of: Callable[..., Weights]) -> Predictor:
    """The whole network with seeded weights."""
    torch.manual_seed(0)
    config = AlexNetConfig(classes=2, init="he", input_scale=60)
    weights = weights_of(config, ("a", "b"), torch.full((3, 256, 256), MEAN))
    return Predictor.from_weights(weights, "cpu")


@pytest.fixture(scope="module")
def originals(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Photographs, of which the last is a copy of the first."""
    root = tmp_path_factory.mktemp("photographs")
    for number in range(COUNT - 1):
        whole = getattr(skimage.data, ("chelsea", "coffee", "astronaut")[number % 3])()
        top, left = np.random.default_rng(number).integers(0, 150, 2)
        Image.fromarray(whole[top : top + 130, left : left + 140]).save(root / f"{number:02}.png")
    shutil.copyfile(root / "00.png", root / f"{COUNT - 1}.png")
    return root


@dataclass(frozen=True)
class Place:
    """A copy of the photographs that may be changed, and what is made of them."""

    root: Path
    index: Path
    predictor: Predictor
    vectors: Vectors

    def images(self, ids: dict[str, int] | None = None) -> VersionImages:
        """The files as they are, read like those of a build; by default 10, 13, 16, …"""
        names = sorted(file.name for file in self.root.iterdir())
        read = [read_photograph(self.root, name, lambda _: None) for name in names]
        entries = [one.entry for one in read if isinstance(one, DecodedFile)]
        ids = ids or {entry.path: 10 + 3 * n for n, entry in enumerate(entries)}
        entries = sorted((e for e in entries if e.path in ids), key=lambda e: ids[e.path])
        numbers = np.array([ids[entry.path] for entry in entries], np.int64)
        rows = np.array([n if entry.path != f"{COUNT - 1}.png" else 0 for n, entry in
                         enumerate(entries)], np.int64)  # fmt: skip
        return VersionImages(root=self.root, ids=numbers, entries=entries, rows=rows)

    def make(
        self, images: VersionImages, before: Columns | None = None, **more: Any
    ) -> ImageSample:
        """Make a sample, write and read it."""
        columns = make_sample(self.predictor, images, self.vectors, before, **more)
        self.index.mkdir(exist_ok=True)
        write_sample(self.index, columns)
        found = read_sample(self.index, manifest(len(images.ids)))
        assert found is not None
        return found

    def columns(self) -> Columns:
        """All that was written last."""
        return read_sample_columns(self.index)


def manifest(images: int) -> Manifest:
    """The manifest of a version of so many images."""
    return Manifest(
        name="n", weights="w", data="/d", created="", made_by="", images=images, vectors=images,
        unreadable=0, listing="", dtype="float32", kind="exact", target=1.0, shards=[],
        files={SAMPLE_FILE: FileChecksum(bytes=0, sha256="")},
    )  # fmt: skip


@pytest.fixture
def place(
    tmp_path: Path, originals: Path, predictor: Predictor, vectors: Callable[..., Any]
) -> Place:
    shard = write_shard(tmp_path / "v.npy", [vectors(2 * COUNT, seed=1)], "float32")
    root = shutil.copytree(originals, tmp_path / "photographs")
    return Place(root, tmp_path / "index", predictor, Vectors(tmp_path, [shard], "float32"))


def check(found: ImageSample, images: VersionImages, predictor: Predictor) -> None:
    """Compare with what the files hold, image by image."""
    paths = dict(zip(images.ids.tolist(), (e.path for e in images.entries), strict=True))
    squares = {i: read_square(images.root / paths[i]) for i in found.ids.tolist()}
    for image, small in zip(found.ids.tolist(), found.thumbnails, strict=True):
        fields = squares[image].reshape(32, 8, 32, 8, 3).astype(float).mean(axis=(1, 3))
        np.testing.assert_array_equal(small, np.floor(fields + 0.5))
    check_patches(found, squares, predictor)


def check_patches(found: ImageSample, squares: dict[int, Pixels], predictor: Predictor) -> None:
    """Compare the best patches with a convolution of every image."""
    ids = found.ids
    x = (np.stack([squares[i][16:240, 16:240] for i in ids.tolist()]) - MEAN) / 60
    weight, bias = predictor.network.conv1.weight.detach(), predictor.network.conv1.bias
    assert bias is not None
    padded = pad(torch.from_numpy(x).permute(0, 3, 1, 2).float(), (0, 3, 0, 3))
    maps = conv2d(padded, weight, bias.detach(), stride=4).numpy()
    peaks = maps.max(axis=(2, 3))
    patches, best = found.patches, min(9, len(ids))
    assert patches.ids.shape == (96, best)
    assert (np.diff(patches.values, axis=1) <= 0).all()
    np.testing.assert_allclose(patches.values, -np.sort(-peaks.T, axis=1)[:, :best], atol=1e-4)
    shown = np.pad(np.stack([squares[i][16:240, 16:240] for i in ids.tolist()]),
                   ((0, 0), (0, 3), (0, 3), (0, 0)), constant_values=int(MEAN))  # fmt: skip
    for kernel in range(96):
        own = np.searchsorted(ids, patches.ids[kernel])
        assert len(set(own.tolist())) == best
        rows, columns = patches.places[kernel].T
        np.testing.assert_allclose(
            maps[own, kernel, rows, columns], patches.values[kernel], atol=1e-4
        )
        for at, row, column, pixels in zip(own, rows, columns, patches.pixels[kernel], strict=True):
            right = shown[at, 4 * row : 4 * row + 11, 4 * column : 4 * column + 11]
            np.testing.assert_array_equal(pixels, right)


def test_a_sample_of_every_image(place: Place) -> None:
    images = place.images()
    found = place.make(images)
    assert found.whole
    np.testing.assert_array_equal(found.ids, images.ids)
    check(found, images, place.predictor)
    np.testing.assert_array_equal(found.points[0], found.points[-1])
    # The copy answers as the first does, and comes after it.
    for row in found.patches.ids.tolist():
        if found.ids[-1] in row:
            assert row.index(found.ids[-1]) == row.index(found.ids[0]) + 1


def test_what_vanished_since_its_features_is_left_out(place: Place) -> None:
    images = place.images()
    (place.root / "03.png").unlink()
    (place.root / "05.png").write_bytes(b"no image")
    shutil.copyfile(place.root / "07.png", place.root / "06.png")
    found = place.make(images)
    assert not found.whole
    assert [i for i in images.ids.tolist() if i not in found.ids] == images.ids[[3, 5, 6]].tolist()
    check(found, images, place.predictor)


def test_nothing_that_can_be_read(place: Place) -> None:
    images = place.images()
    for file in place.root.iterdir():
        file.unlink()
    found = place.make(images)
    assert found.ids.shape == (0,)
    assert found.patches.pixels.shape == (96, 0, 11, 11, 3)


def test_few_images(place: Place) -> None:
    for file in sorted(place.root.iterdir())[2:]:
        file.unlink()
    images = place.images()
    found = place.make(images)
    assert found.patches.ids.shape == (96, 2)
    check(found, images, place.predictor)


def damage(place: Place, *names: str) -> None:
    """Make files unreadable: what is right of them now was not read."""
    for name in names:
        (place.root / name).write_bytes(b"")


def test_an_update_reads_what_is_new_and_is_as_a_build(place: Place) -> None:
    kept = place.root.parent / "kept"
    kept.mkdir()
    for name in ("01.png", "08.png", "12.png"):
        (place.root / name).rename(kept / name)
    before = place.images()
    place.make(before)
    earlier = place.columns()
    ids = {e.path: int(i) for i, e in zip(before.ids, before.entries, strict=True)}
    for file in kept.iterdir():
        file.rename(place.root / file.name)
    # One known before comes back, with an id below the others'.
    ids |= {"01.png": 1, "08.png": 200, "12.png": 201}
    images = place.images(ids)
    place.make(images)
    anew = place.columns()
    known = [e.path for e in before.entries]
    damage(place, *known)
    told: list[tuple[str, int]] = []

    def report(name: str, total: int) -> Callable[[int], None]:
        told.append((name, total))
        return lambda _: None

    found = place.make(images, earlier, report=report)
    assert 3 in [total for _, total in told]
    assert found.whole
    for name, values in place.columns().items():
        if name not in MAP:
            np.testing.assert_array_equal(values, anew[name], err_msg=name)


def test_an_update_after_the_best_have_vanished(place: Place) -> None:
    before = place.images()
    ids = {e.path: int(i) for i, e in zip(before.ids, before.entries, strict=True)}
    first = place.make(before)
    earlier = place.columns()
    by_id = {image: path for path, image in ids.items()}
    gone = {by_id[image] for image in first.patches.ids[:3, 0].tolist()}
    for name in gone:
        (place.root / name).unlink()
        del ids[name]
    images = place.images(ids)
    place.make(images)
    anew = place.columns()
    found = place.make(images, earlier)
    check(found, images, place.predictor)
    for name, values in place.columns().items():
        if name not in MAP:
            np.testing.assert_array_equal(values, anew[name], err_msg=name)


def test_an_update_leaves_out_what_it_cannot_read_again(place: Place) -> None:
    """Of all that is known, only what is shown anew has to be there."""
    before = place.images()
    ids = {e.path: int(i) for i, e in zip(before.ids, before.entries, strict=True)}
    first = place.make(before)
    earlier = place.columns()
    gone = {p for p, i in ids.items() if i in first.patches.ids[:, 0]}
    assert 1 < len(gone) < COUNT - 3
    images = place.images({path: i for path, i in ids.items() if path not in gone})
    shutil.copytree(place.root, place.root.parent / "as they were")
    damage(place, *(entry.path for entry in images.entries[:-2]))
    found = place.make(images, earlier)
    assert set(images.ids[-2:].tolist()) <= set(found.ids.tolist())
    shutil.rmtree(place.root)
    (place.root.parent / "as they were").rename(place.root)
    check(found, images, place.predictor)


def test_an_update_with_nothing_new_is_the_same(place: Place) -> None:
    images = place.images()
    place.make(images)
    first = place.columns()
    damage(place, *(entry.path for entry in images.entries))
    place.make(images, first)
    for name, values in place.columns().items():
        np.testing.assert_array_equal(values, first[name], err_msg=name)


def test_of_many_images_some_are_drawn(place: Place) -> None:
    images = place.images()
    found = place.make(images, count=12)
    assert len(found.ids) == 12
    assert not found.whole
    check(found, images, place.predictor)


def test_of_ever_stronger_images_few_patches_are_kept(predictor: Predictor) -> None:
    """Each of 60 images excites every kernel more than those before."""
    rng = np.random.default_rng(0)
    pattern = rng.uniform(-1, 1, (256, 256, 3))
    squares = [np.rint(MEAN + (20 + n) * pattern).astype(np.uint8) for n in range(60)]
    looking = SampleScan(predictor, np.arange(60))
    for place, square in enumerate(squares):
        looking.add(place, looking.measure(square))
        assert len(looking.patches) <= MAX_PATCHES_PER_KERNEL * 96
    best = looking.rank_strongest_images()
    assert (np.sort(best, axis=1)[:, 0] > 40).all()
    pixels = looking.make_arrays()["patch_pixels"]
    spots = looking.spots[best[5, 0]]
    right = looking.conv1.cut_patch(squares[best[5, 0]], int(spots[5]))
    np.testing.assert_array_equal(pixels[5, 0], right)


def entries(count: int) -> list[FileEntry]:
    """Entries of files that are not there."""
    return [
        FileEntry(path=f"train/{n % 7}/{n}.jpg", size=1, mtime_ns=0, ctime_ns=0, sha256="",
              format="JPEG", width=1, height=1, pixels="")
        for n in range(count)
    ]  # fmt: skip


def test_a_draw_is_even_repeatable_and_changes_little() -> None:
    listed = entries(20_000)
    drawn = draw_sample(listed, 5_000)
    assert len(drawn) == 5_000
    assert (np.diff(drawn) > 0).all()
    np.testing.assert_array_equal(drawn, draw_sample(listed, 5_000))
    halves = [((start <= drawn) & (drawn < start + 10_000)).sum() for start in (0, 10_000)]
    assert abs(int(halves[0]) - int(halves[1])) < 300
    # A hundred files fewer, or in another order: the others stay.
    fewer = draw_sample(listed[:-100], 5_000)
    assert len(np.setdiff1d(drawn, fewer)) < 60
    np.testing.assert_array_equal(np.sort(19_999 - draw_sample(listed[::-1], 5_000)), drawn)
    np.testing.assert_array_equal(draw_sample(listed[:50], 50), np.arange(50))


def test_the_room_it_takes_is_known(place: Place) -> None:
    place.make(place.images())
    assert (place.index / SAMPLE_FILE).stat().st_size <= estimate_sample_bytes(COUNT)
    assert estimate_sample_bytes(10**6) == estimate_sample_bytes(SAMPLE_IMAGES) < 40e6
    assert estimate_sample_bytes(10**6, 10**5) == estimate_sample_bytes(10**5, 10**5) > 300e6

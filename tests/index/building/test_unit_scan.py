"""The nine images that excite each unit most, against every image's layers one by one."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from index.building.unit_scan import UnitScan
from index.manifest import FileChecksum, Manifest, StoreError
from index.units import NO_IMAGE, UNITS_FILE, TopImages, read_units, write_units
from model.network.config import AlexNetConfig
from model.network.layers import Activation, Conv, Dense, Flatten, Pool
from model.predict import Predictor
from model.weights.checkpoint import Weights

Pixels = npt.NDArray[np.uint8]
LAYERS = (
    Conv("conv1", 4, 5, stride=2),
    Activation("relu1"),
    Pool("pool1"),
    Conv("conv2", 6, 3, grouped=True),
    Activation("relu2"),
    Flatten("flatten"),
    Dense("fc7", 8),
    Activation("relu7"),
    Dense("fc8", 3),
)
UNITS = 4 + 6 + 8 + 3
COUNT = 37


@pytest.fixture(scope="module")
def predictor(weights_of: Callable[..., Weights]) -> Predictor:
    config = AlexNetConfig(
        net="defined", classes=3, init="he", input_scale=60, side=32, crop=24, layers=LAYERS
    )
    return Predictor.from_weights(weights_of(config, seed=7), "cpu")


@pytest.fixture(scope="module")
def squares() -> dict[int, Pixels]:
    """Squares by the ids of their images, which are not consecutive."""
    random = np.random.default_rng(3)
    pictures = random.integers(0, 256, (COUNT, 32, 32, 3), dtype=np.uint8)
    return {5 + 3 * n: picture for n, picture in enumerate(pictures)}


def scan(
    predictor: Predictor, squares: dict[int, Pixels], earlier: TopImages | None = None
) -> TopImages:
    ids = np.array(sorted(squares))
    found = UnitScan.resume(predictor, earlier, ids)
    for image, square in squares.items():
        found.add(image, square)
    top = found.finish(ids)
    assert top is not None
    return top


def rank(predictor: Predictor, squares: dict[int, Pixels]) -> list[list[tuple[float, int, int]]]:
    """For each unit every image's largest output and its place, the strongest first."""
    ranked: list[list[tuple[float, int, int]]] = [[] for _ in range(UNITS)]
    for image, square in squares.items():
        outputs = predictor.runtime.run_layers(square)
        maps = [one.reshape(-1) for layer in outputs for one in layer]
        for unit, values in enumerate(maps):
            ranked[unit].append((float(values.max()), image, int(values.argmax())))
    return [sorted(unit, key=lambda one: (-one[0], one[1])) for unit in ranked]


def check(top: TopImages, truth: list[list[tuple[float, int, int]]]) -> None:
    for unit, best in enumerate(truth):
        assert top.ids[unit].tolist() == [image for _, image, _ in best[:9]]
        assert top.places[unit].tolist() == [place for _, _, place in best[:9]]
        np.testing.assert_allclose(top.values[unit], [one[0] for one in best[:9]], rtol=1e-4)


def test_the_nine_are_those_of_all_images(predictor: Predictor, squares: dict[int, Pixels]) -> None:
    top = scan(predictor, squares)
    assert top.ids.shape == (UNITS, 9)
    assert top.seen.tolist() == sorted(squares)
    check(top, rank(predictor, squares))


def test_an_update_searches_only_what_is_new(
    predictor: Predictor, squares: dict[int, Pixels], monkeypatch: pytest.MonkeyPatch
) -> None:
    before = scan(predictor, dict(list(squares.items())[:30]))
    computed = []
    own = predictor.runtime.find_peaks
    monkeypatch.setattr(
        predictor.runtime, "find_peaks", lambda images: computed.append(len(images)) or own(images)
    )
    check(scan(predictor, squares, before), rank(predictor, squares))
    assert sum(computed) == COUNT - 30


def test_after_a_deletion_nothing_is_shown_that_is_not_known(
    predictor: Predictor, squares: dict[int, Pixels]
) -> None:
    before = scan(predictor, squares)
    gone = set(before.ids[:, 4].tolist())
    left = {image: square for image, square in squares.items() if image not in gone}
    top, truth = scan(predictor, left, before), rank(predictor, left)
    lists = [[image for image in unit if image != NO_IMAGE] for unit in top.ids.tolist()]
    assert min(map(len, lists)) < 9
    for found, best in zip(lists, truth, strict=True):
        assert found == [image for _, image, _ in best[: len(found)]]


def test_fewer_than_nine_images(predictor: Predictor, squares: dict[int, Pixels]) -> None:
    few = dict(list(squares.items())[:4])
    top = scan(predictor, few)
    assert (top.ids[:, 4:] == NO_IMAGE).all()
    for found, best in zip(top.ids[:, :4].tolist(), rank(predictor, few), strict=True):
        assert found == [image for _, image, _ in best]


def test_the_file_comes_back_and_damage_is_said(
    predictor: Predictor, squares: dict[int, Pixels], tmp_path: Path
) -> None:
    top, manifest = scan(predictor, squares), describe({})
    assert read_units(tmp_path, manifest) is None
    write_units(tmp_path, top)
    manifest = describe({UNITS_FILE: FileChecksum(bytes=1, sha256="")})
    again = read_units(tmp_path, manifest)
    assert again is not None
    for name in ("ids", "values", "places", "seen"):
        assert np.array_equal(getattr(again, name), getattr(top, name))
    write_units(tmp_path, replace(top, places=top.places[:-1]))
    with pytest.raises(StoreError, match="places"):
        read_units(tmp_path, manifest)


def describe(files: dict[str, FileChecksum]) -> Manifest:
    """A manifest with these files."""
    return Manifest(
        name="version",
        created="2026-01-01T00:00:00+00:00",
        made_by="",
        weights="",
        weights_file="",
        runtime="torch",
        preprocessing="",
        data="",
        images=COUNT,
        vectors=COUNT,
        unreadable=0,
        listing="",
        dtype="float32",
        kind="exact",
        target=1.0,
        parameters={},
        shards=[],
        files=files,
    )

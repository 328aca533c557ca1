"""What a version holds beside its vectors: made at the build, or added later."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from app.database.session import session_factory
from app.indexing.strangers import compute_auroc
from index.building.validation import (
    draw_photographs,
    measure_validation_images,
    read_validation_images,
    write_validation_images,
)
from index.manifest import read_manifest, write_manifest
from index.store import check_version, find_damage
from model.dataset.folder import scan_photographs
from model.image.preprocess import decode_square
from model.predict import Predictor
from storage.progress import ignore_progress


def take_away(version: Path, *names: str) -> None:
    """Make a version one that was built before it had these files."""
    manifest = read_manifest(version)
    kept = {name: sealed for name, sealed in manifest.files.items() if name not in names}
    for name in names:
        (version / name).unlink()
    write_manifest(replace(manifest, files=kept), version)


def brute_force(shop: Any) -> tuple[np.ndarray, np.ndarray]:
    """Each validation image's distance from its nearest training image, and its probabilities."""
    state, folder = shop.state(), scan_photographs(shop.photographs)
    predictor = state.predictor
    vectors = state.index.read_features(state.index.id_map.ids.tolist()).astype(np.float64)
    looks = [predictor.predict(predictor.read_square(folder.root / p.path)) for p in folder.val]
    distances = [
        np.linalg.norm(vectors - look.fc7, axis=1).min() / np.linalg.norm(look.fc7)
        for look in looks
    ]
    return np.sort(distances), np.stack([look.probabilities for look in looks])


def test_a_build_measures_the_validation_images(shop: Any) -> None:
    calibration = shop.state().calibration
    distances, _ = brute_force(shop)
    assert calibration is not None
    # What is stored was computed in batches.
    assert calibration.distances == pytest.approx(distances, rel=1e-3)
    assert calibration.labelled == len(distances) == 6
    assert calibration.losses[1] <= calibration.losses[0]


def test_a_version_built_before_says_nothing_until_it_is_looked_at(shop: Any, jpeg: bytes) -> None:
    names = ("calibration.npz", "validation.npz", "validation_files.npz")
    built = shop.state().calibration
    loader = shop.loader()
    take_away(shop.version, *names)
    check_version(shop.index, shop.name)
    assert shop.classify(jpeg, loader).sureness is None
    assert "calibration.npz" in shop.right("look")
    check_version(shop.index, shop.name)
    manifest = read_manifest(shop.version)
    assert set(names) <= set(manifest.files)
    assert find_damage(shop.version, manifest.checksums) == []
    loader.get_latest_state()  # a running server notices it
    found = shop.classify(jpeg, loader)
    assert found.sureness is not None
    assert loader.require_ready().calibration.distances == pytest.approx(built.distances, rel=1e-3)
    fc7 = loader.require_ready().predictor.predict(decode_square(jpeg)).fc7
    relative = found.neighbours[0].distance / np.linalg.norm(fc7)
    assert found.sureness.nearer == int((built.distances < relative).sum())
    assert found.sureness.images == 6
    assert "Nothing" in shop.right("look")


def test_an_update_reads_only_the_validation_images_that_have_changed(
    shop: Any, tmp_path: Path
) -> None:
    folder, state = scan_photographs(shop.photographs), shop.state()
    measured = measure_validation_images(
        state.predictor, folder.root, folder.val, None, ignore_progress
    )
    write_validation_images(tmp_path, measured)
    before = read_validation_images(tmp_path)
    assert before is not None
    changed = before.entries[2]
    Image.new("RGB", (50, 40), "green").save(shop.photographs / changed.path)
    asked: list[int] = []

    def report(_name: str, total: int) -> Callable[[int], None]:
        asked.append(total)
        return lambda _done: None

    found = measure_validation_images(state.predictor, folder.root, folder.val, before, report)
    assert asked == [1]
    assert [e.path for e in found.entries] == [e.path for e in before.entries]
    same = [i for i in range(len(found.entries)) if i != 2]
    assert (found.features[same] == before.features[same]).all()
    assert found.entries[2].sha256 != changed.sha256
    assert not np.allclose(found.features[2], before.features[2])


def test_unreadable_validation_images_are_left_out(shop: Any) -> None:
    folder, state = scan_photographs(shop.photographs), shop.state()
    first = draw_photographs(folder.val)[0]
    (folder.root / first.path).write_bytes(b"no photograph")
    found = measure_validation_images(
        state.predictor, folder.root, folder.val, None, ignore_progress
    )
    assert first.path not in {entry.path for entry in found.entries}
    assert len(found.entries) == len(found.probabilities) == len(folder.val) - 1
    one = found.entries[3]
    look = state.predictor.predict(state.predictor.read_square(folder.root / one.path))
    assert found.probabilities[3] == pytest.approx(look.probabilities, abs=1e-4)


def test_without_validation_images_nothing_is_claimed(
    shop: Any, jpeg: bytes, tmp_path: Path
) -> None:
    (tmp_path / "album").mkdir()
    for n, file in enumerate(sorted((shop.photographs / "train/coffee").iterdir())[:4]):
        (tmp_path / f"album/{n}.jpg").write_bytes(file.read_bytes())
    shop.right("build", "--data", str(tmp_path / "album"))
    assert shop.classify(jpeg).sureness is None
    assert shop.right("look").startswith("Nothing")


def test_strangers_are_compared_by_the_command(shop: Any, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for n in range(3):
        noise = rng.integers(0, 256, (64, 64, 3), np.uint8)
        Image.fromarray(noise).save(tmp_path / f"{n}.png")
    found = json.loads(shop.right("strangers", "--data", str(tmp_path), "--json"))
    state = shop.state()
    predictor: Predictor = state.predictor
    looks = [predictor.predict(predictor.read_square(tmp_path / f"{n}.png")) for n in range(3)]
    near = [
        state.index.search(look.fc7[None], 1).distances[0, 0] / np.linalg.norm(look.fc7)
        for look in looks
    ]
    usual = state.calibration.distances
    pairs = [(d > u) + 0.5 * (d == u) for d in near for u in usual]
    assert (found["strangers"], found["known"]) == (3, 6)
    assert found["by_distance"] == pytest.approx(np.mean(pairs), abs=1e-6)
    session_factory(shop.settings).kw["bind"].dispose()
    assert "flask index look" in (
        take_away(shop.version, "calibration.npz")
        or shop.refused("strangers", "--data", str(tmp_path))
    )


def test_auroc_is_the_share_of_pairs_in_order() -> None:
    rng = np.random.default_rng(3)
    known, strangers = rng.integers(0, 9, 40) / 1.0, rng.integers(3, 12, 30) / 1.0
    pairs = [(s > k) + 0.5 * (s == k) for s in strangers for k in known]
    assert compute_auroc(known, strangers) == pytest.approx(np.mean(pairs))

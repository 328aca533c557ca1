"""Files → features: in order, the same however they are computed, restartable, incremental."""

import json
import multiprocessing
import os
import shutil
import signal
import socket
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import skimage.data
import torch
from PIL import Image

from index.building import checkpoint, extractor, pipeline
from index.building.pipeline import BaseVersion, GatheredFeatures, compute_features, gather_features
from index.manifest import Shard, StoreError
from index.vectors import Vectors
from model.dataset.folder import Photograph
from model.image.preprocess import read_square
from model.network.config import FEATURES, AlexNetConfig
from model.predict import Predictor
from model.weights.checkpoint import Weights

Floats = npt.NDArray[np.float32]
EXACTLY = {"rtol": 1e-5, "atol": 1e-4}
"""Features of an image alone and in a batch differ in the last bits; they are around 10."""


def scanned(root: Path) -> list[Photograph]:
    """Every file under train, in the order of the paths."""
    files = sorted(f.relative_to(root).as_posix() for f in root.glob("train/*/*"))
    return [Photograph(path, 0) for path in files]


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def predictor(weights_of: Callable[..., Weights]) -> Predictor:
    """A network that sees a small crop."""
    config = AlexNetConfig(classes=3, init="he", input_scale=60, crop=67)
    return Predictor.from_weights(weights_of(config, mean=110.0), "cpu")


@pytest.fixture(scope="module")
def originals(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two classes of eight photographs."""
    root = tmp_path_factory.mktemp("photographs")
    for name in ("chelsea", "coffee"):
        folder = root / "train" / name
        folder.mkdir(parents=True)
        whole = getattr(skimage.data, name)()
        for number in range(8):
            top, left = np.random.default_rng(number).integers(0, 150, 2)
            crop = Image.fromarray(whole[top : top + 120, left : left + 130])
            crop.save(folder / f"{number}.{('jpg', 'png', 'webp')[number % 3]}", lossless=True)
    return root


@pytest.fixture(scope="module")
def truth(predictor: Predictor, originals: Path) -> dict[str, Floats]:
    """The features of every photograph by its path, computed one by one."""
    files = {p.path: read_square(originals / p.path) for p in scanned(originals)}
    return {path: predictor.extract_features(square[None])[0] for path, square in files.items()}


@pytest.fixture
def root(tmp_path: Path, originals: Path) -> Path:
    """A copy of the photographs that may be changed."""
    return shutil.copytree(originals, tmp_path / "photographs")


@pytest.fixture
def place(tmp_path: Path) -> Path:
    return tmp_path / "index"


Go = Callable[..., GatheredFeatures]


@pytest.fixture
def go(predictor: Predictor, root: Path, place: Path) -> Go:
    """Gathers what is under `root`, in small blocks and shards of float32."""

    def go(**changes: Any) -> GatheredFeatures:
        wanted = {"dtype": "float32", "batch": 3, "block": 4, "rows": 8} | changes
        photographs = wanted.pop("photographs", None) or scanned(root)
        found = gather_features(predictor, root, photographs, place, **wanted)
        assert found is not None
        return found

    return go


def publish(found: GatheredFeatures, folder: Path) -> BaseVersion:
    """A version of what was gathered: the shards linked as they are to be named."""
    folder.mkdir(parents=True)
    for stored in found.shards:
        (folder / stored.shard.file).hardlink_to(stored.path)
    shards = [stored.shard for stored in found.shards]
    return BaseVersion(
        folder=folder, shards=shards, dtype="float32", entries=found.entries, rows=found.rows
    )


def vectors_of(base: BaseVersion) -> dict[str, Floats]:
    """The vector of every entry, by its path."""
    rows = Vectors(base.folder, base.shards, base.dtype).take(base.rows)
    return {entry.path: row for entry, row in zip(base.entries, rows, strict=True)}


def same(found: dict[str, Floats], wanted: dict[str, Floats]) -> None:
    """Check vectors by path."""
    assert list(found) == list(wanted)
    for path, row in found.items():
        np.testing.assert_allclose(row, wanted[path], **EXACTLY, err_msg=path)


# Features in memory


def test_features_are_those_of_the_centre_crop_and_bad_files_are_listed(
    tmp_path: Path, predictor: Predictor, originals: Path, truth: dict[str, Floats]
) -> None:
    good = [originals / path for path in list(truth)[:3]]
    cut, empty, gone = (tmp_path / name for name in ("cut.png", "empty.jpg", "gone.jpg"))
    cut.write_bytes(good[1].read_bytes()[:200])
    empty.touch()
    items = list(enumerate([cut, good[0], empty, good[1], gone, good[2]], 10))
    said: list[int] = []
    computed = compute_features(predictor, items, batch=4, on_progress=said.append)
    assert computed.ids.tolist() == [11, 13, 15]
    assert computed.features.dtype == np.float32
    np.testing.assert_allclose(computed.features, list(truth.values())[:3], **EXACTLY)
    assert [(i, path) for i, path, _ in computed.unreadable] == [(10, cut), (12, empty), (14, gone)]
    for _, path, reason in computed.unreadable:
        assert reason
        assert str(path) not in reason
    assert said == [4, 6]


def test_nothing_to_compute(predictor: Predictor, tmp_path: Path) -> None:
    assert compute_features(predictor, []).features.shape == (0, FEATURES)
    bad = compute_features(predictor, [(1, tmp_path / "gone.jpg")])
    assert bad.features.shape == (0, FEATURES)
    assert len(bad.unreadable) == 1


# Features on disk


def test_every_photograph_gets_its_features(
    go: Go, place: Path, truth: dict[str, Floats], root: Path
) -> None:
    said: list[tuple[str, int, list[int]]] = []

    def report(name: str, total: int) -> Callable[[int], None]:
        said.append((name, total, []))
        return said[-1][2].append

    found = go(report=report)
    version = publish(found, place / "v1")
    same(vectors_of(version), truth)
    assert [s.shard.rows for s in found.shards] == [8, 8]
    assert [s.shard.file for s in found.shards] == ["vectors-00000.npy", "vectors-00001.npy"]
    assert [p.path for p in found.photographs] == list(truth)
    assert (found.counts.added, found.counts.computed, found.counts.reused) == (16, 16, 0)
    (_, total, steps), *_ = said
    assert total == 16
    assert steps == sorted(steps)
    assert steps[-1] == 16
    first = found.entries[0]
    with Image.open(root / first.path) as image:
        assert (first.width, first.height, first.format) == (*image.size, image.format)
    assert first.bytes == (root / first.path).stat().st_size
    checkpoint.delete_checkpoints(place)
    assert [e.name for e in place.iterdir()] == ["v1"]


def test_float16_is_the_nearest_float16(go: Go, place: Path, truth: dict[str, Floats]) -> None:
    found = go(dtype="float16")
    shards = [s.shard for s in found.shards]
    version = replace(publish(found, place / "v1"), dtype="float16", shards=shards)
    for path, row in vectors_of(version).items():
        np.testing.assert_allclose(row, truth[path], rtol=2**-11, atol=1e-4)


def test_equal_pixels_share_a_row_and_bad_files_are_left_out(
    go: Go, root: Path, predictor: Predictor
) -> None:
    first, second = root / "train/chelsea/1.png", root / "train/coffee/4.png"
    shutil.copy(first, root / "train/coffee/copy.png")
    with Image.open(first) as image:
        image.save(first.with_name("same.webp"), lossless=True)
    second.write_bytes(second.read_bytes()[:300])
    strange = "train/chelsea/\udcff.png"
    photographs = sorted([*scanned(root), Photograph(strange, 0), Photograph("train/a/b.png", 0)],
                         key=lambda p: p.path)  # fmt: skip
    found = go(photographs=photographs)
    rows = {entry.path: row for entry, row in zip(found.entries, found.rows, strict=True)}
    shared = {rows[f"train/{name}"] for name in ("chelsea/1.png", "chelsea/same.webp",
                                                 "coffee/copy.png")}  # fmt: skip
    assert len(shared) == 1
    assert len(set(rows.values())) == 15
    assert (found.counts.computed, found.counts.reused) == (15, 2)
    reasons = {left.path: left.reason for left in found.unreadable}
    assert sorted(reasons) == ["train/a/b.png", "train/chelsea/\\udcff.png", "train/coffee/4.png"]
    assert "No such file" in reasons["train/a/b.png"]
    assert "UTF-8" in reasons["train/chelsea/\\udcff.png"]
    assert "damaged" in reasons["train/coffee/4.png"]


# Interrupted builds


def test_a_build_that_was_cut_off_goes_on(go: Go, place: Path, truth: dict[str, Floats]) -> None:
    def cut(step: str, after: int) -> Callable[[str, int], Callable[[int], None]]:
        def told(name: str, done: int) -> None:
            if name == step and done >= after:
                raise KeyboardInterrupt

        return lambda name, _total: partial(told, name)

    pieces = []
    for step, after in (
        ("Computing features", 5),
        ("Computing features", 7),
        ("Assembling the shards", 1),
    ):
        with pytest.raises(KeyboardInterrupt):
            go(report=cut(step, after))
        pieces.append(sorted(f.name[:6] for f in place.glob(".work-*/*.jsonl")))
    assert pieces == [["block-"], ["block-"] * 2, ["block-"] * 2 + ["shard-"]]
    found = go()
    same(vectors_of(publish(found, place / "v1")), truth)
    assert (found.counts.computed, found.counts.reused) == (0, 16)
    assert [s.shard.rows for s in found.shards] == [8, 8]


ignore_fork_warning = pytest.mark.filterwarnings(
    "ignore:This process .* is multi-threaded:DeprecationWarning"
)
"""Python 3.12 warns of fork() beside torch's threads. The child sets up its own and never waits for
those of the parent, and forking saves the seconds in which a new process imports torch."""


def start_process(run: Callable[[], None], **environment: str) -> Any:
    """Run a function in a copy of this process, which ends with it at the latest."""

    def target() -> None:
        os.environ.update(environment)
        torch.set_num_threads(1)
        run()

    process = multiprocessing.get_context("fork").Process(target=target, daemon=True)
    process.start()
    return process


@ignore_fork_warning
def test_a_killed_build_resumes(
    go: Go, root: Path, place: Path, truth: dict[str, Floats], predictor: Predictor
) -> None:
    def report(_name: str, _total: int) -> Callable[[int], None]:
        return lambda done: os.kill(os.getpid(), signal.SIGKILL) if done >= 6 else None

    def build() -> None:
        gather_features(predictor, root, scanned(root), place, report=report, block=2, batch=4)

    process = start_process(build)
    process.join(120)
    assert process.exitcode == -signal.SIGKILL
    found = go(dtype="float16")
    assert 0 < found.counts.computed < 16
    assert not list(place.glob(".work-*/.*"))
    version = replace(publish(found, place / "v1"), dtype="float16")
    for path, row in vectors_of(version).items():
        np.testing.assert_allclose(row, truth[path], rtol=2**-11, atol=1e-4)


@ignore_fork_warning
def test_two_processes_do_what_one_does(
    go: Go, root: Path, place: Path, predictor: Predictor
) -> None:
    def build() -> None:
        found = gather_features(predictor, root, scanned(root), place, block=4, batch=4)
        if os.environ["RANK"] == "0":
            assert found is not None
            (place / "rows.json").write_text(json.dumps(found.rows.tolist()))
        else:
            assert found is None

    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    meeting = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    processes = [start_process(build, RANK=str(rank), **meeting) for rank in range(2)]
    for process in processes:
        process.join(120)
        assert process.exitcode == 0
    again = go(dtype="float16", rows=pipeline.ROWS_PER_SHARD)
    assert again.counts.computed == 0
    assert json.loads((place / "rows.json").read_text()) == again.rows.tolist() == [*range(16)]
    (both,) = again.shards
    alone = gather_features(predictor, root, scanned(root), place / "alone", batch=4, block=4)
    assert alone is not None
    assert [s.shard.sha256 for s in alone.shards] == [both.shard.sha256]


# Updates of an earlier version


def test_an_update_touches_only_what_is_new(
    go: Go, root: Path, place: Path, truth: dict[str, Floats], predictor: Predictor
) -> None:
    base = publish(go(), place / "v1")
    checkpoint.delete_checkpoints(place)
    train = root / "train"
    (train / "chelsea/0.jpg").unlink()
    os.utime(train / "chelsea/1.png")
    shutil.move(train / "chelsea/2.webp", train / "chelsea/moved.webp")
    shutil.copy(train / "coffee/3.jpg", train / "coffee/2.webp")
    with Image.open(train / "coffee/4.png") as image:
        image.transpose(Image.Transpose.FLIP_LEFT_RIGHT).save(train / "coffee/new.png")
    found = go(base=base)
    counts = found.counts
    assert (counts.added, counts.changed, counts.removed) == (2, 1, 2)
    assert (counts.unchanged, counts.computed, counts.reused) == (13, 1, 2)
    files = [s.shard.file for s in found.shards]
    assert files == ["vectors-00000.npy", "vectors-00001.npy", "vectors-00002.npy"]
    assert [s.path.parent == base.folder for s in found.shards] == [True, True, False]
    wanted = {
        p.path: predictor.extract_features(read_square(root / p.path)[None])[0]
        for p in scanned(root)
    }
    version = publish(found, place / "v2")
    same(vectors_of(version), wanted)
    checkpoint.delete_checkpoints(place)
    again = go(base=version)
    assert again.counts == replace(counts, added=0, changed=0, removed=0, unchanged=16, computed=0,
                                   reused=0)  # fmt: skip
    assert [s.path.parent for s in again.shards] == [version.folder] * 3


def test_a_shard_that_is_mostly_dead_is_not_kept(
    go: Go, root: Path, place: Path, truth: dict[str, Floats]
) -> None:
    base = publish(go(), place / "v1")
    checkpoint.delete_checkpoints(place)
    for number in range(5):
        next((root / "train/chelsea").glob(f"{number}.*")).unlink()
    found = go(base=base)
    assert [(s.path.parent == base.folder, s.shard.rows) for s in found.shards] == [
        (True, 8),
        (False, 3),
    ]
    left = {p.path: truth[p.path] for p in scanned(root)}
    same(vectors_of(publish(found, place / "v2")), left)
    assert found.counts.computed == 0


# Failures


def test_a_folder_that_vanishes_is_an_error_and_what_was_done_stays(
    go: Go, root: Path, place: Path, truth: dict[str, Floats]
) -> None:
    photographs = scanned(root)
    away = root.with_name("away")

    def report(_name: str, _total: int) -> Callable[[int], None]:
        return lambda done: root.rename(away) if done >= 4 and root.exists() else None

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(extractor, "MAX_WAITING_IMAGES", 1)
        with pytest.raises(StoreError, match="has vanished"):
            go(photographs=photographs, report=report)
    away.rename(root)
    found = go()
    assert found.counts.computed < 16
    assert found.unreadable == []
    same(vectors_of(publish(found, place / "v1")), truth)


def test_features_that_are_no_numbers_name_the_image(go: Go, predictor: Predictor) -> None:
    bias = predictor.network.fc7.bias
    before = bias.detach().clone()
    try:
        with torch.no_grad():
            bias[7] = torch.nan
        with pytest.raises(StoreError, match=r"train/chelsea/0\.jpg"):
            go()
    finally:
        with torch.no_grad():
            bias.copy_(before)


def test_a_disk_without_room_is_said_before_anything_is_read(
    go: Go, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        pipeline.shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(9, 9, 10**5)
    )
    with pytest.raises(StoreError, match=r"16 images need [\d.]+ MB under .* has [\d.]+ MB free"):
        go()


def test_a_base_of_another_type_is_refused(go: Go, tmp_path: Path) -> None:
    none: list[Shard] = []
    base = BaseVersion(
        folder=tmp_path, shards=none, dtype="float16", entries=[], rows=np.empty(0, int)
    )
    with pytest.raises(StoreError, match="float16"):
        go(base=base)

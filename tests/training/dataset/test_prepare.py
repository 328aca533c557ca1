"""Photographs decoded once: the same pixels as everywhere, and nothing half-written."""

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from model.dataset.folder import FolderError, ImageFolder, scan_folder
from model.image.preprocess import read_square
from model.network.config import Resize
from training.dataset import folder as folders
from training.dataset import prepare as module
from training.dataset.prepare import DataError, PreparedDataset, UnfinishedError, prepare

ROOT = Path(__file__).parents[3]


def ignore(_count: int) -> None:
    """Nobody looks at the progress."""


@pytest.fixture
def copy(photographs: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(photographs, tmp_path / "copy"))


@pytest.fixture
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(folders, "PHOTOGRAPHS_PER_CHUNK", 4)


def everything(split: module.Split) -> np.ndarray:
    return split.read(np.arange(len(split)))


def files(store: Path) -> set[str]:
    return {str(path.relative_to(store)) for path in store.rglob("*")}


# What is stored


def test_the_pixels_are_those_every_room_sees(
    prepared: PreparedDataset, folder: ImageFolder
) -> None:
    assert everything(prepared.train).shape == (24, 256, 256, 3)
    assert everything(prepared.val).shape == (12, 256, 256, 3)
    rows = np.array([23, 0, 9])
    for row, pixels in zip(rows, prepared.train.read(rows), strict=True):
        photograph = folder.train[row]
        assert prepared.train.classes[row] == photograph.class_index
        np.testing.assert_array_equal(pixels, read_square(folder.root / photograph.path))
    mean = everything(prepared.train).astype(float).mean(0).transpose(2, 0, 1)
    np.testing.assert_allclose(prepared.mean.numpy(), mean, rtol=1e-6)
    assert prepared.class_names == folder.classes
    assert prepared.root == folder.root


def test_colours_are_taken_from_the_training_images(prepared: PreparedDataset) -> None:
    colours = everything(prepared.train).reshape(-1, 3) / 255
    values = np.linalg.eigvalsh(np.cov(colours.T, bias=True))
    np.testing.assert_allclose(prepared.pca.eigenvalues.numpy(), values[::-1], rtol=1e-4)


def test_what_does_not_fit_the_budget_is_stored_as_jpeg(
    folder: ImageFolder, tmp_path: Path, prepared: PreparedDataset
) -> None:
    exact = 36 * 256 * 256 * 3
    raw = prepare(folder, tmp_path, ignore, budget=exact)
    jpeg = prepare(folder, tmp_path, ignore, budget=exact - 1)
    assert (raw.train.kind, jpeg.train.kind) == ("raw", "jpeg")
    assert raw.key == prepared.key != jpeg.key
    sizes = {
        data.key: sum(file.stat().st_size for file in data.folder.glob("*.bin"))
        for data in (raw, jpeg)
    }
    assert sizes[raw.key] == exact
    assert sizes[jpeg.key] < exact / 2
    stored, original = (everything(data.train).astype(float) for data in (jpeg, raw))
    error = np.mean((stored - original) ** 2, axis=(1, 2, 3))
    assert 10 * np.log10(255**2 / error.max()) > 35  # dB
    # The mean is that of what training reads, not of what was read from the photographs.
    np.testing.assert_allclose(
        jpeg.mean.numpy(), stored.mean(0).transpose(2, 0, 1), rtol=0, atol=2e-5
    )
    np.testing.assert_array_equal(jpeg.train.classes, raw.train.classes)


def test_other_sides_are_other_sets(folder: ImageFolder, tmp_path: Path) -> None:
    sets = {side: prepare(folder, tmp_path, ignore, side=side) for side in (32, 48)}
    assert sets[32].key != sets[48].key
    assert sets[32].side == sets[32].train.side == 32
    assert sets[32].mean.shape == (3, 32, 32)
    photograph = read_square(folder.root / folder.val[5].path, side=32)
    np.testing.assert_array_equal(sets[32].val.read(np.array([5]))[0], photograph)


def test_other_ways_to_a_square_are_other_sets(folder: ImageFolder, tmp_path: Path) -> None:
    ways: list[Resize] = ["bicubic", "bilinear", "warp"]
    sets = [prepare(folder, tmp_path, ignore, side=48, resize=way) for way in ways]
    assert len({data.key for data in sets}) == 3
    for way, data in zip(ways, sets, strict=True):
        square = read_square(folder.root / folder.val[5].path, side=48, resize=way)
        np.testing.assert_array_equal(data.val.read(np.array([5]))[0], square)


def test_the_second_time_nothing_is_decoded(copy: Path, tmp_path: Path) -> None:
    first = prepare(scan_folder(copy), tmp_path / "store", ignore)
    place = first.folder
    assert place is not None
    held = {file: file.stat().st_mtime_ns for file in place.iterdir()}
    counts: list[int] = []
    again = prepare(scan_folder(copy), tmp_path / "store", counts.append)
    assert again.key == first.key
    assert torch.equal(again.mean, first.mean)
    assert held == {file: file.stat().st_mtime_ns for file in place.iterdir()}
    assert counts == [36]


def test_changed_photographs_are_another_set(copy: Path, tmp_path: Path) -> None:
    first = prepare(scan_folder(copy), tmp_path / "store", ignore)
    (copy / "train/cat/0.jpg").write_bytes((copy / "train/cat/3.jpg").read_bytes())
    assert prepare(scan_folder(copy), tmp_path / "store", ignore).key != first.key


def test_labels_are_those_of_today(copy: Path, tmp_path: Path) -> None:
    prepare(scan_folder(copy), tmp_path / "store", ignore)
    (copy / "classes.txt").write_text("cat a cat\n")
    assert prepare(scan_folder(copy), tmp_path / "store", ignore).class_names[0].label == "a cat"


# Bad input


@pytest.mark.usefixtures("small_chunks")
def test_unreadable_photographs_are_named_and_left_out(copy: Path, tmp_path: Path) -> None:
    (copy / "train/cat/0.jpg").write_bytes(b"")
    (copy / "train/grass/1.png").write_bytes(b"not an image")
    (copy / "val/cat/0.jpg").write_bytes((copy / "val/cat/0.jpg").read_bytes()[:500])
    counts: list[int] = []
    done = prepare(scan_folder(copy), tmp_path / "store", counts.append)
    assert sum(counts) == 36
    assert len(done.train) == 22
    assert len(done.val) == 11
    for name, why, line in zip(
        ("train/cat/0.jpg", "train/grass/1.png", "val/cat/0.jpg"),
        ("empty", "not an image", "damaged"),
        done.unreadable,
        strict=True,
    ):
        assert line.startswith(f"{copy / name}: ")
        assert why in line
    np.testing.assert_array_equal(
        done.train.read(np.array([0]))[0], read_square(copy / "train/cat/1.png")
    )
    assert done.train.classes.tolist() == [0] * 7 + [1] * 8 + [2] * 7


@pytest.mark.usefixtures("small_chunks")
def test_a_chunk_of_which_nothing_can_be_read_is_no_hindrance(copy: Path, tmp_path: Path) -> None:
    for number in range(4):
        next((copy / "train/cat").glob(f"{number}.*")).write_bytes(b"")
    for _ in range(2):
        done = prepare(scan_folder(copy), tmp_path / "store", ignore)
        assert done.train.classes.tolist() == [0] * 4 + [1] * 8 + [2] * 8
        assert everything(done.train).shape == (20, 256, 256, 3)


def test_a_class_of_which_nothing_can_be_read_is_refused(copy: Path, tmp_path: Path) -> None:
    for file in (copy / "val/cat").iterdir():
        file.write_bytes(b"")
    with pytest.raises(DataError, match=r"val/cat can be read; the first: .*val/cat/0\.jpg"):
        prepare(scan_folder(copy), tmp_path / "store", ignore)
    assert files(tmp_path / "store") == set()


def test_folders_that_cannot_serve_are_refused(copy: Path) -> None:
    (copy / "train/empty").mkdir()
    with pytest.raises(FolderError, match="only train has empty"):
        scan_folder(copy)
    (copy / "val/empty").mkdir()
    with pytest.raises(FolderError, match="train/empty holds no photographs"):
        scan_folder(copy)


def test_too_little_disk_is_said_before_the_work(
    folder: ImageFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small = SimpleNamespace(total=10, used=9, free=10**6)
    monkeypatch.setattr(module.shutil, "disk_usage", lambda _path: small)
    with pytest.raises(DataError, match=r"36 images at 256×256 need .* raw .* ALEXNET_HOME"):
        prepare(folder, tmp_path / "store", ignore)
    with pytest.raises(DataError, match=r"36 images at 256×256 need .* JPEG .* ALEXNET_HOME"):
        prepare(folder, tmp_path / "store", ignore, budget=0)
    assert files(tmp_path / "store") == set()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs Linux's /dev/full")
@pytest.mark.usefixtures("small_chunks")
def test_a_disk_that_fills_up_is_one_clear_error_and_what_is_done_stays(
    folder: ImageFolder, tmp_path: Path
) -> None:
    done = prepare(folder, tmp_path / "elsewhere", ignore)
    assert done.folder is not None
    place = tmp_path / "store" / done.folder.name
    place.mkdir(parents=True)
    (place / "train-00002.bin.part").symlink_to("/dev/full")
    with pytest.raises(UnfinishedError, match=r"disk of .*store is full.* ALEXNET_HOME") as caught:
        prepare(folder, tmp_path / "store", ignore)
    assert "\n" not in str(caught.value)
    kept = {f"train-{number:05d}.{kind}" for number in (0, 1) for kind in ("bin", "npz")}
    assert files(place) == kept
    again = prepare(folder, tmp_path / "store", ignore)
    assert torch.equal(again.mean, done.mean)
    np.testing.assert_array_equal(everything(again.train), everything(done.train))


def test_a_store_that_cannot_be_written_is_said(folder: ImageFolder, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    for store in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(DataError, match=r"cannot be written to .*file.*ALEXNET_HOME"):
            prepare(folder, store, ignore)
    with pytest.raises(DataError, match="cannot be written to /proc"):
        prepare(folder, Path("/proc/prepared"), ignore)


def test_a_damaged_store_is_not_opened(folder: ImageFolder, tmp_path: Path) -> None:
    done = prepare(folder, tmp_path, ignore, side=32)
    place = done.folder
    assert place is not None
    os.truncate(place / "val-00000.bin", 100)
    with pytest.raises(DataError, match=r"is damaged .*val-00000.*remove the folder"):
        prepare(folder, tmp_path, ignore, side=32)
    (place / "arrays.npz").write_bytes(b"PK")
    with pytest.raises(DataError, match=r"is damaged .*remove the folder"):
        prepare(folder, tmp_path, ignore, side=32)


# Interruption


@pytest.mark.usefixtures("small_chunks")
@pytest.mark.parametrize("budget", [10**9, 0])
def test_after_an_interruption_the_finished_chunks_are_kept(
    folder: ImageFolder, tmp_path: Path, budget: int
) -> None:
    seen = 0

    def interrupt(count: int) -> None:
        nonlocal seen
        seen += count
        if seen == 15:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        prepare(folder, tmp_path / "store", interrupt, budget=budget)
    (place,) = (tmp_path / "store").iterdir()
    kept = {f"train-{number:05d}.{kind}" for number in (0, 1, 2) for kind in ("bin", "npz")}
    assert files(place) == kept
    before = {file: file.stat().st_mtime_ns for file in place.glob("*.bin")}
    counts: list[int] = []
    done = prepare(folder, tmp_path / "store", counts.append, budget=budget)
    assert counts == [12] + [1] * 24
    assert {file: file.stat().st_mtime_ns for file in before} == before
    whole = prepare(folder, tmp_path / "elsewhere", ignore, budget=budget)
    assert whole.key == done.key
    for name in files(place):
        one, other = (tmp_path / at / place.name / name for at in ("store", "elsewhere"))
        assert one.read_bytes() == other.read_bytes(), name


SCRIPT = """
import os, signal, sys
from pathlib import Path
from model.dataset.folder import scan_folder
from training.dataset import folder
from training.dataset.prepare import prepare

folder.PHOTOGRAPHS_PER_CHUNK = 4
root, store, dies = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
seen = 0

def progress(count):
    global seen
    seen += count
    print(count, flush=True)
    if seen == dies:
        os.kill(os.getpid(), signal.SIGKILL)

print(prepare(scan_folder(root), store, progress, side=64).key)
"""


def process(root: Path, store: Path, dies: int = -1) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", SCRIPT, str(root), str(store), str(dies)]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)


@pytest.mark.slow
@pytest.mark.usefixtures("small_chunks")
def test_killed_at_any_moment_the_next_call_goes_on(folder: ImageFolder, tmp_path: Path) -> None:
    for dies, kept in ((7, 0), (21, 4)):
        killed = process(folder.root, tmp_path / "store", dies)
        said, _ = killed.communicate(timeout=120)
        assert killed.returncode == -signal.SIGKILL
        assert int(said.split()[0]) == kept
        # Its lock is there and is nobody's.
        assert len(list((tmp_path / "store").glob(".*.lock"))) == 1
    counts: list[int] = []
    done = prepare(folder, tmp_path / "store", counts.append, side=64)
    assert counts[0] == 20
    assert sum(counts) == 36
    whole = prepare(folder, tmp_path / "elsewhere", ignore, side=64)
    assert files(tmp_path / "store") == files(tmp_path / "elsewhere")
    assert torch.equal(done.mean, whole.mean)
    assert torch.equal(done.pca.eigenvectors, whole.pca.eigenvectors)
    np.testing.assert_array_equal(everything(done.val), everything(whole.val))


@pytest.mark.usefixtures("small_chunks")
def test_a_torn_chunk_is_made_again(folder: ImageFolder, tmp_path: Path) -> None:
    """As after a power failure on a disk that kept the names but not the bytes."""
    killed = process(folder.root, tmp_path / "store", 21)
    killed.communicate(timeout=120)
    (place,) = (path for path in (tmp_path / "store").iterdir() if path.is_dir())
    os.truncate(place / "train-00001.bin", 5)
    (place / "train-00002.npz").write_bytes(b"")
    counts: list[int] = []
    done = prepare(folder, tmp_path / "store", counts.append, side=64)
    assert counts == [12] + [1] * 24
    whole = prepare(folder, tmp_path / "elsewhere", ignore, side=64)
    np.testing.assert_array_equal(everything(done.train), everything(whole.train))


@pytest.mark.slow
@pytest.mark.usefixtures("small_chunks")
def test_several_processes_do_the_work_once(folder: ImageFolder, tmp_path: Path) -> None:
    processes = [process(folder.root, tmp_path / "store") for _ in range(2)]
    said = [process.communicate(timeout=120)[0].split() for process in processes]
    assert {process.returncode for process in processes} == {0}
    assert len({lines[-1] for lines in said}) == 1
    # One decoded image by image, the other opened what it had made.
    assert sorted(len(lines) for lines in said) == [2, 38]
    assert not list((tmp_path / "store").glob("*.lock"))

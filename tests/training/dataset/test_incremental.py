"""Photographs that are known are not decoded again, and what has changed is named."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from model.dataset.folder import scan_folder
from storage.home import Home
from storage.runs import RunFolder
from training.dataset import decode
from training.dataset.prepare import PreparedDataset, prepare
from training.dataset.sets import list_sets, prune_sets

SIDE = 32


@pytest.fixture
def data(photographs: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(photographs, tmp_path / "data"))


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The sizes of the photographs that were decoded."""
    sizes: list[int] = []
    really = decode.decode_square

    def count(data: bytes, **options: object) -> np.ndarray:
        sizes.append(len(data))
        return really(data, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(decode, "decode_square", count)
    return sizes


def prepare_in(data: Path, store: Path) -> PreparedDataset:
    return prepare(scan_folder(data), store, lambda _count: None, side=SIDE)


def check_same(one: PreparedDataset, other: PreparedDataset) -> None:
    assert one.key == other.key
    assert torch.equal(one.mean, other.mean)
    assert torch.equal(one.pca.eigenvectors, other.pca.eigenvectors)
    for ours, theirs in ((one.train, other.train), (one.val, other.val)):
        rows = np.arange(len(ours))
        np.testing.assert_array_equal(ours.read(rows), theirs.read(rows))
        np.testing.assert_array_equal(ours.classes, theirs.classes)


def add_photograph(data: Path, name: str = "train/cat/new.png") -> None:
    Image.new("RGB", (50, 40), (10, 20, 200)).save(data / name)


def test_only_what_is_new_is_decoded(data: Path, tmp_path: Path, decoded: list[int]) -> None:
    (data / "train/grass/1.png").write_bytes(b"not an image")
    prepare_in(data, tmp_path / "store")
    decoded.clear()
    add_photograph(data)
    (data / "train/coffee/0.jpg").unlink()
    # Renamed, and touched: the content is known.
    (data / "train/cat/1.png").rename(data / "train/cat/zebra.png")
    os.utime(data / "val/cat/0.jpg")
    changed = prepare_in(data, tmp_path / "store")
    # The new one, and the one that cannot be read, which is tried again.
    assert sorted(decoded) == sorted(
        (data / name).stat().st_size for name in ("train/cat/new.png", "train/grass/1.png")
    )
    check_same(changed, prepare_in(data, tmp_path / "elsewhere"))


def test_a_folder_that_was_copied_is_the_same_set(
    data: Path, tmp_path: Path, decoded: list[int]
) -> None:
    first = prepare_in(data, tmp_path / "store")
    decoded.clear()
    copy = Path(shutil.copytree(data, tmp_path / "copy", copy_function=shutil.copyfile))
    second = prepare_in(copy, tmp_path / "store")
    assert decoded == []
    assert second.root == copy
    check_same(second, first)
    # It takes no space of its own.
    folders = [path for path in (tmp_path / "store").iterdir() if not path.is_symlink()]
    assert folders == [first.folder]
    # A photograph of the same size and time, in another folder, is not taken for the same.
    victim = copy / "train/cat/0.jpg"
    content = bytearray(victim.read_bytes())
    content[-10] ^= 1
    status = victim.stat()
    victim.write_bytes(content)
    os.utime(victim, ns=(status.st_atime_ns, status.st_mtime_ns))
    third = Path(shutil.move(copy, tmp_path / "third"))
    assert prepare_in(third, tmp_path / "store").key != first.key


def test_sets_are_listed_and_pruned(data: Path, tmp_path: Path) -> None:
    home = Home(root=tmp_path / "home")
    before = prepare_in(data, home.prepared)
    add_photograph(data)
    after = prepare_in(data, home.prepared)
    shutil.copytree(data, tmp_path / "copy")
    prepare_in(tmp_path / "copy", home.prepared)
    (home.prepared / "0123").mkdir()
    (home.prepared / "0123/train-00000.bin").write_bytes(bytes(100))
    states = {stored.folder: stored.obsolete for stored in list_sets(home)}
    assert states == {
        after.folder: "",
        before.folder: "its photographs have changed",
        home.prepared / "0123": "unfinished",
    }
    assert {s.folder: s.images for s in list_sets(home)}[after.folder] == 37  # type: ignore[index]
    # What an interrupted run was trained on stays.
    run = RunFolder(home.runs / "run")
    run.path.mkdir(parents=True)
    run.update_description(content=before.key, finished=False)
    run.checkpoint.write_bytes(b"")
    assert [s.folder.name for s in prune_sets(home, list_sets(home))] == ["0123"]
    run.update_description(finished=True)
    assert [s.folder for s in prune_sets(home, list_sets(home))] == [before.folder]
    assert len(list(home.prepared.iterdir())) == 2  # the set, and the copy's link to it
    shutil.rmtree(data)
    assert prune_sets(home, list_sets(home)) == []
    assert [s.folder for s in prune_sets(home, list_sets(home), older_than=2e10)] == [after.folder]
    assert list(home.prepared.iterdir()) == []


WORDS = ("--variant", "cifar-80sec", "--batch", "5", "--epochs", "1", "--no-ten-crops")


@pytest.fixture
def run(data: Path, tmp_path: Path, run_training: Callable[..., tuple[str, str]]) -> RunFolder:
    """A run of one epoch, which a second one would extend."""
    run_training(tmp_path / "home", "--data", data, *WORDS)
    (folder,) = (tmp_path / "home/runs").iterdir()
    return RunFolder(folder)


def test_changed_photographs_are_named_before_anything_is_decoded(
    data: Path,
    tmp_path: Path,
    run: RunFolder,
    decoded: list[int],
    run_training: Callable[..., tuple[str, str]],
) -> None:
    decoded.clear()
    more = ("--resume", run.path, "--epochs", "2")
    add_photograph(data)
    (data / "val/cat/0.jpg").unlink()
    (data / "train/grass/0.jpg").write_bytes(b"another")
    os.utime(data / "train/cat/1.png")
    _, errors = run_training(tmp_path / "home", "--data", data, *more, code=2)
    (line,) = errors.splitlines()
    changes = "1 added: train/cat/new.png; 1 removed: val/cat/0.jpg; 1 changed: train/grass/0.jpg"
    assert changes in line
    assert "--accept content" in line
    assert decoded == []
    # Another class is another matter.
    for split in ("train", "val"):
        (data / split / "cat").rename(data / split / "lion")
    words = (*more, "--accept", "content")
    _, errors = run_training(tmp_path / "home", "--data", data, *words, code=2)
    assert "gone: cat; new: lion" in errors
    assert decoded == []


def test_a_run_goes_on_with_photographs_that_were_moved(
    data: Path,
    tmp_path: Path,
    run: RunFolder,
    decoded: list[int],
    run_training: Callable[..., tuple[str, str]],
) -> None:
    decoded.clear()
    moved = data.rename(tmp_path / "moved")
    more = ("--resume", run.path, "--epochs", "2")
    run_training(tmp_path / "home", "--data", moved, *more)
    assert decoded == []
    assert run.read_description()["data"] == str(moved)
    assert len(run.epochs.read_text().splitlines()) == 2

"""Photographs decoded once: the same pixels as everywhere, and nothing half-written."""

import shutil
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from model.images import read_file
from model.photographs import Folder, scan
from training import prepare as module
from training.prepare import DataError, Prepared, prepare


def ignore(_count: int) -> None:
    """Nobody looks at the progress."""


@pytest.fixture
def copy(photographs: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(photographs, tmp_path / "copy"))


def test_the_pixels_are_those_every_room_sees(prepared: Prepared, folder: Folder) -> None:
    assert prepared.train.images.shape == (24, 256, 256, 3)
    assert prepared.val.images.shape == (12, 256, 256, 3)
    for row in (0, 9, 23):
        photograph = folder.train[row]
        assert prepared.train.classes[row] == photograph.class_index
        np.testing.assert_array_equal(
            prepared.train.images[row], read_file(folder.root / photograph.path)
        )
    np.testing.assert_allclose(
        prepared.mean.numpy(),
        prepared.train.images.astype(float).mean(0).transpose(2, 0, 1),
        rtol=1e-5,
    )


def test_the_second_time_nothing_is_decoded(copy: Path, tmp_path: Path) -> None:
    folder = scan(copy)
    first = prepare(folder, tmp_path / "store", ignore)
    held = (tmp_path / "store" / first.key / "train.u8").stat()
    again = prepare(folder, tmp_path / "store", ignore)
    assert again.key == first.key
    assert (tmp_path / "store" / first.key / "train.u8").stat().st_mtime_ns == held.st_mtime_ns


def test_changed_photographs_are_another_set(copy: Path, tmp_path: Path) -> None:
    first = prepare(scan(copy), tmp_path / "store", ignore)
    (copy / "train/cat/0.jpg").write_bytes((copy / "train/cat/3.jpg").read_bytes())
    assert prepare(scan(copy), tmp_path / "store", ignore).key != first.key


def test_unreadable_photographs_are_named_and_left_out(copy: Path, tmp_path: Path) -> None:
    (copy / "train/cat/0.jpg").write_bytes(b"")
    (copy / "train/grass/1.png").write_bytes(b"not an image")
    (copy / "val/cat/0.jpg").write_bytes((copy / "val/cat/0.jpg").read_bytes()[:500])
    done = prepare(scan(copy), tmp_path / "store", ignore)
    assert len(done.train.classes) == 22
    assert len(done.val.classes) == 11
    for name, line in zip(
        ("train/cat/0.jpg", "train/grass/1.png", "val/cat/0.jpg"), done.unreadable, strict=True
    ):
        assert name in line
    np.testing.assert_array_equal(done.train.images[0], read_file(copy / "train/cat/1.png"))


def test_a_class_of_which_nothing_can_be_read_is_refused(copy: Path, tmp_path: Path) -> None:
    for file in (copy / "val/cat").iterdir():
        file.write_bytes(b"")
    with pytest.raises(DataError, match=r"val/cat can be read"):
        prepare(scan(copy), tmp_path / "store", ignore)
    assert list((tmp_path / "store").iterdir()) == []


def test_too_little_disk_is_said_before_the_work(
    folder: Folder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small = SimpleNamespace(total=10, used=9, free=10**6)
    monkeypatch.setattr(module.shutil, "disk_usage", lambda _path: small)
    with pytest.raises(DataError, match=r"36 images at 256×256 need .* ALEXNET_HOME"):
        prepare(folder, tmp_path / "store", ignore)
    assert list((tmp_path / "store").iterdir()) == []


def test_what_a_killed_preparation_left_is_removed(folder: Folder, tmp_path: Path) -> None:
    dead = tmp_path / "store" / ".0123.999999999.part"
    dead.mkdir(parents=True)
    (dead / "train.u8").write_bytes(b"x" * 100)
    prepare(folder, tmp_path / "store", ignore)
    assert not dead.exists()


def test_an_error_half_way_leaves_nothing(folder: Folder, tmp_path: Path) -> None:
    def interrupt(_count: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        prepare(folder, tmp_path / "store", interrupt)
    assert list((tmp_path / "store").iterdir()) == []

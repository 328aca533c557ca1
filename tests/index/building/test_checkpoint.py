"""A work folder: a piece is there whole or not at all, whatever happened while it was written."""

import errno
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from index.building.checkpoint import (
    BuildCheckpoint,
    delete_checkpoints,
    delete_published_checkpoints,
    name_checkpoint_folder,
)
from index.building.file_list import FileEntry, UnreadableFile
from index.manifest import StoreError
from index.vectors import Vectors
from model.network.config import FEATURES

Floats = npt.NDArray[np.float32]


def found(start: int, count: int) -> list[FileEntry | UnreadableFile]:
    """Entries, and one that is left out."""
    entries = [
        FileEntry(
            path=f"train/a/{n}.jpg",
            size=n,
            mtime_ns=10**18 + n,
            ctime_ns=10**18 - n,
            sha256=f"{n:064x}",
            format="JPEG",
            width=3,
            height=4,
            pixels=f"{n:032x}",
        )
        for n in range(start, start + count)
    ]
    return [
        *entries,
        UnreadableFile(path="train/a/bad.jpg", reason="It is empty.", stamp=(0, 1, 2)),
    ]


def rows(count: int, seed: int = 0) -> Floats:
    return np.random.default_rng(seed).random((count, FEATURES), np.float32)


def put(work: BuildCheckpoint, name: str, count: int, start: int = 0) -> None:
    """Write a piece."""
    work.write_segment(name, [rows(count, start)], found(start, count), [*range(count), -1])


def test_pieces_come_back_as_they_were_written(tmp_path: Path) -> None:
    work = BuildCheckpoint(tmp_path / "work", "float32")
    put(work, "block-1-0000003", 3, start=5)
    put(work, "block-0-0000002", 2)
    put(work, "shard-0000004", 1, start=9)
    pieces = work.list_segments()
    assert [p.name for p in pieces] == ["shard-0000004", "block-0-0000002", "block-1-0000003"]
    assert [p.number for p in pieces] == [4, 2, 3]
    last = pieces[-1]
    assert last.files == found(5, 3)
    assert last.rows == [0, 1, 2, -1]
    read = Vectors(work.folder, [last.shard], "float32").take(np.arange(3))
    np.testing.assert_array_equal(read, rows(3, 5))
    work.delete_segment(last)
    assert [p.name for p in work.list_segments()] == ["shard-0000004", "block-0-0000002"]


def test_what_was_left_half_written_is_swept_away(tmp_path: Path) -> None:
    work = BuildCheckpoint(tmp_path / "work", "float16")
    put(work, "block-0-0000000", 2)
    put(work, "block-0-0000001", 2)
    (work.folder / "block-0-0000001.jsonl").unlink()
    (work.folder / ".block-0-0000002.npy.part").write_bytes(b"123")
    (work.folder / ".block-0-0000002.jsonl.part").write_bytes(b"123")
    work.remove_partial()
    names = sorted(e.name for e in work.folder.iterdir())
    assert names == ["block-0-0000000.jsonl", "block-0-0000000.npy"]
    assert [p.name for p in work.list_segments()] == ["block-0-0000000"]


def test_a_damaged_piece_does_not_count(tmp_path: Path) -> None:
    work = BuildCheckpoint(tmp_path / "work", "float16")
    for number in range(4):
        put(work, f"block-0-000000{number}", 2, start=number)
    os.truncate(work.folder / "block-0-0000000.npy", 5000)
    os.truncate(work.folder / "block-0-0000001.jsonl", 300)
    (work.folder / "block-0-0000002.npy").unlink()
    assert [p.name for p in work.list_segments()] == ["block-0-0000003"]
    assert BuildCheckpoint(tmp_path / "work", "float32").list_segments() == []


def test_a_folder_is_for_what_vectors_depend_on(tmp_path: Path) -> None:
    one = name_checkpoint_folder(tmp_path, "w1", Path("/d"), "float16")
    assert one == name_checkpoint_folder(tmp_path, "w1", Path("/d"), "float16")
    others = {
        one,
        name_checkpoint_folder(tmp_path, "w2", Path("/d"), "float16"),
        name_checkpoint_folder(tmp_path, "w1", Path("/e"), "float16"),
        name_checkpoint_folder(tmp_path, "w1", Path("/d"), "float32"),
    }
    assert len(others) == 4
    for folder in others:
        put(BuildCheckpoint(folder, "float16"), "block-0-0000000", 1)
    delete_checkpoints(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_only_work_that_a_version_holds_whole_is_forgotten(tmp_path: Path) -> None:
    version = tmp_path / "version"
    version.mkdir()
    done, other = (
        BuildCheckpoint(tmp_path / ".work-done", "float16"),
        BuildCheckpoint(tmp_path / ".work-two", "float16"),
    )
    for work in (done, other):
        put(work, "shard-0000001", 2)
    put(done, "block-0-0000000", 0)
    (version / "vectors-00000.npy").hardlink_to(done.folder / "shard-0000001.npy")
    put(done, "block-0-0000002", 1, start=5)
    delete_published_checkpoints(tmp_path, version)
    assert done.folder.exists()
    done.delete_segment(done.list_segments()[-1])
    delete_published_checkpoints(tmp_path, version)
    assert not done.folder.exists()
    assert len(other.list_segments()) == 1


def test_what_is_no_number_is_refused_and_leaves_nothing(tmp_path: Path) -> None:
    work = BuildCheckpoint(tmp_path / "work", "float16")
    with pytest.raises(StoreError, match="finite"):
        work.write_segment("block-0-0000000", [rows(2) * 1e6], found(0, 2), [0, 1, -1])
    assert list(work.folder.iterdir()) == []


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Path]:
    """A disk of 100 KiB; skips where nobody may mount one."""
    place = tmp_path / "small"
    place.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=100k", "tmpfs", str(place)]
    try:
        subprocess.run(command, check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("mounting a small disk takes root's rights")
    yield place
    subprocess.run(["umount", "--lazy", str(place)], check=True)


def test_a_full_disk_is_an_error_and_finished_pieces_stay(small: Path) -> None:
    work = BuildCheckpoint(small / "work", "float16")
    put(work, "block-0-0000000", 5)
    with pytest.raises(StoreError, match=os.strerror(errno.ENOSPC)):
        put(work, "block-0-0000001", 8)
    # The vectors have room, but not what tells of them.
    with pytest.raises(StoreError, match=os.strerror(errno.ENOSPC)):
        work.write_segment("block-0-0000002", [rows(4)], found(0, 4) * 80, [0] * 400)
    assert len(list(work.folder.iterdir())) == 2
    assert [p.name for p in work.list_segments()] == ["block-0-0000000"]


def test_a_place_that_is_no_folder_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StoreError, match="cannot be written"):
        BuildCheckpoint(tmp_path / "file" / "work", "float16")

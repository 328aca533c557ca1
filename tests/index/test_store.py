"""A version is there whole or not at all, and what was served stays until the switch."""

import errno
import hashlib
import json
import multiprocessing
import os
import resource
import signal
import time
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from index.draft import draft_version
from index.id_map import read_id_map, write_id_map
from index.manifest import CHECKSUM_KEY, FORMAT, MANIFEST_FILE, Manifest, compute_manifest_checksum
from index.store import (
    StoreError,
    acquire_build_lock,
    delete_old_versions,
    find_earlier_version,
    list_versions,
    open_version,
    publish_version,
    publish_weights,
    read_current_version,
    read_manifest,
    read_published_weights,
)
from index.vectors import Vectors as Rows
from index.vectors import write_shard
from model.network.config import FEATURES

Floats = npt.NDArray[np.float32]
Vectors = Callable[..., Floats]
Write = Callable[..., str]
COMMAND = "`flask index build`"
SHARD = "vectors-0.npy"


def left_overs(root: Path) -> list[str]:
    """Hidden entries but the lock."""
    return [e.name for e in root.iterdir() if e.name.startswith(".") and e.name != ".lock"]


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_a_version_comes_back_as_it_was_written(
    tmp_path: Path, vectors: Vectors, write: Write, dtype: str
) -> None:
    known = vectors(20, 1).astype(dtype).astype(np.float32)
    name = write(known, list(range(5, 25)), classes=[7] * 20, dtype=dtype, shard=6)
    index = open_version(tmp_path, name)
    assert index.id_map.ids.tolist() == list(range(5, 25))
    assert (index.vectors.take(np.arange(20)) == known).all()
    assert (index.vectors.take([19, 3, 3]) == known[[19, 3, 3]]).all()
    parts = list(index.vectors.read_chunks(4))
    assert [start for start, _ in parts] == [0, 4, 6, 10, 12, 16, 18]
    assert (np.concatenate([rows for _, rows in parts]) == known).all()
    assert len(index) == index.manifest.images == index.manifest.rows == 20
    assert (index.manifest.weights, index.manifest.data) == ("w1", "/photographs")
    largest = (known.astype(np.float64) ** 2).sum(1).max()
    assert largest <= index.vectors.max_squared_norm <= largest * 1.002


def test_a_shard_is_a_file_that_numpy_reads(tmp_path: Path, vectors: Vectors, write: Write) -> None:
    known = vectors(9, 1)
    found = np.load(tmp_path / write(known, dtype="float16") / SHARD)
    assert (found == known.astype(np.float16)).all()


def test_a_version_takes_over_the_shards_of_another_without_copying(
    tmp_path: Path, vectors: Vectors, write: Write
) -> None:
    known = vectors(20, 1)
    first = read_manifest(tmp_path / write(known[:10], shard=4))
    with draft_version(tmp_path) as draft:
        for shard in first.shards[1:]:
            draft.link_shard(tmp_path / first.name / shard.file, shard)
        assert (draft.open_vectors("float32").take(np.arange(6)) == known[4:10]).all()
        same = [(f / "vectors-4.npy").stat().st_ino for f in (tmp_path / first.name, draft.folder)]
        assert same[0] == same[1]
    assert list_versions(tmp_path) == [first.name]
    assert left_overs(tmp_path) == []


def test_a_version_deleted_while_it_is_open_still_answers(
    tmp_path: Path, vectors: Vectors, write: Write
) -> None:
    known = vectors(20, 1)
    first, second = write(known), write(vectors(5, 2))
    publish_version(tmp_path, second)
    index = open_version(tmp_path, first)
    delete_old_versions(tmp_path, 1)
    assert list_versions(tmp_path) == [second]
    assert index.search(known, 1).ids[:, 0].tolist() == list(range(1, 21))


def test_nothing_is_served_before_it_is_published(
    tmp_path: Path, vectors: Vectors, write: Write
) -> None:
    assert read_current_version(tmp_path) is None
    name = write(vectors(5, 1))
    assert read_current_version(tmp_path) is None
    publish_version(tmp_path, name)
    assert read_current_version(tmp_path) == name
    assert (tmp_path / "current" / SHARD).is_file()
    assert left_overs(tmp_path) == []


def test_publishing_switches_from_one_version_to_the_next(
    tmp_path: Path, vectors: Vectors, write: Write
) -> None:
    first, second = write(vectors(5, 1)), write(vectors(6, 2))
    publish_version(tmp_path, first)
    publish_version(tmp_path, second)
    assert read_current_version(tmp_path) == second
    assert list_versions(tmp_path) == [first, second]


def test_what_is_not_whole_is_not_published(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=COMMAND):
        publish_version(tmp_path, "20260101T000000000000Z-00000000")
    assert read_current_version(tmp_path) is None


def test_the_served_version_and_the_newest_others_are_kept(
    tmp_path: Path, vectors: Vectors, write: Write
) -> None:
    names = [write(vectors(3, seed)) for seed in range(5)]
    publish_version(tmp_path, names[1])
    assert delete_old_versions(tmp_path, 3) == ([names[1], *names[3:]], [names[0], names[2]])
    assert list_versions(tmp_path) == [names[1], *names[3:]]
    assert delete_old_versions(tmp_path, 1) == ([names[1]], names[3:])
    assert left_overs(tmp_path) == []


def test_versions_of_another_database_are_neither_deleted_nor_counted(
    tmp_path: Path, vectors: Vectors, write: Write
) -> None:
    names = [write(vectors(3, seed)) for seed in range(5)]
    for name in (names[0], names[2], names[4]):
        publish_version(tmp_path, name)
    # The database lists the last two; one of the others was in service, one never.
    kept, gone = delete_old_versions(tmp_path, 2, names[3:])
    assert (kept, gone) == (names[3:], [names[1]])
    assert list_versions(tmp_path) == [names[0], *names[2:]]


def test_the_version_before_the_served_one_can_be_gone_back_to(
    tmp_path: Path, vectors: Vectors, write: Write
) -> None:
    with pytest.raises(StoreError, match="no earlier version"):
        find_earlier_version(tmp_path)
    names = [write(vectors(3, seed)) for seed in range(3)]
    publish_version(tmp_path, names[2])
    assert find_earlier_version(tmp_path) == names[1]
    publish_version(tmp_path, names[1])
    assert find_earlier_version(tmp_path) == names[0]
    assert find_earlier_version(tmp_path, names[2]) == names[2]
    # One that was only built, and never served, is not what somebody goes back to.
    write(vectors(3, 3), weights="w2")
    publish_version(tmp_path, write(vectors(3, 4)))
    assert find_earlier_version(tmp_path) == names[2]
    # While weights serve without an index it is the newest.
    (tmp_path / "w.safetensors").touch()
    publish_weights(tmp_path, tmp_path / "w.safetensors")
    assert read_current_version(tmp_path) is None
    assert read_published_weights(tmp_path) == tmp_path / "w.safetensors"
    assert find_earlier_version(tmp_path) > names[2]
    publish_version(tmp_path, names[1])
    assert read_published_weights(tmp_path) is None
    with pytest.raises(StoreError, match=f"no version 2026; there are {names[0]}"):
        find_earlier_version(tmp_path, "2026")
    (tmp_path / names[0] / SHARD).write_bytes(b"")
    with pytest.raises(StoreError, match="damaged"):
        find_earlier_version(tmp_path)


def test_a_build_removes_what_dead_ones_left(
    tmp_path: Path, vectors: Vectors, write: Write
) -> None:
    name = write(vectors(3, 1))
    publish_version(tmp_path, name)
    dead = tmp_path / ".20260101T000000000000Z-0a0b0c0d"
    dead.mkdir()
    (dead / SHARD).write_bytes(b"half")
    (tmp_path / ".current.4242").symlink_to(name)
    (tmp_path / "notes.txt").write_text("not ours")
    with acquire_build_lock(tmp_path):
        pass
    assert left_overs(tmp_path) == []
    assert (tmp_path / "notes.txt").exists()
    assert read_current_version(tmp_path) == name


def test_two_builds_do_not_run_at_once(tmp_path: Path) -> None:
    with (
        acquire_build_lock(tmp_path),
        pytest.raises(StoreError, match="Another build"),
        acquire_build_lock(tmp_path),
    ):
        pass
    with acquire_build_lock(tmp_path):
        pass


def test_a_folder_that_cannot_be_made_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with (
        pytest.raises(StoreError, match="cannot be kept"),
        acquire_build_lock(tmp_path / "file" / "index"),
    ):
        pass


ignore_fork_warning = pytest.mark.filterwarnings(
    "ignore:This process .* is multi-threaded:DeprecationWarning"
)
"""Python 3.12 warns of fork() beside torch's threads. The child sets up its own and never waits for
those of the parent, and forking saves the seconds in which a new process imports torch."""


def start_process(run: Callable[[], None]) -> Any:
    """Run a function in a copy of this process, which ends with it at the latest."""
    process = multiprocessing.get_context("fork").Process(target=run, daemon=True)
    process.start()
    return process


def write_draft(root: Path, count: int) -> None:
    """Write a version of so many images."""
    with draft_version(root) as draft:
        features = np.full((count, FEATURES), 0.5, np.float32)
        draft.shards.append(write_shard(draft.folder / SHARD, [features], "float32"))
        ids = np.arange(count)
        write_id_map(draft.folder, ids, ids, ids)
        draft.commit(
            weights="w2", data="/d", unreadable=0, listing="l", images=count, vectors=count,
            dtype="float32", kind="exact", target=0.95,
        )  # fmt: skip


@ignore_fork_warning
@pytest.mark.parametrize("delay", [0.0, 0.01, 0.04])
def test_a_killed_build_leaves_what_was_served(
    tmp_path: Path, vectors: Vectors, write: Write, delay: float
) -> None:
    known = vectors(30, 1)
    name = write(known)
    publish_version(tmp_path, name)
    reader, writer = os.pipe()

    def build_forever() -> None:
        with acquire_build_lock(tmp_path):
            while True:
                os.write(writer, b".")
                write_draft(tmp_path, 399)

    process = start_process(build_forever)
    os.read(reader, 1)
    time.sleep(delay)
    process.kill()
    process.join()
    os.close(reader)
    os.close(writer)
    assert read_current_version(tmp_path) == name
    assert open_version(tmp_path, name).search(known[:1], 1).ids.tolist() == [[1]]
    for whole in list_versions(tmp_path):
        open_version(tmp_path, whole)
    with acquire_build_lock(tmp_path):
        assert left_overs(tmp_path) == []


# The shard has 1,638,528 bytes: none, half, and all but the last few.
@ignore_fork_warning
@pytest.mark.parametrize("room", [0, 800_000, 1_638_500])
def test_a_full_disk_leaves_nothing_behind(
    tmp_path: Path, vectors: Vectors, write: Write, room: int
) -> None:
    name = write(vectors(3, 1))
    publish_version(tmp_path, name)
    noted = tmp_path / "noted"

    def build() -> None:
        note = os.open(noted, os.O_CREAT | os.O_WRONLY)
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        soft = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (room, soft[1]))
        try:
            write_draft(tmp_path, 100)
        except StoreError as error:
            resource.setrlimit(resource.RLIMIT_FSIZE, soft)
            os.write(note, str(error).encode())

    process = start_process(build)
    process.join(60)
    assert process.exitcode == 0
    assert os.strerror(errno.EFBIG) in noted.read_text()
    assert list_versions(tmp_path) == [name]
    assert left_overs(tmp_path) == []
    assert read_current_version(tmp_path) == name


def test_an_interrupt_while_writing_leaves_nothing_behind(
    tmp_path: Path, vectors: Vectors, write: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(descriptor: int) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", interrupt)
    with pytest.raises(KeyboardInterrupt):
        write(vectors(3, 1))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("cut", [0, 1, 100, -1])
def test_a_truncated_file_is_told(tmp_path: Path, vectors: Vectors, write: Write, cut: int) -> None:
    name = write(vectors(5, 1))
    file = tmp_path / name / SHARD
    file.write_bytes(file.read_bytes()[:cut])
    with pytest.raises(StoreError, match=rf"{SHARD} is damaged.*{COMMAND}"):
        open_version(tmp_path, name)


def test_a_changed_byte_is_told(tmp_path: Path, vectors: Vectors, write: Write) -> None:
    name = write(vectors(5, 1))
    file = tmp_path / name / SHARD
    data = bytearray(file.read_bytes())
    data[5000] ^= 1
    file.write_bytes(data)
    with pytest.raises(StoreError, match="damaged"):
        open_version(tmp_path, name)


def test_a_missing_file_is_told(tmp_path: Path, vectors: Vectors, write: Write) -> None:
    name = write(vectors(5, 1))
    (tmp_path / name / SHARD).unlink()
    with pytest.raises(StoreError, match=COMMAND):
        open_version(tmp_path, name)
    with pytest.raises(StoreError, match=COMMAND):
        open_version(tmp_path, "20260101T000000000000Z-00000000")


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "null", "{}", '{"format": "1"}', '{"format": true}', "\xff"]
)
def test_a_damaged_manifest_is_told(
    tmp_path: Path, vectors: Vectors, write: Write, text: str
) -> None:
    name = write(vectors(5, 1))
    (tmp_path / name / MANIFEST_FILE).write_bytes(text.encode("latin-1"))
    with pytest.raises(StoreError, match=COMMAND):
        open_version(tmp_path, name)


@pytest.mark.parametrize("missing", ["weights", "images", "shards", "near"])
def test_an_incomplete_manifest_is_told(
    tmp_path: Path, vectors: Vectors, write: Write, missing: str
) -> None:
    name = write(vectors(5, 1))
    file = tmp_path / name / MANIFEST_FILE
    values = json.loads(file.read_text())
    del values[missing]
    rewrite(file, values)
    with pytest.raises(StoreError, match=f"{missing} is missing"):
        read_manifest(tmp_path / name)


@pytest.mark.parametrize(("change", "age"), [(1, "newer"), (-1, "older")])
def test_another_format_is_told(
    tmp_path: Path, vectors: Vectors, write: Write, change: int, age: str
) -> None:
    name = write(vectors(5, 1))
    file = tmp_path / name / MANIFEST_FILE
    rewrite(file, json.loads(file.read_text()) | {"format": FORMAT + change})
    with pytest.raises(StoreError, match=f"of an? {age} version.*{COMMAND}"):
        open_version(tmp_path, name)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"shards": [{"file": "vectors-0.npy"}]}, "is damaged"),
        ({"files": {"ids.npy": {"size": 1}}}, "is damaged"),
        ({"preprocessing": "another"}, "preprocess"),
        ({"name": "20260101T000000000000Z-00000000"}, "names 20260101"),
        ({"images": 4}, "does not hold 4 images"),
    ],
)
def test_a_manifest_of_something_else_is_told(
    tmp_path: Path, vectors: Vectors, write: Write, change: dict[str, object], said: str
) -> None:
    name = write(vectors(5, 1))
    file = tmp_path / name / MANIFEST_FILE
    rewrite(file, json.loads(file.read_text()) | change)
    with pytest.raises(StoreError, match=f"{said}.*{COMMAND}"):
        open_version(tmp_path, name)


def rewrite(manifest: Path, values: dict[str, Any]) -> None:
    """Write other values into a manifest, as if it had been made of them."""
    manifest.write_text(json.dumps(values | {CHECKSUM_KEY: compute_manifest_checksum(values)}))


def test_any_changed_value_of_a_manifest_is_told(
    tmp_path: Path, vectors: Vectors, write: Write
) -> None:
    name = write(vectors(5, 1))
    file = tmp_path / name / MANIFEST_FILE
    values = json.loads(file.read_text())
    assert set(values) == {CHECKSUM_KEY, *(known.name for known in fields(Manifest))}
    for known, value in values.items():
        match value:
            case str():
                other: object = f"{value}0"
            case dict():
                other = value | {"a": 1}
            case list():
                other = [*value, 1]
            case _:
                other = value + 1
        file.write_text(json.dumps(values | {known: other}))
        with pytest.raises(StoreError, match=COMMAND):
            read_manifest(tmp_path / name)


def reseal(folder: Path, name: str) -> None:
    """Give a file's checksum to the manifest, as if it had been written so."""
    file, manifest = folder / name, folder / MANIFEST_FILE
    values = json.loads(manifest.read_text())
    data = file.read_bytes()
    values["files"][name] = {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    rewrite(manifest, values)


@pytest.mark.parametrize(
    ("name", "values", "said"),
    [
        ("rows.npy", np.array([0, 1, 2, 3, 5]), "rows"),
        ("rows.npy", np.array([0, 1, 2, 3, -1]), "rows"),
        ("ids.npy", np.arange(4), "does not hold 5 images"),
        ("ids.npy", np.arange(5.0), "int64"),
        ("classes.npy", np.zeros((5, 1), np.int32), "int32"),
        ("ids.npy", np.array([{}] * 5), "is damaged"),
    ],
)
def test_members_that_do_not_fit_are_told(
    tmp_path: Path, vectors: Vectors, write: Write, name: str, values: object, said: str
) -> None:
    version = write(vectors(5, 1))
    np.save(tmp_path / version / name, values)  # type: ignore[arg-type]
    reseal(tmp_path / version, name)
    with pytest.raises(StoreError, match=f"{said}.*{COMMAND}"):
        read_id_map(tmp_path / version, read_manifest(tmp_path / version))


def test_an_odd_current_is_told(tmp_path: Path, vectors: Vectors, write: Write) -> None:
    (tmp_path / "current").symlink_to("../elsewhere")
    with pytest.raises(StoreError, match=COMMAND):
        read_current_version(tmp_path)
    (tmp_path / "current").unlink()
    (tmp_path / "current").mkdir()
    with pytest.raises(StoreError, match="remove it"):
        read_current_version(tmp_path)


def test_a_build_mends_a_link_that_leads_nowhere(
    tmp_path: Path, vectors: Vectors, write: Write
) -> None:
    name = write(vectors(5, 1))
    (tmp_path / "current").symlink_to("../elsewhere")
    with acquire_build_lock(tmp_path):
        assert list_versions(tmp_path) == [name]
        publish_version(tmp_path, name)
    assert read_current_version(tmp_path) == name


@pytest.mark.parametrize(
    ("ids", "said"),
    [([], "nothing to index"), ([1, 2], "Every image"), ([2, 1, 3], "rise"), ([1, 1, 2], "rise")],
)
def test_bad_ids_are_refused(
    tmp_path: Path, vectors: Vectors, write: Write, ids: list[int], said: str
) -> None:
    with pytest.raises(StoreError, match=said):
        write(vectors(3, 1) if ids else vectors(0, 1), ids, rows=[0, 1, 2] if ids else [])
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("dtype", "value"), [("float32", np.nan), ("float16", 7e4)])
def test_features_that_are_no_finite_numbers_are_refused(
    tmp_path: Path, vectors: Vectors, write: Write, dtype: str, value: float
) -> None:
    known = vectors(3, 1)
    known[1, 1] = value
    with pytest.raises(StoreError, match=r"train anew"):
        write(known, dtype=dtype)
    assert list(tmp_path.iterdir()) == []


def test_a_shard_that_shrinks_while_it_is_open_is_told(tmp_path: Path, vectors: Vectors) -> None:
    shard = write_shard(tmp_path / "a.npy", [vectors(5, 1)], "float16")
    rows = Rows(tmp_path, [shard], "float16")
    os.truncate(tmp_path / "a.npy", shard.bytes - 1)
    assert rows.take([3]).shape == (1, FEATURES)
    with pytest.raises(StoreError, match="shorter"):
        rows.take([4])
    with pytest.raises(StoreError, match=r"a\.npy is damaged"):
        Rows(tmp_path, [shard], "float16")

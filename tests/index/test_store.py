"""A version is there whole or not at all, and what was served stays until the switch."""

import json
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import faiss
import numpy as np
import numpy.typing as npt
import pytest

from index.manifest import FILE, FORMAT
from index.store import (
    VECTORS,
    StoreError,
    building,
    current_name,
    open_version,
    prune,
    publish,
    read_manifest,
    versions,
    write_version,
)
from model.alexnet import FEATURES

Floats = npt.NDArray[np.float32]
Vectors = Callable[..., Floats]
Write = Callable[..., str]
COMMAND = "`flask index build`"


def left_overs(root: Path) -> list[str]:
    """Hidden entries but the lock."""
    return [e.name for e in root.iterdir() if e.name.startswith(".") and e.name != ".lock"]


def test_a_version_comes_back_as_it_was_written(
    tmp_path: Path, vectors: Vectors, write: Write
) -> None:
    known = vectors(20, 1)
    name = write(known, list(range(5, 25)))
    index = open_version(tmp_path, name)
    assert index.ids.tolist() == list(range(5, 25))
    assert (index.features == known).all()
    assert len(index) == index.manifest.count == 20
    assert (index.manifest.weights, index.manifest.data) == ("w1", "/photographs")
    largest = (known.astype(np.float64) ** 2).sum(1).max()
    assert index.manifest.largest == pytest.approx(largest)


def test_the_vectors_are_kept_once_and_cannot_be_changed(
    tmp_path: Path, vectors: Vectors, write: Write
) -> None:
    index = open_version(tmp_path, write(vectors(20, 1)))
    assert not index.features.flags.owndata
    with pytest.raises(ValueError, match="read-only"):
        index.features[0, 0] = 1


def test_the_faiss_file_holds_the_images_ids(
    tmp_path: Path, vectors: Vectors, write: Write
) -> None:
    known = vectors(10, 1)
    name = write(known, list(range(100, 110)))
    read = faiss.read_index(str(tmp_path / name / VECTORS))
    _, ids = read.search(known[3:4], 1)
    assert ids.tolist() == [[103]]
    assert (read.reconstruct(103) == known[3]).all()


def test_nothing_is_served_before_it_is_published(
    tmp_path: Path, vectors: Vectors, write: Write
) -> None:
    assert current_name(tmp_path) is None
    name = write(vectors(5, 1))
    assert current_name(tmp_path) is None
    publish(tmp_path, name)
    assert current_name(tmp_path) == name
    assert (tmp_path / "current" / VECTORS).is_file()
    assert left_overs(tmp_path) == []


def test_publishing_switches_from_one_version_to_the_next(
    tmp_path: Path, vectors: Vectors, write: Write
) -> None:
    first, second = write(vectors(5, 1)), write(vectors(6, 2))
    publish(tmp_path, first)
    publish(tmp_path, second)
    assert current_name(tmp_path) == second
    assert versions(tmp_path) == [first, second]


def test_what_is_not_whole_is_not_published(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=COMMAND):
        publish(tmp_path, "20260101T000000000000Z-00000000")
    assert current_name(tmp_path) is None


def test_the_last_two_versions_are_kept(tmp_path: Path, vectors: Vectors, write: Write) -> None:
    names = [write(vectors(3, seed)) for seed in range(4)]
    for name in names[:3]:
        publish(tmp_path, name)
    # The fourth was never published: its build died.
    assert prune(tmp_path) == names[1:3]
    assert versions(tmp_path) == names[1:3]


def test_a_build_removes_what_dead_ones_left(
    tmp_path: Path, vectors: Vectors, write: Write
) -> None:
    name = write(vectors(3, 1))
    publish(tmp_path, name)
    dead = tmp_path / ".20260101T000000000000Z-0a0b0c0d"
    dead.mkdir()
    (dead / VECTORS).write_bytes(b"half")
    (tmp_path / ".current.4242").symlink_to(name)
    (tmp_path / "notes.txt").write_text("not ours")
    with building(tmp_path):
        pass
    assert left_overs(tmp_path) == []
    assert (tmp_path / "notes.txt").exists()
    assert current_name(tmp_path) == name


def test_two_builds_do_not_run_at_once(tmp_path: Path) -> None:
    with building(tmp_path), pytest.raises(StoreError, match="Another build"), building(tmp_path):
        pass
    with building(tmp_path):
        pass


def test_a_folder_that_cannot_be_made_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="cannot be kept"), building(tmp_path / "file" / "index"):
        pass


BUILD_FOREVER = """
import sys, time
from pathlib import Path
import numpy as np
from index import store
root = Path(sys.argv[1])
with store.building(root):
    count = 0
    while True:
        ids = np.arange(1, 400, dtype=np.int64)
        features = np.random.default_rng(count).random((399, 4096), dtype=np.float32)
        print("writing", flush=True)
        store.write_version(root, weights="w2", data="/d", unreadable=0, listing="l",
                            ids=ids, features=features)
        count += 1
"""


@pytest.mark.parametrize("delay", [0.0, 0.01, 0.04])
def test_a_killed_build_leaves_what_was_served(
    tmp_path: Path, vectors: Vectors, write: Write, delay: float
) -> None:
    known = vectors(30, 1)
    name = write(known)
    publish(tmp_path, name)
    with subprocess.Popen(
        [sys.executable, "-c", BUILD_FOREVER, str(tmp_path)],
        stdout=subprocess.PIPE,
        cwd=Path(__file__).parents[2],
    ) as process:
        assert process.stdout
        process.stdout.readline()
        time.sleep(delay)
        process.send_signal(signal.SIGKILL)
    assert current_name(tmp_path) == name
    assert open_version(tmp_path, name).search(known[:1], 1)[0].tolist() == [[1]]
    for whole in versions(tmp_path):
        open_version(tmp_path, whole)
    with building(tmp_path):
        assert versions(tmp_path) == [name]
        assert left_overs(tmp_path) == []


WRITE_WITH_LIMIT = """
import resource, signal, sys
from pathlib import Path
import numpy as np
from index import store
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[2]), resource.RLIM_INFINITY))
ids, features = np.arange(1, 101, dtype=np.int64), np.ones((100, 4096), np.float32)
try:
    store.write_version(Path(sys.argv[1]), weights="w", data="/d", unreadable=0, listing="l",
                        ids=ids, features=features)
except store.StoreError as error:
    print(error)
"""


# 1,639,330 bytes are the vectors, ids and FAISS's header: none, half, and all but the last few.
@pytest.mark.parametrize("room", [0, 800_000, 1_639_000])
def test_a_full_disk_leaves_nothing_behind(
    tmp_path: Path, vectors: Vectors, write: Write, room: int
) -> None:
    assert resource.RLIMIT_FSIZE
    name = write(vectors(3, 1))
    publish(tmp_path, name)
    done = subprocess.run(
        [sys.executable, "-c", WRITE_WITH_LIMIT, str(tmp_path), str(room)],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        check=True,
    )
    assert "cannot be written" in done.stdout
    assert "File too large" in done.stdout
    assert COMMAND in done.stdout
    assert versions(tmp_path) == [name]
    assert left_overs(tmp_path) == []
    assert current_name(tmp_path) == name


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
    file = tmp_path / name / VECTORS
    file.write_bytes(file.read_bytes()[:cut])
    with pytest.raises(StoreError, match=rf"{VECTORS} is damaged.*{COMMAND}"):
        open_version(tmp_path, name)


def test_a_changed_byte_is_told(tmp_path: Path, vectors: Vectors, write: Write) -> None:
    name = write(vectors(5, 1))
    file = tmp_path / name / VECTORS
    data = bytearray(file.read_bytes())
    data[5000] ^= 1
    file.write_bytes(data)
    with pytest.raises(StoreError, match="damaged"):
        open_version(tmp_path, name)


def test_a_missing_file_is_told(tmp_path: Path, vectors: Vectors, write: Write) -> None:
    name = write(vectors(5, 1))
    (tmp_path / name / VECTORS).unlink()
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
    (tmp_path / name / FILE).write_bytes(text.encode("latin-1"))
    with pytest.raises(StoreError, match=COMMAND):
        open_version(tmp_path, name)


@pytest.mark.parametrize("missing", ["weights", "count", "sha256", "largest"])
def test_an_incomplete_manifest_is_told(
    tmp_path: Path, vectors: Vectors, write: Write, missing: str
) -> None:
    name = write(vectors(5, 1))
    file = tmp_path / name / FILE
    values = json.loads(file.read_text())
    del values[missing]
    file.write_text(json.dumps(values))
    with pytest.raises(StoreError, match=f"{missing} is missing"):
        read_manifest(tmp_path / name)


@pytest.mark.parametrize(("change", "age"), [(1, "newer"), (-1, "older")])
def test_another_format_is_told(
    tmp_path: Path, vectors: Vectors, write: Write, change: int, age: str
) -> None:
    name = write(vectors(5, 1))
    file = tmp_path / name / FILE
    file.write_text(json.dumps(json.loads(file.read_text()) | {"format": FORMAT + change}))
    with pytest.raises(StoreError, match=f"of an? {age} version.*{COMMAND}"):
        open_version(tmp_path, name)


def test_a_file_of_other_vectors_is_told(tmp_path: Path, vectors: Vectors, write: Write) -> None:
    import hashlib

    name = write(vectors(5, 1))
    other = faiss.IndexFlatL2(8)
    other.add(np.eye(8, dtype=np.float32))
    file, manifest = tmp_path / name / VECTORS, tmp_path / name / FILE
    faiss.write_index(other, str(file))
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    manifest.write_text(json.dumps(json.loads(manifest.read_text()) | {"sha256": digest}))
    with pytest.raises(StoreError, match=f"not 5 vectors of {FEATURES}"):
        open_version(tmp_path, name)


def test_an_odd_current_is_told(tmp_path: Path, vectors: Vectors, write: Write) -> None:
    (tmp_path / "current").symlink_to("../elsewhere")
    with pytest.raises(StoreError, match=COMMAND):
        current_name(tmp_path)
    (tmp_path / "current").unlink()
    (tmp_path / "current").mkdir()
    with pytest.raises(StoreError, match="remove it"):
        current_name(tmp_path)


def test_a_build_mends_a_link_that_leads_nowhere(
    tmp_path: Path, vectors: Vectors, write: Write
) -> None:
    name = write(vectors(5, 1))
    (tmp_path / "current").symlink_to("../elsewhere")
    with building(tmp_path):
        assert versions(tmp_path) == [name]
        publish(tmp_path, name)
    assert current_name(tmp_path) == name


@pytest.mark.parametrize(
    ("ids", "rows", "said"),
    [
        ([], 0, "nothing to index"),
        ([1, 2], 3, "Every vector"),
        ([2, 1], 2, "must rise"),
        ([1, 1], 2, "must rise"),
    ],
)
def test_bad_ids_are_refused(
    tmp_path: Path, vectors: Vectors, ids: list[int], rows: int, said: str
) -> None:
    with pytest.raises(StoreError, match=said):
        write_version(
            tmp_path,
            weights="w",
            data="d",
            unreadable=0,
            listing="l",
            ids=np.array(ids, np.int64),
            features=vectors(rows, 1),
        )
    assert list(tmp_path.iterdir()) == []


def test_features_that_are_not_finite_are_refused(
    tmp_path: Path, vectors: Vectors, write: Write
) -> None:
    known = vectors(3, 1)
    known[1, 1] = np.nan
    with pytest.raises(StoreError, match=r"train anew"):
        write(known)
    assert list(tmp_path.iterdir()) == []

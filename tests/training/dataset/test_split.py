"""A folder of classes is split once and alike, without a file being moved."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from model.dataset.folder import FolderError, scan_folder
from training.dataset.split import make_split

RunTraining = Callable[..., tuple[str, str]]


@pytest.fixture
def classes(tmp_path: Path) -> Path:
    """Two classes of ten and five photographs, some in folders below."""
    root = tmp_path / "classes"
    for name, count in (("cat", 10), ("dog", 5)):
        for number in range(count):
            file = root / name / ("older" * (number % 2)) / f"{number}.jpg"
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(f"{name} {number}".encode())
    (root / "classes.txt").write_text("cat Tabby\n")
    return root


def read_split(folder: Path) -> tuple[dict[str, bytes], dict[str, bytes]]:
    found = scan_folder(folder)
    return tuple(  # type: ignore[return-value]
        {p.path.split("/", 1)[1]: (folder / p.path).read_bytes() for p in split}
        for split in (found.train, found.val)
    )


@pytest.mark.parametrize(
    ("share", "kept"), [(0.5, {"cat": 5, "dog": 2}), (0.01, {"cat": 1, "dog": 1})]
)
def test_each_class_gives_its_share(
    classes: Path, tmp_path: Path, share: float, kept: dict[str, int]
) -> None:
    train, val = read_split(make_split(classes, share, 0, tmp_path / "splits"))
    everything = {
        path.relative_to(classes).as_posix(): path.read_bytes() for path in classes.rglob("*.jpg")
    }
    assert train | val == everything
    assert not train.keys() & val.keys()
    for name, count in kept.items():
        assert sum(path.startswith(name) for path in val) == count
    labels = [
        c.label for c in scan_folder(make_split(classes, share, 0, tmp_path / "splits")).classes
    ]
    assert labels == ["Tabby", "dog"]


def test_the_seed_decides_and_nothing_else(classes: Path, tmp_path: Path) -> None:
    first = read_split(make_split(classes, 0.5, 0, tmp_path / "splits"))
    copy = shutil.copytree(classes, tmp_path / "elsewhere/classes")
    assert read_split(make_split(copy, 0.5, 0, tmp_path / "others")) == first
    assert read_split(make_split(classes, 0.5, 1, tmp_path / "splits")) != first


def test_a_split_is_kept_and_follows_what_is_added(classes: Path, tmp_path: Path) -> None:
    folder = make_split(classes, 0.4, 0, tmp_path / "splits")
    made = folder.stat().st_ino
    assert make_split(classes, 0.4, 0, tmp_path / "splits").stat().st_ino == made
    (classes / "cat/new.jpg").write_bytes(b"new")
    assert make_split(classes, 0.4, 0, tmp_path / "splits") == folder
    train, val = read_split(folder)
    assert (train | val)["cat/new.jpg"] == b"new"


def test_what_cannot_be_split_is_refused(classes: Path, tmp_path: Path) -> None:
    splits = tmp_path / "splits"
    (classes / "eel").mkdir()
    (classes / "eel/1.jpg").write_bytes(b"alone")
    with pytest.raises(FolderError, match="eel holds 1 photographs; --split needs two"):
        make_split(classes, 0.5, 0, splits)
    (classes / "train").mkdir()
    with pytest.raises(FolderError, match="train and val already; leave --split out"):
        make_split(classes, 0.5, 0, splits)
    with pytest.raises(FolderError, match="does not exist"):
        make_split(tmp_path / "nothing", 0.5, 0, splits)
    assert not list(splits.glob("[!.]*"))


def test_training_takes_a_folder_of_classes(
    run_training: RunTraining, photographs: Path, tmp_path: Path
) -> None:
    root, home = tmp_path / "flat", tmp_path / "home"
    shutil.copytree(photographs / "train", root)
    words = ["--data", root, "--variant", "cifar", "--batch", "4", "--epochs", "1"]
    _, errors = run_training(home, *words, code=2)
    assert "<class>/* with --split" in errors
    _, errors = run_training(home, *words, "--split", "1.5", code=2)
    assert "--split cannot be 1.5" in errors
    out, _ = run_training(home, *words, "--split", "0.25")
    assert "18 photographs of 3 classes, 6 for validation" in out
    (weights,) = home.glob("runs/*/weights.safetensors")
    assert weights.stat().st_size

"""What --data may name."""

from pathlib import Path

import pytest

from model.dataset.folder import FolderError, ImageFolder
from training.dataset.find_source import (
    DataError,
    count_expected_photographs,
    describe_source,
    find_source,
)
from training.dataset.shards import Shards


def test_a_folder_of_photographs(photographs: Path, folder: ImageFolder) -> None:
    source = find_source(str(photographs))
    assert source == folder
    assert describe_source(source) == "24 photographs of 3 classes, 12 for validation"
    assert count_expected_photographs(source) == 36


def test_a_folder_of_shards_in_order(tmp_path: Path) -> None:
    for name in ("train-1.tar", "train-0.tar", "val-0.tar", "train-2.txt", "test-0.tar"):
        (tmp_path / name).touch()
    source = find_source(str(tmp_path))
    assert isinstance(source, Shards)
    assert source.train == (str(tmp_path / "train-0.tar"), str(tmp_path / "train-1.tar"))
    assert source.val == (str(tmp_path / "val-0.tar"),)
    assert source.classes == ()
    assert describe_source(source) == "2 tar shards, 1 for validation"
    assert count_expected_photographs(source) is None


def test_a_pattern_of_paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("a-train-00.tar", "a-train-01.tar", "a-val-00.tar", "a-val-01.tar"):
        (tmp_path / name).touch()
    monkeypatch.chdir(tmp_path)
    source = find_source("a-{split}-{00..01}.tar")
    assert isinstance(source, Shards)
    assert source.train == (str(tmp_path / "a-train-00.tar"), str(tmp_path / "a-train-01.tar"))
    with pytest.raises(DataError, match=r"a-train-02\.tar"):
        find_source("a-{split}-{00..02}.tar")


def test_a_pattern_of_urls() -> None:
    source = find_source("https://host/d/{split}/{8..10}.tar")
    assert isinstance(source, Shards)
    assert source.root == "https://host/d/{split}/{8..10}.tar"
    assert source.val[1:] == ("https://host/d/val/9.tar", "https://host/d/val/10.tar")


def test_the_two_splits_may_have_other_numbers() -> None:
    source = find_source("http://host/v/{train-{000..640},val-{00..24}}.tar")
    assert isinstance(source, Shards)
    assert (len(source.train), len(source.val)) == (641, 25)
    assert source.train[640] == "http://host/v/train-640.tar"
    assert source.val[3] == "http://host/v/val-03.tar"


def test_shards_of_one_split_are_not_enough(tmp_path: Path) -> None:
    (tmp_path / "train-0.tar").touch()
    with pytest.raises(DataError, match=r"holds shards, but no val-\*\.tar"):
        find_source(str(tmp_path))


def test_what_cannot_serve_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(DataError, match="file is a file"):
        find_source(str(tmp_path / "file"))
    with pytest.raises(FolderError, match="does not exist"):
        find_source(str(tmp_path / "absent"))
    with pytest.raises(DataError, match=r"val.*\{split\}"):
        find_source("http://host/train-{0..9}.tar")
    with pytest.raises(DataError, match="braces"):
        find_source("http://host/{split}-{0..9.tar")


def test_a_path_is_never_taken_for_a_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DataError, match=r"shard .*\.tar"):
        find_source("pipe:touch {split}.tar")
    (tmp_path / "pipe:touch train.tar").touch()
    (tmp_path / "pipe:touch val.tar").touch()
    source = find_source("pipe:touch {split}.tar")
    with pytest.raises(DataError, match="is damaged"):
        list(source.read_samples("train", 0))  # type: ignore[union-attr]
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "pipe:touch train.tar",
        "pipe:touch val.tar",
    ]


@pytest.mark.parametrize("scheme", ["pipe:curl http://h/", "file:///", "s3://b/", "ftp://h/"])
def test_commands_and_unknown_schemes_are_not_run(scheme: str) -> None:
    with pytest.raises(DataError, match="http, https"):
        find_source(f"{scheme}{{split}}.tar")

"""Corrections: listed, exported, applied to a folder of links, and taken back."""

import hashlib
from pathlib import Path

import pytest
from PIL import Image

from app.review.apply import apply_corrections, list_links, revert_corrections
from app.review.correction_list import (
    format_corrections_csv,
    format_corrections_json,
    read_correction_list,
)
from app.review.corrections import CorrectionError, ListedCorrection


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two classes in train and val; one file name is in both classes."""
    root = tmp_path / "photographs"
    for n, name in enumerate(
        ("train/cat/a.jpg", "train/cat/b.jpg", "train/dog/a.jpg", "val/cat/c.jpg", "val/dog/d.jpg")
    ):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (9, 9), (40 * n, 0, 0)).save(root / name)
    (root / "classes.txt").write_text("cat a cat\ndog a dog\n")
    return root


def correct(folder: Path, file: str, action: str, to: str = "", note: str = "") -> ListedCorrection:
    sha256 = hashlib.sha256((folder / file).read_bytes()).hexdigest()
    return ListedCorrection(
        file=file, sha256=sha256, action=action, label=file.split("/")[1], to=to, note=note
    )


def snapshot(folder: Path) -> dict[str, tuple[bytes, int]]:
    return {
        str(f.relative_to(folder)): (f.read_bytes(), f.lstat().st_mtime_ns)
        for f in folder.rglob("*")
        if f.is_file()
    }


def test_apply_and_its_reverse_give_the_same_folder(folder: Path, tmp_path: Path) -> None:
    before = snapshot(folder)
    corrections = [
        correct(folder, "train/cat/a.jpg", "relabel", "dog"),  # a.jpg is taken there
        correct(folder, "train/cat/b.jpg", "note", note="blurred"),
        correct(folder, "val/dog/d.jpg", "drop"),
    ]
    done = apply_corrections(corrections, folder, tmp_path / "new")
    made = list_links_of(tmp_path / "new")
    assert made == {
        "train/cat/b.jpg": folder / "train/cat/b.jpg",
        "train/dog/a.jpg": folder / "train/dog/a.jpg",
        "train/dog/a-2.jpg": folder / "train/cat/a.jpg",
        "val/cat/c.jpg": folder / "val/cat/c.jpg",
    }
    assert done.emptied == ["val/dog"]
    assert (tmp_path / "new/classes.txt").read_text() == (folder / "classes.txt").read_text()
    assert all(f.is_symlink() for f in (tmp_path / "new/train").rglob("*.jpg"))
    # Put the class back that was emptied in val, as a person would have to for a training run.
    assert revert_corrections_of_album(tmp_path, folder) == list_links(folder)
    assert snapshot(folder) == before


def list_links_of(folder: Path) -> dict[str, Path]:
    return {str(f.relative_to(folder)): f.resolve() for f in folder.rglob("*.jpg")}


def revert_corrections_of_album(tmp_path: Path, folder: Path) -> dict[str, Path]:
    revert_corrections(tmp_path / "new", tmp_path / "back")
    assert not (tmp_path / "back/corrections.json").exists()
    return list_links(tmp_path / "back")


def test_an_album_moves_a_photograph_into_the_named_folder(tmp_path: Path) -> None:
    for name in ("trips/2020/x.jpg", "trips/2021/y.jpg"):
        (tmp_path / "album" / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (5, 5)).save(tmp_path / "album" / name)
    sha256 = hashlib.sha256((tmp_path / "album/trips/2020/x.jpg").read_bytes()).hexdigest()
    one = ListedCorrection(
        file="trips/2020/x.jpg", sha256=sha256, action="relabel", label="trips/2020",
        to="trips/2021",
    )  # fmt: skip
    apply_corrections([one], tmp_path / "album", tmp_path / "new")
    assert set(list_links_of(tmp_path / "new")) == {"trips/2021/x.jpg", "trips/2021/y.jpg"}
    revert_corrections(tmp_path / "new", tmp_path / "back")
    assert list_links(tmp_path / "back") == list_links(tmp_path / "album")


def test_nothing_is_made_where_a_photograph_has_changed(folder: Path, tmp_path: Path) -> None:
    one = correct(folder, "train/cat/a.jpg", "drop")
    Image.new("RGB", (9, 9), "blue").save(folder / "train/cat/a.jpg")
    with pytest.raises(CorrectionError, match="has changed"):
        apply_corrections([one], folder, tmp_path / "new")
    (folder / "train/cat/a.jpg").unlink()
    with pytest.raises(CorrectionError, match="not in the folder"):
        apply_corrections([one], folder, tmp_path / "new")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["photographs"]


@pytest.mark.parametrize("place", ["photographs/inside", "photographs", "."])
def test_no_folder_that_exists_or_lies_inside_is_written(
    folder: Path, tmp_path: Path, place: str
) -> None:
    before = snapshot(tmp_path)
    with pytest.raises(CorrectionError):
        apply_corrections([], folder, tmp_path / place)
    assert snapshot(tmp_path) == before


@pytest.mark.parametrize("write", [format_corrections_csv, format_corrections_json])
def test_a_list_that_is_exported_is_read_as_it_was(write, folder: Path, tmp_path: Path) -> None:
    listed = [
        correct(folder, "train/cat/a.jpg", "relabel", "dog", note='=1+1, "odd"; naïve'),
        correct(folder, "val/dog/d.jpg", "drop"),
    ]
    (tmp_path / "list").write_text(write(listed), encoding="utf-8")
    assert read_correction_list(tmp_path / "list") == listed
    if write is format_corrections_csv:
        assert ",=1" not in (tmp_path / "list").read_text()  # no formula for a spreadsheet


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("file,action\na,drop\n", "first line"),
        ('{"format": 1}', "not a list"),
        ("{", "JSON"),
        ("file,sha256,action,label,to,note\n../x,0,drop,a,,\n", "correction 1"),
        ("file,sha256,action,label,to,note\n/x,0,drop,a,,\n", "inside the folder"),
        ("file,sha256,action,label,to,note\nx,0,erase,a,,\n", "action"),
        ("file,sha256,action,label,to,note\nx,0,relabel,a,../b,\n", "to"),
        ("file,sha256,action,label,to,note\nx,0,drop,a,,\nx,0,drop,a,,\n", "twice"),
        ('{"format": 1, "corrections": [{"file": 3, "action": "drop"}]}', "text"),
    ],
)
def test_a_list_that_makes_no_sense_is_refused(text: str, named: str, tmp_path: Path) -> None:
    (tmp_path / "list").write_text(text)
    with pytest.raises(CorrectionError, match=named):
        read_correction_list(tmp_path / "list")


def test_only_a_folder_that_was_corrected_can_be_reverted(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(CorrectionError, match="was not made by"):
        revert_corrections(folder, tmp_path / "back")

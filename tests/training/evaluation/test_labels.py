"""Photographs are found in three layouts, and their classes by name, never by position."""

from pathlib import Path

import pytest

from model.dataset.folder import ClassName, FolderError, read_wordnet_labels
from training.evaluation.labels import find_photographs, match_classes, match_names

TEN = (ClassName("n01440764", "tench"), ClassName("n02102040", "English springer"))


def files(root: Path, *paths: str) -> Path:
    for path in paths:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(b"not looked into")
    return root


def test_a_split_goes_before_class_folders(tmp_path: Path) -> None:
    root = files(tmp_path, "val/b/2.png", "val/b/1.JPG", "val/a/x.webp", "train/a/y.jpg", "a/z.jpg")
    found = find_photographs(root, "val")
    assert found.layout == "split"
    assert found.by_class == {"a": ("val/a/x.webp",), "b": ("val/b/1.JPG", "val/b/2.png")}
    assert find_photographs(root, "train").by_class == {"a": ("train/a/y.jpg",)}


def test_class_folders_may_lie_in_the_folder_itself(tmp_path: Path) -> None:
    root = files(tmp_path, "a/1.jpg", "a/.hidden.jpg", "a/notes.txt", ".thumbs/1.jpg", "b/2.jpg")
    found = find_photographs(root, "val")
    assert (found.layout, found.by_class) == ("folders", {"a": ("a/1.jpg",), "b": ("b/2.jpg",)})


def test_files_may_begin_with_their_wordnet_id(tmp_path: Path) -> None:
    root = files(
        tmp_path, "n01440764_tench.JPEG", "n01440764_10026.JPEG", "n02102040_x.JPEG", "x.jpg"
    )
    found = find_photographs(root, "val")
    assert found.layout == "files"
    assert found.by_class == {
        "n01440764": ("n01440764_10026.JPEG", "n01440764_tench.JPEG"),
        "n02102040": ("n02102040_x.JPEG",),
    }


def test_what_is_no_set_of_photographs_is_said(tmp_path: Path) -> None:
    with pytest.raises(FolderError, match="does not exist"):
        find_photographs(tmp_path / "none", "val")
    with pytest.raises(FolderError, match="is a file, not a folder"):
        find_photographs(files(tmp_path, "file") / "file", "val")
    with pytest.raises(FolderError, match="holds no photographs"):
        find_photographs(tmp_path, "val")


def test_the_position_of_a_folder_says_nothing(tmp_path: Path) -> None:
    root = files(tmp_path, "b/1.jpg", "a/1.jpg", "zebra/1.jpg", "zebra/2.jpg")
    classes = [ClassName(name, name) for name in ("c", "b", "x", "a")]
    matched = match_classes(find_photographs(root, "val"), classes)
    assert [(p.path, p.class_index) for p in matched.photographs] == [
        ("a/1.jpg", 3),
        ("b/1.jpg", 1),
    ]
    assert matched.unknown == {"zebra": 2}


def test_ten_folders_are_found_among_a_thousand_classes() -> None:
    thousand = [ClassName(*pair) for pair in read_wordnet_labels().items()]
    # The positions that ILSVRC-2012 gives these in its 1000 classes.
    assert match_names(["n03888257", "n01440764"], thousand) == {"n03888257": 701, "n01440764": 0}
    assert match_names(["Parachute", "english_springer"], thousand) == {
        "Parachute": 701,
        "english_springer": 217,
    }


def test_names_labels_and_ids_meet_whatever_their_case(tmp_path: Path) -> None:
    assert match_names(["TENCH", "English_Springer"], TEN) == {"TENCH": 0, "English_Springer": 1}
    by_label = (ClassName("english springer", "english springer"), ClassName("tench", "tench"))
    assert match_names(["n01440764", "n02102040"], by_label) == {"n01440764": 1, "n02102040": 0}
    (tmp_path / "classes.txt").write_text("0 English springer\n1 tench\n")
    assert match_names(["0", "1"], TEN, tmp_path) == {"0": 1, "1": 0}


def test_a_name_that_means_two_classes_is_left_out() -> None:
    # Of the 1000, "cardigan" is a garment and a dog; their ids tell them apart.
    thousand = [ClassName(*pair) for pair in read_wordnet_labels().items()]
    assert match_names(["cardigan", "n02963159"], thousand) == {"n02963159": 474}


def test_nothing_known_and_an_empty_class_are_errors(tmp_path: Path) -> None:
    with pytest.raises(FolderError, match=r"\(zebra\)"):
        match_classes(find_photographs(files(tmp_path, "zebra/1.jpg"), "val"), TEN)
    (tmp_path / "tench").mkdir()
    with pytest.raises(FolderError, match=r"the class folder tench .* holds no photographs"):
        match_classes(find_photographs(tmp_path, "val"), TEN)

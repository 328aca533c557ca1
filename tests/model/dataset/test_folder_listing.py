"""Which files of a folder are photographs, what is passed over, and what its classes are called."""

from pathlib import Path

import pytest

from model.dataset.folder import FolderError, ImageFolder, describe_passed_over, scan_folder


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Two classes with a photograph each; only names are looked at."""
    for split in ("train", "val"):
        for name in ("golden", "tabby cat"):
            (tmp_path / split / name).mkdir(parents=True)
            (tmp_path / split / name / "0.jpg").touch()
    return tmp_path


def train_paths(found: ImageFolder) -> list[str]:
    return [photograph.path for photograph in found.train]


def test_rarer_suffixes_of_jpeg_are_taken_in_either_case(root: Path) -> None:
    for name in ("a.JPG", "b.jfif", "c.JPE", "d.pjpeg", "e.WebP"):
        (root / "train/golden" / name).touch()
    names = [path.rpartition("/")[2] for path in train_paths(scan_folder(root))]
    assert names == ["0.jpg", "a.JPG", "b.jfif", "c.JPE", "d.pjpeg", "e.WebP", "0.jpg"]


def test_photographs_in_folders_below_a_class_belong_to_it(root: Path) -> None:
    (root / "train/golden/2019/may").mkdir(parents=True)
    (root / "train/golden/2019/may/x.png").touch()
    found = scan_folder(root)
    assert train_paths(found)[:2] == ["train/golden/0.jpg", "train/golden/2019/may/x.png"]
    assert [p.class_index for p in found.train] == [0, 0, 1]


@pytest.mark.parametrize("name", ["@eaDir", "__MACOSX", ".ipynb_checkpoints", "lost+found"])
def test_folders_that_servers_and_archives_add_are_ignored(root: Path, name: str) -> None:
    for place in (root / "train", root / "train/golden"):
        (place / name).mkdir()
        (place / name / "thumb.jpg").touch()
    assert train_paths(scan_folder(root)) == ["train/golden/0.jpg", "train/tabby cat/0.jpg"]


def test_other_files_are_counted_by_suffix(root: Path) -> None:
    for name in ("a.cr2", "b.CR2", "notes.txt", "README", ".hidden.xml"):
        (root / "train/golden" / name).touch()
    (root / "val/golden/c.cr2").touch()
    found = scan_folder(root)
    assert dict(found.passed_over) == {".cr2": 3, ".txt": 1, "": 1}
    said = describe_passed_over(found.passed_over)
    assert said == "passed over 1 without a suffix, 3 .cr2, 1 .txt"
    (root / "train/golden/0.jpg").unlink()
    with pytest.raises(FolderError, match=r"golden holds no photographs .*2 \.cr2"):
        scan_folder(root)


@pytest.mark.parametrize(
    ("text", "labels"),
    [
        ("golden\ntabby cat\n", ["golden", "tabby cat"]),
        ("golden golden retriever\ntabby cat Tabby\n", ["golden retriever", "Tabby"]),
        ("golden,Gold\ntabby cat: Katze\n", ["Gold", "Katze"]),
        ("# a comment\ntabby cat Tabby\nlion King\n", ["golden", "Tabby"]),
        ("golden retriever\n", ["retriever", "tabby cat"]),
    ],
)
def test_labels_of_folders_of_one_and_two_words(root: Path, text: str, labels: list[str]) -> None:
    (root / "classes.txt").write_text(text)
    assert [name.label for name in scan_folder(root).classes] == labels


def test_wordnet_ids_keep_their_labels_beside_others(tmp_path: Path) -> None:
    for split in ("train", "val"):
        for name in ("n01440764", "n02102040"):
            (tmp_path / split / name).mkdir(parents=True)
            (tmp_path / split / name / "0.jpg").touch()
    for text, labels in (
        ("n01440764\nn02102040\n", ["tench", "English springer"]),
        ("n01440764 my tench\n", ["my tench", "English springer"]),
    ):
        (tmp_path / "classes.txt").write_text(text)
        assert [name.label for name in scan_folder(tmp_path).classes] == labels

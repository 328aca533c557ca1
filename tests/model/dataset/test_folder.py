"""A folder of photographs as it is found on disk: which files, which classes, which labels."""

import shutil
from pathlib import Path

import pytest

from model.dataset.folder import (
    ClassName,
    FolderError,
    Photograph,
    read_wordnet_labels,
    scan_folder,
    scan_photographs,
)


def photograph(root: Path, *paths: str) -> None:
    for path in paths:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(b"listed without being read")


@pytest.fixture
def pets(tmp_path: Path) -> Path:
    photograph(tmp_path, "train/dog/2.jpg", "train/dog/1.png", "train/cat/1.webp")
    photograph(tmp_path, "val/cat/9.jpeg", "val/dog/9.jpeg")
    return tmp_path


def test_classes_are_the_folders_in_order_and_files_are_in_order_too(pets: Path) -> None:
    folder = scan_folder(pets)
    assert folder.root == pets
    assert folder.classes == (ClassName("cat", "cat"), ClassName("dog", "dog"))
    assert folder.train == (
        Photograph("train/cat/1.webp", 0),
        Photograph("train/dog/1.png", 1),
        Photograph("train/dog/2.jpg", 1),
    )
    assert folder.val == (Photograph("val/cat/9.jpeg", 0), Photograph("val/dog/9.jpeg", 1))


def test_every_path_leads_from_the_root_to_a_file(pets: Path) -> None:
    folder = scan_folder(pets)
    assert all((folder.root / item.path).is_file() for item in folder.train + folder.val)


def test_the_root_may_be_given_relative_and_is_kept_absolute(
    pets: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(pets.parent)
    assert scan_folder(Path(pets.name)) == scan_folder(pets)


def test_other_files_and_hidden_ones_are_passed_over(pets: Path) -> None:
    before = scan_folder(pets)
    photograph(pets, "train/dog/notes.txt", "train/dog/._1.jpg", "train/.thumbnails/1.jpg")
    photograph(pets, "train/dog/folder.jpg/inside.txt", "train/README.md", "train/dog/jpg")
    (pets / "train/dog/gone.jpg").symlink_to(pets / "nowhere.jpg")
    found = scan_folder(pets)
    assert (found.train, found.val, found.classes) == (before.train, before.val, before.classes)
    # Counted are those in the folders of classes that are not hidden.
    assert found.passed_over == (("", 1), (".txt", 2))


def test_suffixes_count_in_any_case(pets: Path) -> None:
    photograph(pets, "train/cat/A.JPG", "train/cat/B.JPEG", "train/cat/C.Png", "train/cat/D.WEBP")
    names = [item.path for item in scan_folder(pets).train if item.class_index == 0]
    assert names == [
        f"train/cat/{name}" for name in ("1.webp", "A.JPG", "B.JPEG", "C.Png", "D.WEBP")
    ]


def test_files_and_folders_may_be_links(
    pets: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    photograph(elsewhere, "birds/1.jpg")
    (pets / "train/bird").symlink_to(elsewhere / "birds", target_is_directory=True)
    (pets / "val/bird").symlink_to(elsewhere / "birds", target_is_directory=True)
    assert [item.folder for item in scan_folder(pets).classes] == ["bird", "cat", "dog"]


def test_wordnet_ids_are_read_as_their_names(tmp_path: Path) -> None:
    """Three of the ten classes of Imagenette, and the first and the last of the thousand."""
    names = {
        "n01440764": "tench",
        "n02102040": "English springer",
        "n03445777": "golf ball",
        "n15075141": "toilet tissue",
        "my-own": "my-own",
    }
    for name in names:
        photograph(tmp_path, f"train/{name}/1.jpg", f"val/{name}/1.jpg")
    assert {item.folder: item.label for item in scan_folder(tmp_path).classes} == names


def test_the_thousand_wordnet_ids_have_a_thousand_names() -> None:
    labels = read_wordnet_labels()
    assert len(labels) == 1000
    assert list(labels) == sorted(labels)
    assert all(len(name) == 9 and name[0] == "n" and name[1:].isdigit() for name in labels)


def test_a_classes_file_names_the_classes(pets: Path) -> None:
    text = "\ufeff# made by hand\n\ndog   a good dog\ncat:\tchat à poils longs\nfish goldfish\n"
    (pets / "classes.txt").write_text(text, encoding="utf-8")
    assert scan_folder(pets).classes == (
        ClassName("cat", "chat à poils longs"),
        ClassName("dog", "a good dog"),
    )


def test_a_class_that_the_classes_file_leaves_out_keeps_its_folders_name(pets: Path) -> None:
    (pets / "classes.txt").write_text("dog hound\ncat\n")
    assert [item.label for item in scan_folder(pets).classes] == ["cat", "hound"]


def test_a_classes_file_that_is_no_text_is_refused(pets: Path) -> None:
    (pets / "classes.txt").write_bytes(b"dog \xff\xfe\n")
    with pytest.raises(FolderError, match=r"classes\.txt.*UTF-8"):
        scan_folder(pets)


def test_a_folder_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(FolderError, match=f"{tmp_path}/absent/train does not exist.*train/<class>"):
        scan_folder(tmp_path / "absent")


def test_a_file_in_the_place_of_the_folder_is_named(tmp_path: Path) -> None:
    photograph(tmp_path, "train")
    with pytest.raises(FolderError, match="train is a file, not a folder"):
        scan_folder(tmp_path)


def test_a_set_without_validation_images_is_refused(tmp_path: Path) -> None:
    photograph(tmp_path, "train/cat/1.jpg", "train/dog/1.jpg")
    with pytest.raises(FolderError, match="val does not exist"):
        scan_folder(tmp_path)


def test_images_that_lie_outside_class_folders_are_explained(tmp_path: Path) -> None:
    photograph(tmp_path, "train/1.jpg", "val/1.jpg")
    with pytest.raises(FolderError, match="train holds no class folders"):
        scan_folder(tmp_path)


SOLUTION = """ImageId,PredictionString
ILSVRC2012_val_00000001,n01443537 10 20 300 400 n01443537 1 2 3 4
ILSVRC2012_val_00000002,n01440764 10 20 300 400
ILSVRC2012_val_00000003,n01443537 0 0 9 9
"""
FISH = (ClassName("n01440764", "tench"), ClassName("n01443537", "goldfish"))


@pytest.fixture
def kaggle(tmp_path: Path) -> Path:
    """What Kaggle's archive unpacks to, with two classes."""
    images = "ILSVRC/Data/CLS-LOC"
    for wnid in ("n01443537", "n01440764"):
        photograph(tmp_path, f"{images}/train/{wnid}/{wnid}_7.JPEG")
    for number in (1, 2, 3):
        photograph(tmp_path, f"{images}/val/ILSVRC2012_val_0000000{number}.JPEG")
    photograph(tmp_path, f"{images}/test/ILSVRC2012_test_00000001.JPEG")
    (tmp_path / "LOC_val_solution.csv").write_text(SOLUTION)
    return tmp_path


@pytest.mark.parametrize("scan", [scan_folder, scan_photographs])
def test_kaggles_archive_is_read_where_it_was_unpacked(kaggle: Path, scan) -> None:
    images = "ILSVRC/Data/CLS-LOC"
    for root, inside in ((kaggle, f"{images}/"), (kaggle / images, "")):
        folder = scan(root)
        assert folder.classes == FISH
        assert folder.train == (
            Photograph(f"{inside}train/n01440764/n01440764_7.JPEG", 0),
            Photograph(f"{inside}train/n01443537/n01443537_7.JPEG", 1),
        )
        assert folder.val == (
            Photograph(f"{inside}val/ILSVRC2012_val_00000002.JPEG", 0),
            Photograph(f"{inside}val/ILSVRC2012_val_00000001.JPEG", 1),
            Photograph(f"{inside}val/ILSVRC2012_val_00000003.JPEG", 1),
        )
        assert all((root / one.path).is_file() for one in (*folder.train, *folder.val))


def test_images_that_kaggles_solution_does_not_know_are_named(kaggle: Path) -> None:
    val = kaggle / "ILSVRC/Data/CLS-LOC/val"
    photograph(val, "ILSVRC2012_val_00000009.JPEG")
    with pytest.raises(FolderError, match=r"00000009\.JPEG.*it is not in LOC_val_solution\.csv"):
        scan_folder(kaggle)
    (kaggle / "LOC_val_solution.csv").write_text("name,class\n1,2\n")
    with pytest.raises(FolderError, match=r"LOC_val_solution\.csv is not Kaggle's"):
        scan_folder(kaggle)
    (kaggle / "LOC_val_solution.csv").unlink()
    with pytest.raises(FolderError, match="there is no LOC_val_solution"):
        scan_folder(kaggle)


def test_images_whose_names_end_in_their_class_need_no_folders(tmp_path: Path) -> None:
    photograph(tmp_path, "train/n01440764_10026_n01440764.JPEG", "train/n01443537_2_n01443537.JPEG")
    photograph(tmp_path, "val/ILSVRC2012_val_00000002_n01443537.JPEG")
    photograph(tmp_path, "val/ILSVRC2012_val_00000009_n01440764.JPEG")
    folder = scan_folder(tmp_path)
    assert folder.classes == FISH
    assert [p.class_index for p in (*folder.train, *folder.val)] == [0, 1, 0, 1]
    assert folder.val[0].path == "val/ILSVRC2012_val_00000009_n01440764.JPEG"
    (tmp_path / folder.val[0].path).unlink()
    with pytest.raises(FolderError, match="only train has n01440764"):
        scan_folder(tmp_path)


def test_one_class_is_too_few(tmp_path: Path) -> None:
    photograph(tmp_path, "train/cat/1.jpg", "val/cat/1.jpg")
    with pytest.raises(FolderError, match="one class, cat; at least two"):
        scan_folder(tmp_path)


def test_a_class_without_photographs_is_named(pets: Path) -> None:
    photograph(pets, "train/eel/notes.txt", "val/eel/1.jpg")
    with pytest.raises(FolderError, match=r"train/eel holds no photographs.*\.jpg"):
        scan_folder(pets)


def test_classes_that_differ_between_the_two_are_named(pets: Path) -> None:
    photograph(pets, "train/eel/1.jpg", "val/fox/1.jpg")
    with pytest.raises(FolderError, match="only train has eel; only val has fox"):
        scan_folder(pets)


def test_an_index_needs_no_validation_images_of_every_class(pets: Path) -> None:
    photograph(pets, "train/eel/1.jpg")
    with pytest.raises(FolderError, match="only train has eel"):
        scan_folder(pets)
    folder = scan_photographs(pets)
    assert folder == scan_folder(pets, val_may_lack_classes=True)
    names = [known.folder for known in folder.classes]
    assert [names[item.class_index] for item in folder.train if "eel" in item.path] == ["eel"]
    for split in (folder.train, folder.val):
        assert all(item.path.split("/")[1] == names[item.class_index] for item in split)
    photograph(pets, "val/fox/1.jpg")
    with pytest.raises(FolderError, match="only val has fox"):
        scan_photographs(pets)


def test_photographs_in_any_arrangement_are_a_training_set(tmp_path: Path) -> None:
    album = tmp_path / "album"
    photograph(album, "b.jpg", "a.png", "2011/rome/1.jpg", "2011/2.jpg", "notes.txt")
    photograph(album, ".hidden/3.jpg", "2011/._4.jpg", "empty/list.txt")
    folder = scan_photographs(album)
    assert [known.folder for known in folder.classes] == ["album", "2011", "2011/rome"]
    assert folder.train == (
        Photograph("a.png", 0),
        Photograph("b.jpg", 0),
        Photograph("2011/2.jpg", 1),
        Photograph("2011/rome/1.jpg", 2),
    )
    assert folder.val == ()


def test_a_folder_with_train_and_val_is_read_as_ever(pets: Path) -> None:
    assert scan_photographs(pets) == scan_folder(pets)
    shutil.rmtree(pets / "train")
    with pytest.raises(FolderError, match="train does not exist"):
        scan_photographs(pets)


def test_a_folder_without_photographs_is_named(tmp_path: Path) -> None:
    photograph(tmp_path, "notes.txt", "file")
    with pytest.raises(FolderError, match="holds no photographs"):
        scan_photographs(tmp_path)
    for name, said in (("absent", "does not exist"), ("file", "is a file, not a folder")):
        with pytest.raises(FolderError, match=said):
            scan_photographs(tmp_path / name)

"""Zips of photographs: how their folders are read, and which are refused, each in one sentence."""

import io
import stat
import struct
import zipfile
from collections.abc import Callable
from typing import Any

import pytest
from PIL import Image

from app.classroom.datasets import DatasetError, make_dataset, read_dataset
from app.classroom.zip_file import read_zip
from model.dataset.folder import scan_folder
from model.image.decode import decode_image
from storage.home import Home

LIMITS = {"max_bytes": 400_000, "max_file_bytes": 100_000}
QUOTA = 10**6


def draw(colour: int) -> bytes:
    """A small photograph of one colour."""
    out = io.BytesIO()
    Image.new("RGB", (40, 30), (colour, 80, 120)).save(out, "JPEG")
    return out.getvalue()


@pytest.fixture
def make(tmp_path, make_zip) -> Callable[..., Any]:
    """Makes a data set of a zip's files, or of its bytes."""

    def make(files: Any, name: str = "fruit", **changes: Any) -> Any:
        data = files if isinstance(files, bytes) else make_zip(files)
        incoming = read_zip(io.BytesIO(data), **LIMITS)
        quota = changes.get("quota", QUOTA)
        return make_dataset(Home(root=tmp_path), name, incoming, check, quota)

    return make


def check(data: bytes) -> None:
    decode_image(data)


def classes_of(counts: dict[str, int], prefix: str = "") -> dict[str, bytes]:
    """The files of classes with so many photographs."""
    return {
        f"{prefix}{label}/{n}.jpg": draw(10 * n)
        for label, count in counts.items()
        for n in range(count)
    }


@pytest.mark.parametrize("prefix", ["", "fruit/", "./fruit/"])
def test_a_folder_per_class_becomes_a_data_set_that_training_can_read(make, prefix) -> None:
    made = make(classes_of({"apple": 10, "pear tree": 2}, prefix))
    assert (made.classes, made.counts) == (("apple", "pear tree"), [10, 2])
    listed = scan_folder(made.folder)
    assert [name.folder for name in listed.classes] == ["apple", "pear tree"]
    assert [len(listed.train), len(listed.val)] == [8 + 1, 2 + 1]
    # The last ones validate: the same bytes as were sent.
    last = [photograph.path for photograph in listed.val][1]
    assert (made.folder / last).read_bytes() == draw(90)


def test_train_and_val_of_the_zip_are_kept(make) -> None:
    files = classes_of({"a": 3, "b": 2}, "set/train/") | classes_of({"a": 1, "b": 4}, "set/val/")
    listed = scan_folder(make(files).folder)
    assert (len(listed.train), len(listed.val)) == (5, 5)


def test_what_is_no_photograph_is_passed_over_by_name(make) -> None:
    files = classes_of({"a": 2, "b": 2}) | {
        "__MACOSX/a/._0.jpg": b"x",
        "a/.DS_Store": b"x",
        ".git/b.jpg": draw(1),
        "a/notes.txt": b"x",
        "b/broken.jpg": draw(1)[:200],
    }
    made = make(files)
    assert made.counts == [2, 2]
    assert made.passed_over.count == 5
    assert {name.partition(":")[0] for name in made.passed_over.names} == files.keys() - classes_of(
        {"a": 2, "b": 2}
    ).keys()


def test_names_that_macos_writes_without_saying_they_are_utf8(make, make_zip) -> None:
    data = make_zip(classes_of({"Äpfel": 2, "b": 2}))
    flagged = struct.pack("<H", 0x800)
    mangled = data.replace(b"PK\3\4\x14\0" + flagged, b"PK\3\4\x14\0\0\0")
    mangled = mangled.replace(b"PK\1\2\x14\3\x14\0" + flagged, b"PK\1\2\x14\3\x14\0\0\0")
    assert mangled != data
    assert "Äpfel" in make(mangled).classes


def link(name: str) -> zipfile.ZipInfo:
    """An entry that is a symbolic link."""
    info = zipfile.ZipInfo(name)
    info.external_attr = (stat.S_IFLNK | 0o777) << 16
    return info


GOOD = classes_of({"a": 2, "b": 2})
HOSTILE = {
    "up": GOOD | {"a/../../../x.jpg": draw(1)},
    "absolute": GOOD | {"/etc/x.jpg": draw(1)},
    "drive": GOOD | {"C:/x.jpg": draw(1)},
    "backslash": GOOD | {"a\\..\\x.jpg": draw(1)},
    "link": GOOD | {link("a/x.jpg"): b"/etc/passwd"},
    "ignored but outside": GOOD | {"__MACOSX/../../x": b""},
    "bomb": GOOD | {"a/zeros.bin": bytes(300_000)},
    "large file": GOOD | {"a/x.jpg": draw(1) + bytes(range(256)) * 500},
    "large": GOOD | {f"a/{n}.bin": bytes(range(256)) * 300 for n in range(6)},
    "one class": classes_of({"a": 3}),
    "no class": {"x.jpg": draw(1), "y.jpg": draw(2)},
    "no photograph": {"a/x.txt": b"1", "b/y.txt": b"2"},
    "lonely": classes_of({"a": 2, "b": 1}),
    "unreadable class": classes_of({"a": 2}) | {"b/1.jpg": b"no", "b/2.jpg": b"no"},
    "only in train": classes_of({"a": 2, "b": 2}, "train/") | classes_of({"a": 2}, "val/"),
    "class of spaces": classes_of({"a": 2, " ": 2}),
    "not a zip": b"GIF89a" + bytes(300),
    "empty": b"",
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_refused_in_one_sentence_and_nothing_is_left(make, tmp_path, kind) -> None:
    with pytest.raises(DatasetError) as refused:
        make(HOSTILE[kind])
    assert "\n" not in str(refused.value)
    assert str(tmp_path) not in str(refused.value)
    assert list(tmp_path.rglob("*.*")) == []
    assert not [place for place in tmp_path.rglob("*") if place.name != "datasets"]


def test_encrypted_and_damaged_zips_are_refused(make, make_zip) -> None:
    data = make_zip(GOOD)
    place = data.index(b"PK\1\2") + 8
    with pytest.raises(DatasetError, match="password"):
        make(data[:place] + b"\1\0" + data[place + 2 :])
    first = data.index(b"0.jpg") + 40
    with pytest.raises(DatasetError, match="damaged"):
        make(data[:first] + bytes(20) + data[first + 20 :])


def test_a_list_of_files_that_would_fill_the_memory_is_not_read(make) -> None:
    entry = struct.pack("<4s6H3I5H2I", b"PK\1\2", *[0] * 6, *[0] * 3, 1, *[0] * 4, 0, 0) + b"x"
    listed = entry * 200_000
    end = struct.pack("<4s4H2IH", b"PK\5\6", 0, 0, 0, 0, len(listed), 0, 0)
    with pytest.raises(DatasetError, match="too many"):
        make(listed + end)


def test_a_name_is_taken_once_and_leads_nowhere(make, tmp_path) -> None:
    make(GOOD)
    before = sorted(tmp_path.rglob("*"))
    for name in ("fruit", "../x", "a/b", "", ".hidden", "x" * 41):
        with pytest.raises(DatasetError):
            make(GOOD, name)
    assert sorted(tmp_path.rglob("*")) == before


def test_all_data_sets_together_stay_below_the_quota(make, tmp_path) -> None:
    size = sum(len(data) for data in GOOD.values())
    make(GOOD, "first", quota=size)
    with pytest.raises(DatasetError, match="delete one"):
        make(GOOD, "second", quota=size + 500)
    assert read_dataset(Home(root=tmp_path), "second") is None


def test_a_full_disk_leaves_nothing(make_zip, small_disk) -> None:
    files = {f"{label}/{n}.jpg": draw(n) + bytes(60_000) for label in "ab" for n in range(3)}
    with small_disk("200k") as disk:
        home = Home(root=disk / "home")
        incoming = read_zip(io.BytesIO(make_zip(files)), **LIMITS)
        with pytest.raises(OSError, match="space"):
            make_dataset(home, "fruit", incoming, check, QUOTA)
        assert [place.name for place in home.datasets.iterdir()] == []

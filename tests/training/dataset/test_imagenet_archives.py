"""ILSVRC-2012's archives and Parquet files give what their images gave in a folder."""

import io
import json
import tarfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from scipy.io import savemat

from model.dataset.folder import ClassName, ImageFolder
from model.image.preprocess import read_square
from training.dataset.find_source import count_expected_photographs, describe_source, find_source
from training.dataset.ilsvrc_tars import DEVKIT_TAR, TRAIN_TAR, VAL_TAR, IlsvrcTars
from training.dataset.parquet import ParquetFiles
from training.dataset.prepare import DataError, PreparedDataset, prepare

WNIDS = ("n01440764", "n01443537", "n01484850")
FISH = ("tench", "goldfish", "great white shark")
# ILSVRC numbers the classes in an order of its own, and counts inner nodes of WordNet after them.
NUMBERS = {"n01440764": 2, "n01443537": 3, "n01484850": 1}


def ignore(_count: int) -> None:
    """Nobody looks at the progress."""


def add(tar: tarfile.TarFile, name: str, data: bytes) -> None:
    info = tarfile.TarInfo(name)
    info.size = len(data)
    tar.addfile(info, io.BytesIO(data))


def make_synsets() -> np.ndarray:
    kinds = [("ILSVRC2012_ID", "f8"), ("WNID", object), ("num_children", "f8")]
    rows = [(number, wnid, 0) for wnid, number in NUMBERS.items()] + [(4, "n00001740", 3)]
    return np.array(rows, dtype=kinds)[:, None]


@pytest.fixture
def archives(folder: ImageFolder, tmp_path: Path) -> Path:
    """The test photographs as the three archives."""
    root = tmp_path / "archives"
    root.mkdir()
    with tarfile.open(root / TRAIN_TAR, "w") as outer:
        for index, wnid in enumerate(WNIDS):
            packed = io.BytesIO()
            with tarfile.open(fileobj=packed, mode="w") as inner:
                for number, photograph in enumerate(folder.train):
                    if photograph.class_index == index:
                        data = (folder.root / photograph.path).read_bytes()
                        add(inner, f"{wnid}_{number}.JPEG", data)
            add(outer, f"{wnid}.tar", packed.getvalue())
    order = sorted(range(len(folder.val)), key=lambda place: place * 7 % len(folder.val))
    truth = []
    with tarfile.open(root / VAL_TAR, "w") as images:
        for number, place in enumerate(order, start=1):
            photograph = folder.val[place]
            truth.append(NUMBERS[WNIDS[photograph.class_index]])
            data = (folder.root / photograph.path).read_bytes()
            add(images, f"ILSVRC2012_val_{number:08d}.JPEG", data)
    meta = io.BytesIO()
    savemat(meta, {"synsets": make_synsets()})
    with tarfile.open(root / DEVKIT_TAR, "w:gz") as kit:
        add(kit, "ILSVRC2012_devkit_t12/data/meta.mat", meta.getvalue())
        lines = "".join(f"{number}\n" for number in truth).encode()
        add(kit, "ILSVRC2012_devkit_t12/data/ILSVRC2012_validation_ground_truth.txt", lines)
    return root


def check_same_images(found: PreparedDataset, folder: ImageFolder) -> None:
    """Both splits hold the folder's images with their classes, in whatever order."""
    for split, photographs in ((found.train, folder.train), (found.val, folder.val)):
        pixels = split.read(np.arange(len(split)))
        ours = sorted(
            (int(index), image.tobytes())
            for index, image in zip(split.classes, pixels, strict=True)
        )
        theirs = sorted(
            (p.class_index, read_square(folder.root / p.path, side=32).tobytes())
            for p in photographs
        )
        assert ours == theirs


def refuse(root: Path) -> str:
    with pytest.raises(DataError) as caught:
        prepare(find_source(str(root)), root / "store", ignore, side=32)
    said = str(caught.value)
    assert "\n" not in said
    return said


def test_the_archives_are_read_where_they_lie(
    archives: Path, folder: ImageFolder, tmp_path: Path
) -> None:
    source = find_source(str(archives))
    assert isinstance(source, IlsvrcTars)
    assert "3 classes, 12 photographs for validation" in describe_source(source)
    assert count_expected_photographs(source) is None
    before = sorted(archives.iterdir())
    found = prepare(source, tmp_path / "store", ignore, side=32)
    check_same_images(found, folder)
    assert found.class_names == tuple(map(ClassName, WNIDS, FISH))
    assert sorted(archives.iterdir()) == before


def test_archives_that_are_missing_or_cut_short_are_named(archives: Path) -> None:
    whole = (archives / VAL_TAR).read_bytes()
    (archives / VAL_TAR).write_bytes(whole[: len(whole) // 2])
    assert VAL_TAR in refuse(archives)
    (archives / VAL_TAR).unlink()
    assert f"holds {TRAIN_TAR}, but not {VAL_TAR}" in refuse(archives)
    (archives / VAL_TAR).write_bytes(whole)
    train = (archives / TRAIN_TAR).read_bytes()
    (archives / TRAIN_TAR).write_bytes(train[:-30_000])
    assert TRAIN_TAR in refuse(archives)
    (archives / TRAIN_TAR).write_bytes(train)
    (archives / DEVKIT_TAR).write_bytes(b"no archive")
    assert DEVKIT_TAR in refuse(archives)


@pytest.fixture
def parquet(folder: ImageFolder, tmp_path: Path) -> Path:
    """The test photographs as Hugging Face has them: files of ten images in `data`."""
    root = tmp_path / "parquet"
    (root / "data").mkdir(parents=True)
    features = {
        "image": {"_type": "Image"},
        "label": {"names": list(FISH), "_type": "ClassLabel"},
    }
    described = {b"huggingface": json.dumps({"info": {"features": features}}).encode()}
    for split, photographs in (("train", folder.train), ("validation", folder.val)):
        for start in range(0, len(photographs), 10):
            some = photographs[start : start + 10]
            images = [
                {"bytes": (folder.root / p.path).read_bytes(), "path": Path(p.path).name}
                for p in some
            ]
            table = pa.table({"image": images, "label": [p.class_index for p in some]})
            pq.write_table(
                table.replace_schema_metadata(described),
                root / f"data/{split}-{start // 10:05d}-of-00003.parquet",
            )
    return root


def test_parquet_files_give_their_images(
    parquet: Path, folder: ImageFolder, tmp_path: Path
) -> None:
    for root in (parquet, parquet / "data"):
        source = find_source(str(root))
        assert isinstance(source, ParquetFiles)
        assert count_expected_photographs(source) == 36
        assert "24 photographs, 12 for validation" in describe_source(source)
        found = prepare(source, tmp_path / "store", ignore, side=32)
        check_same_images(found, folder)
        assert [name.folder for name in found.class_names] == list(FISH)


def test_without_names_classes_are_their_numbers(parquet: Path, tmp_path: Path) -> None:
    for file in parquet.rglob("*.parquet"):
        pq.write_table(pq.read_table(file).replace_schema_metadata(None), file)
    found = prepare(find_source(str(parquet)), tmp_path / "store", ignore, side=32)
    assert [name.folder for name in found.class_names] == ["0", "1", "2"]


def test_parquet_files_of_other_forms_are_refused(parquet: Path) -> None:
    first = next(parquet.rglob("train-00000*"))
    whole = first.read_bytes()
    first.write_bytes(whole[: len(whole) // 2])
    assert first.name in refuse(parquet)
    pq.write_table(pa.table({"text": ["a"], "label": [0]}), first)
    assert "a column of images" in refuse(parquet)
    first.write_bytes(whole)
    for file in parquet.rglob("validation-*"):
        file.unlink()
    assert "files whose names begin with train and with validation" in refuse(parquet)


def test_a_label_beyond_the_names_is_refused(parquet: Path) -> None:
    file = next(parquet.rglob("train-00001*"))
    table = pq.read_table(file)
    labels = pa.array([7] * len(table))
    pq.write_table(table.set_column(1, "label", labels), file)
    assert f"{file}: row 0 has the label 7, the last one named is 2" in refuse(parquet)

"""The demo photographs: no pixel in both halves, the same each time."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from model.dataset.folder import scan_folder
from training.dataset.demo import (
    PICTURES,
    TRAIN_CROPS,
    VAL_CROPS,
    Picture,
    draw_split_crops,
    make_demo,
)


@pytest.mark.parametrize("picture", PICTURES, ids=lambda picture: picture.label)
def test_training_and_validation_crops_share_no_pixel(picture: Picture) -> None:
    height, width = picture.load().shape[:2]
    seen = {split: np.zeros((height, width), bool) for split in ("train", "val")}
    for split, crops in draw_split_crops(picture, (width, height)).items():
        for crop in crops:
            left, top, right, bottom = crop.box()
            assert 0 <= left < right <= width
            assert 0 <= top < bottom <= height
            seen[split][top:bottom, left:right] = True
    assert not (seen["train"] & seen["val"]).any()
    assert seen["train"].any()
    assert seen["val"].any()


def test_it_is_a_folder_like_any_other(tmp_path: Path) -> None:
    folder = scan_folder(make_demo(tmp_path / "demo"))
    assert len(folder.classes) == len(PICTURES)
    assert len(folder.train) == len(PICTURES) * TRAIN_CROPS
    assert len(folder.val) == len(PICTURES) * VAL_CROPS
    assert "hubble deep field" in {name.label for name in folder.classes}
    with Image.open(folder.root / folder.val[0].path) as image:
        assert image.format == "JPEG"
    before = {file: file.read_bytes() for file in (tmp_path / "demo").rglob("*.jpg")}
    make_demo(tmp_path / "demo")
    again = make_demo(tmp_path / "again")
    for file, data in before.items():
        assert (again / file.relative_to(tmp_path / "demo")).read_bytes() == data


def test_a_demo_folder_cut_off_half_way_is_made_anew(tmp_path: Path) -> None:
    left = tmp_path / ".demo.part" / "train" / "astronaut"
    left.mkdir(parents=True)
    (left / "old.jpg").write_bytes(b"half")
    make_demo(tmp_path / "demo")
    assert not (tmp_path / ".demo.part").exists()
    assert not (tmp_path / "demo/train/astronaut/old.jpg").exists()

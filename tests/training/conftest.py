"""A tiny set of real photographs, and networks small enough to try things on."""

from pathlib import Path

import numpy as np
import pytest
import skimage.data
from PIL import Image

from model.photographs import Folder, scan
from training.prepare import Prepared, prepare

PICTURES = {"coffee": skimage.data.coffee, "grass": skimage.data.grass, "cat": skimage.data.chelsea}


@pytest.fixture(scope="session")
def photographs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three classes, eight training and four validation photographs each, of several kinds."""
    root = tmp_path_factory.mktemp("photographs")
    for name, load in PICTURES.items():
        picture = Image.fromarray(load()).convert("RGB")
        random = np.random.default_rng(list(name.encode()))
        for split, count in (("train", 8), ("val", 4)):
            folder = root / split / name
            folder.mkdir(parents=True)
            for number in range(count):
                side = int(random.integers(120, 260))
                left, top = (int(random.integers(0, most - side)) for most in picture.size)
                crop = picture.crop((left, top, left + side, top + side))
                crop.save(folder / f"{number}.{('jpg', 'png', 'webp')[number % 3]}")
    return root


@pytest.fixture(scope="session")
def folder(photographs: Path) -> Folder:
    return scan(photographs)


@pytest.fixture(scope="session")
def prepared(folder: Folder, tmp_path_factory: pytest.TempPathFactory) -> Prepared:
    return prepare(folder, tmp_path_factory.mktemp("prepared"), lambda _count: None)

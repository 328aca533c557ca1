"""A tiny set of real photographs, and networks small enough to try things on."""

import os
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
import skimage.data
from PIL import Image

from model.dataset import ImageFolder, scan_folder
from training.dataset.prepare import Prepared, prepare

ROOT = Path(__file__).resolve().parents[2]
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
def folder(photographs: Path) -> ImageFolder:
    return scan_folder(photographs)


@pytest.fixture(scope="session")
def prepared(folder: ImageFolder, tmp_path_factory: pytest.TempPathFactory) -> Prepared:
    return prepare(folder, tmp_path_factory.mktemp("prepared"), lambda _count: None)


@pytest.fixture(scope="session")
def prepared_as_jpeg(folder: ImageFolder, tmp_path_factory: pytest.TempPathFactory) -> Prepared:
    return prepare(folder, tmp_path_factory.mktemp("prepared"), lambda _count: None, budget=0)


@pytest.fixture(scope="session")
def tiny(folder: ImageFolder, tmp_path_factory: pytest.TempPathFactory) -> Prepared:
    """The same photographs at 32×32, for the nets made for CIFAR-10."""
    return prepare(folder, tmp_path_factory.mktemp("prepared"), lambda _count: None, side=32)


@pytest.fixture(scope="session")
def begin(photographs: Path) -> Callable[..., subprocess.Popen[str]]:
    """Start `python training/run.py` as people do, on the photographs; `home` is its own."""

    def start(home: Path, *words: str | Path, **variables: str) -> subprocess.Popen[str]:
        kept = {k: v for k, v in os.environ.items() if not k.startswith("ALEXNET_")}
        env = kept | {"ALEXNET_HOME": str(home), "COLUMNS": "200", "OMP_NUM_THREADS": "1"}
        return subprocess.Popen(
            [sys.executable, "training/run.py", "--data", str(photographs), *map(str, words)],
            cwd=ROOT,
            env=env | variables,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    return start


@pytest.fixture(scope="session")
def end() -> Callable[..., tuple[str, str]]:
    """Wait for a process and check its exit code; give what it said and complained of."""

    def wait(process: subprocess.Popen[str], code: int = 0) -> tuple[str, str]:
        out, errors = process.communicate(timeout=120)
        assert process.returncode == code, out + errors
        assert "Traceback" not in errors, errors
        return out, errors

    return wait


@pytest.fixture(scope="session")
def processes() -> Callable[[Path], set[int]]:
    """Find the processes that work on a home."""

    def running(home: Path) -> set[int]:
        found = set()
        for place in Path("/proc").glob("[0-9]*"):
            with suppress(OSError):
                if f"ALEXNET_HOME={home}\0" in (place / "environ").read_text(errors="replace"):
                    found.add(int(place.name))
        return found

    return running

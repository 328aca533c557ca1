"""A tiny set of real photographs, and networks small enough to try things on."""

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import skimage.data
import torch
from PIL import Image

from model.dataset.folder import ImageFolder, scan_folder
from training.dataset.prepare import PreparedDataset, prepare
from training.run import main

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
def prepared(folder: ImageFolder, tmp_path_factory: pytest.TempPathFactory) -> PreparedDataset:
    return prepare(folder, tmp_path_factory.mktemp("prepared"), lambda _count: None)


@pytest.fixture(scope="session")
def prepared_as_jpeg(
    folder: ImageFolder, tmp_path_factory: pytest.TempPathFactory
) -> PreparedDataset:
    return prepare(folder, tmp_path_factory.mktemp("prepared"), lambda _count: None, budget=0)


@pytest.fixture(scope="session")
def tiny(folder: ImageFolder, tmp_path_factory: pytest.TempPathFactory) -> PreparedDataset:
    """The same photographs at 32×32, for the nets made for CIFAR-10."""
    return prepare(folder, tmp_path_factory.mktemp("prepared"), lambda _count: None, side=32)


@pytest.fixture
def run_training(
    photographs: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Iterator[Callable[..., tuple[str, str]]]:
    """Run `python training/run.py` in this process; return what it printed.

    code: the exit code that it must return. Without --data among the words it takes the
    photographs.
    """
    threads = torch.get_num_threads()

    def run(home: Path, *words: str | Path, code: int = 0) -> tuple[str, str]:
        if "--data" not in words:
            words = ("--data", photographs, *words)
        monkeypatch.delenv("ALEXNET_DATA", raising=False)
        monkeypatch.setenv("ALEXNET_HOME", str(home))
        monkeypatch.setenv("COLUMNS", "200")
        monkeypatch.setattr(sys, "argv", ["training/run.py", *map(str, words)])
        monkeypatch.chdir(ROOT)
        # As in the processes that `start_training` starts.
        torch.set_num_threads(1)
        found = main()
        out, errors = capsys.readouterr()
        assert found == code, out + errors
        return out, errors

    yield run
    torch.set_num_threads(threads)


@pytest.fixture
def start_training(
    photographs: Path, start_process: Callable[..., subprocess.Popen[str]]
) -> Callable[..., subprocess.Popen[str]]:
    """Start `python training/run.py` on the photographs as a process of its own.

    It has its own group, so that a test can interrupt all its processes at once.
    """

    def start(home: Path, *words: str | Path, **variables: str) -> subprocess.Popen[str]:
        inherited = {k: v for k, v in os.environ.items() if not k.startswith("ALEXNET_")}
        env = inherited | {"ALEXNET_HOME": str(home), "COLUMNS": "200", "OMP_NUM_THREADS": "1"}
        return start_process(
            [sys.executable, "training/run.py", "--data", str(photographs), *map(str, words)],
            cwd=ROOT,
            env=env | variables,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )

    return start


@pytest.fixture(scope="session")
def wait_for_exit() -> Callable[..., tuple[str, str]]:
    """Wait for a process and check its exit code; return what it printed."""

    def wait(process: subprocess.Popen[str], code: int = 0) -> tuple[str, str]:
        out, errors = process.communicate(timeout=200)
        assert process.returncode == code, out + errors
        assert "Traceback" not in errors, errors
        return out, errors

    return wait


@pytest.fixture(scope="session")
def wait_for_file() -> Callable[[subprocess.Popen[str], Path, str], Path]:
    """Wait until a running process has written a file that matches a pattern; return it."""

    def wait(process: subprocess.Popen[str], home: Path, pattern: str) -> Path:
        while not (found := list(home.glob(pattern))):
            assert process.poll() is None, process.communicate()
            time.sleep(0.01)
        return found[0]

    return wait

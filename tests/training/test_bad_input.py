"""Bad input to `python training/run.py`: one line, exit code 2, nothing half-written left."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from model.network.architectures import VARIANTS

Refused = Callable[..., str]


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Two classes, three photographs each in train and val."""
    root = tmp_path / "data"
    random = np.random.default_rng(0)
    for split in ("train", "val"):
        for name in ("cat", "dog"):
            folder = root / split / name
            folder.mkdir(parents=True)
            for number in range(3):
                pixels = random.integers(0, 256, (40, 50, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(folder / f"{number}.png")
    return root


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path / "home"


@pytest.fixture
def refused(home: Path, run_training: Callable[..., tuple[str, str]]) -> Refused:
    """Run the command, which must fail; return its one line."""

    def run(*words: str | Path, home: Path = home) -> str:
        _, errors = run_training(home, *words, code=2)
        (line,) = errors.splitlines()
        assert line.startswith("training/run.py: ")
        return line

    return run


def files(folder: Path) -> list[Path]:
    """What a failure left behind."""
    return [path for path in folder.rglob("*") if not path.is_dir()]


def empty(data: Path) -> str:
    for file in (data / "train/cat").iterdir():
        file.unlink()
    return "train/cat"


def one_class(data: Path) -> str:
    for split in ("train", "val"):
        for file in (data / split / "dog").iterdir():
            file.unlink()
        (data / split / "dog").rmdir()
    return "two"


def unreadable(data: Path) -> str:
    for file in (data / "train/dog").iterdir():
        file.write_bytes(b"\x89PNG, or so it says")
    return f"{data}/train/dog can be read"


def zero_bytes(data: Path) -> str:
    for file in (data / "val/cat").iterdir():
        file.write_bytes(b"")
    return f"{data}/val/cat can be read"


def file_for_split(data: Path) -> str:
    for path in sorted((data / "val").rglob("*"), reverse=True):
        path.unlink() if path.is_file() else path.rmdir()
    (data / "val").rmdir()
    (data / "val").write_text("photographs")
    return f"{data}/val"


def classes_differ(data: Path) -> str:
    (data / "val/dog").rename(data / "val/wolf")
    return "wolf"


def no_validation(data: Path) -> str:
    for path in sorted((data / "val").rglob("*"), reverse=True):
        path.unlink() if path.is_file() else path.rmdir()
    return "val"


@pytest.mark.parametrize(
    "spoil",
    [empty, one_class, unreadable, zero_bytes, file_for_split, classes_differ, no_validation],
)
def test_photographs_that_cannot_be_trained_on(
    data: Path, home: Path, refused: Refused, spoil: Callable[[Path], str]
) -> None:
    said = spoil(data)
    line = refused("--data", data)
    assert said in line
    assert str(data) in line
    assert files(home) == []


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--towers", "3"], "--towers cannot be 3"),
        (["--batch", "0"], "--batch cannot be 0"),
        (["--rate", "nan"], "--rate cannot be nan"),
        (["--replicas", "0"], "--replicas cannot be 0"),
        (["--replicas", "99999"], "99999 processes"),
        (["--variant", "vgg"], ", ".join(VARIANTS)),
        (["--from", "README.md"], "README.md"),
        (["--from", "no/weights"], "no/weights"),
        (["--from", "tests"], "tests"),
        (["--variant", "one-gpu", "--towers", "2"], "one-gpu"),
        (["--variant", "caffenet", "--towers", "2"], "caffe"),
        (["--preset", "cifar", "--towers", "2"], "cifar"),
        (["--resume", "tests"], "tests"),
        (["--resume", "no/such/run"], "no/such/run"),
        (["--variant", "cifar", "--dropout", "2"], "--dropout cannot be 2.0"),
    ],
)
def test_words_that_make_no_run(
    data: Path, home: Path, refused: Refused, words: list[str], said: str
) -> None:
    assert said in refused("--data", data, *words)
    assert not home.exists()


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
@pytest.mark.parametrize("device", ["cuda", "mps"])
def test_a_device_that_is_not_there(data: Path, home: Path, refused: Refused, device: str) -> None:
    assert f"--device {device}" in refused("--data", data, "--device", device)
    assert not home.exists()


def test_a_file_where_the_photographs_should_be(data: Path, home: Path, refused: Refused) -> None:
    file = data / "train/cat/0.png"
    assert f"{file} is a file" in refused("--data", file)
    assert not home.exists()


@pytest.mark.parametrize("place", ["data/train/cat/0.png", "/proc/x", "/dev/null/var"])
def test_a_home_that_cannot_be_written(
    data: Path, tmp_path: Path, refused: Refused, place: str
) -> None:
    before = files(tmp_path)
    line = refused("--data", data, home=tmp_path / place)
    assert str(tmp_path / place) in line
    assert files(tmp_path) == before


@pytest.mark.parametrize(
    ("size", "said"),
    [
        ("1m", "12 images at 256×256"),
        # The photographs fit; weights and checkpoints of 61 million numbers do not.
        ("64m", "1.8 GB"),
    ],
)
def test_too_little_disk_is_said_before_the_work_begins(
    data: Path,
    refused: Refused,
    small_disk: Callable[[str], AbstractContextManager[Path]],
    size: str,
    said: str,
) -> None:
    with small_disk(size) as place:
        assert said in refused("--data", data, home=place / "home")
        assert not (place / "home/runs").exists()
        assert not list(place.rglob("*.part"))

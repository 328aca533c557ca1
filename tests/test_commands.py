"""The README's two stages, run as a person runs them, on a tiny set of photographs."""

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import skimage.data
from PIL import Image

from model.weights.checkpoint import load_weights

ROOT = Path(__file__).resolve().parents[1]
PICTURES = {"coffee": skimage.data.coffee, "grass": skimage.data.grass, "cat": skimage.data.chelsea}
WEIGHTS = "weights.safetensors"
QUICK = ["--from", "scratch", "--epochs", "1", "--batch", "8"]
Command = Callable[..., subprocess.CompletedProcess[str]]

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three classes, with the kinds of file that people have."""
    root = tmp_path_factory.mktemp("data") / "photographs"
    for name, load_picture in PICTURES.items():
        picture = Image.fromarray(load_picture()).convert("RGB")
        random = np.random.default_rng(0)
        for split, count in (("train", 8), ("val", 3)):
            folder = root / split / name
            folder.mkdir(parents=True)
            for number in range(count):
                left, top = (int(random.integers(0, most - 200)) for most in picture.size)
                crop = picture.crop((left, top, left + 200, top + 180))
                mode, suffix = (("RGB", "JPG"), ("P", "png"), ("L", "webp"))[number % 3]
                crop.convert(mode).save(folder / f"{number} of {name}.{suffix}")
    (root / "train/cat/broken.jpg").write_bytes(b"\xff\xd8 not a photograph")
    return root


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("home") / "var"


@pytest.fixture(scope="module")
def command(home: Path) -> Command:
    """Run a command from the project's root, everything it makes lying in `home`."""

    def run(
        *words: str | Path, code: int = 0, **variables: str
    ) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            [sys.executable, *words],
            cwd=ROOT,
            env=environment(home) | variables,
            capture_output=True,
            text=True,
            timeout=240,
            check=False,
        )
        assert done.returncode == code, done.stdout + done.stderr
        assert "Traceback" not in done.stderr
        return done

    return run


def environment(home: Path) -> dict[str, str]:
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("ALEXNET_", "DATABASE_URL"))}
    # Measuring which runtime is faster would take half of the time.
    return kept | {"ALEXNET_HOME": str(home), "COLUMNS": "200", "ALEXNET_RUNTIME": "torch"}


@pytest.fixture(scope="module")
def trained(command: Command, data: Path) -> str:
    return command("training/run.py", "--data", data, *QUICK).stdout


def test_training_makes_weights_and_lists_what_it_left_out(
    trained: str, data: Path, home: Path
) -> None:
    assert f"{data} (named by --data)" in trained
    assert "broken.jpg" in trained
    assert re.search(r"^epoch +1/1 ", trained, re.MULTILINE)
    weights = load_weights(home / WEIGHTS)
    assert weights.provenance.data == str(data)
    assert weights.provenance.images == 24
    assert weights.provenance.preset == "small"
    assert weights.provenance.ten_crop_top1_error is not None
    assert [name.label for name in weights.classes] == ["cat", "coffee", "grass"]
    (line,) = (home / WEIGHTS).resolve().with_name("epochs.jsonl").read_text().splitlines()
    assert {"loss", "top1_error", "top5_error", "rate"} <= json.loads(line).keys()


def test_then_the_index_and_the_application_with_no_flag(
    trained: str, command: Command, home: Path, data: Path
) -> None:
    built = command("-m", "flask", "index", "build")
    assert "broken.jpg" in built.stdout + built.stderr
    question = """if True:
        import json, sys
        from app import create_app
        client = create_app().test_client()
        with open(sys.argv[1], "rb") as file:
            found = client.post("/api/classify", data={"image": (file, "x.jpg")})
        print(json.dumps([client.get("/healthz").json, found.json]))
    """
    asked = data / "train/grass/0 of grass.JPG"
    health, found = json.loads(command("-c", question, asked).stdout)
    assert health["status"] == "ready"
    assert health["images"] == 24
    (answer,) = found["answers"]
    assert len(answer["top5"]) == 3
    assert sum(guess["probability"] for guess in answer["top5"]) == pytest.approx(1, abs=1e-4)
    assert len(answer["neighbours"]) == 6
    nearest = answer["neighbours"][0]
    assert nearest["label"] == "grass"  # the image itself is in the index
    assert nearest["distance"] == pytest.approx(0, abs=1e-2)
    assert len(list((home / "index").glob("[!.]*"))) == 2  # a version and `current`


def test_the_same_training_is_not_repeated(
    trained: str, command: Command, data: Path, home: Path
) -> None:
    done = command("training/run.py", "--if-needed", *QUICK, ALEXNET_DATA=str(data))
    assert f"{data} (named by ALEXNET_DATA)" in done.stdout
    assert "epoch" not in done.stdout
    assert len(list((home / "runs").iterdir())) == 1


def test_an_error_is_one_line_with_exit_code_2(command: Command, tmp_path: Path) -> None:
    (line,) = command("training/run.py", "--data", tmp_path / "none", code=2).stderr.splitlines()
    assert line.startswith("training/run.py: ")
    assert str(tmp_path / "none") in line


@pytest.fixture
def start(
    start_process: Callable[..., subprocess.Popen[str]], tmp_path: Path
) -> Callable[..., subprocess.Popen[str]]:
    """Start `training/run.py` with a home of the test's own."""

    def start(*words: str | Path) -> subprocess.Popen[str]:
        return start_process(
            [sys.executable, "training/run.py", *map(str, words)],
            cwd=ROOT,
            env=environment(tmp_path),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )

    return start


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_stopped_training_saves_at_once_and_can_be_resumed(
    data: Path,
    start: Callable[..., subprocess.Popen[str]],
    tmp_path: Path,
    number: signal.Signals,
) -> None:
    small = ("--variant", "cifar")
    process = start("--data", data, "--batch", "2", "--epochs", "200", *small)
    assert process.stdout is not None
    next(line for line in process.stdout if line.startswith("epoch"))
    process.send_signal(number)  # in the second epoch
    output, errors = process.communicate(timeout=60)
    assert process.returncode == 128 + number
    assert len(errors.splitlines()) == 1
    (run,) = (tmp_path / "runs").iterdir()
    assert f"python training/run.py --resume {run}" in output
    assert (run / "checkpoint.safetensors").exists()
    assert not (tmp_path / WEIGHTS).exists()
    assert not list(tmp_path.rglob("*.part"))
    if number == signal.SIGINT:
        return  # resumed once: what was saved does not depend on the signal
    again = start("--resume", run, "--epochs", "1", "--accept", "epochs")
    output, errors = again.communicate(timeout=120)
    assert again.returncode == 0, errors
    assert run.name in output
    assert load_weights(tmp_path / WEIGHTS).provenance.epochs >= 1


def test_ctrl_c_before_there_is_anything_to_save(
    data: Path, start: Callable[..., subprocess.Popen[str]], tmp_path: Path
) -> None:
    process = start("--data", data, "--batch", "25", "--epochs", "200")
    assert process.stdout is not None
    assert str(data) in process.stdout.readline()  # the photographs are decoded now
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert len(errors.splitlines()) == 1
    assert not (tmp_path / WEIGHTS).exists()
    assert not list(tmp_path.rglob("*.part"))

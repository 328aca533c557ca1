"""The README's two stages, run as a person runs them, on a tiny set of photographs."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import skimage.data
from PIL import Image

from model.checkpoint import load_weights

ROOT = Path(__file__).resolve().parents[1]
PICTURES = {"coffee": skimage.data.coffee, "grass": skimage.data.grass, "cat": skimage.data.chelsea}
WEIGHTS = "weights.safetensors"
QUICK = ["--epochs", "1", "--batch", "8"]
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
    return kept | {"ALEXNET_HOME": str(home), "COLUMNS": "200"}


@pytest.fixture(scope="module")
def trained(command: Command, data: Path) -> str:
    return command("training/run.py", "--data", data, *QUICK).stdout


def test_training_says_what_it_does_and_makes_weights(trained: str, data: Path, home: Path) -> None:
    assert f"Training on {data} (named by --data): 25 photographs of 3 classes" in trained
    assert "Preset small: 24 training images are fewer than 100,000." in trained
    assert "1 photographs cannot be read and are left out" in trained
    assert "broken.jpg" in trained
    assert "epoch   1/1" in trained
    assert "Ten crops: validation error" in trained
    weights = load_weights(home / "weights.safetensors")
    assert weights.provenance.data == str(data)
    assert weights.provenance.images == 24
    assert [name.label for name in weights.classes] == ["cat", "coffee", "grass"]
    (line,) = (
        (home / "weights.safetensors")
        .resolve()
        .parent.joinpath("epochs.jsonl")
        .read_text()
        .splitlines()
    )
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
    again = command("-m", "flask", "index", "build", "--if-needed")
    assert len(list((home / "index").glob("[!.]*"))) == 2, again.stdout  # a version and `current`


def test_what_is_done_is_not_done_again(trained: str, command: Command, data: Path) -> None:
    started = time.monotonic()
    done = command("training/run.py", "--if-needed", "--data", data, *QUICK)
    assert "Nothing to train" in done.stdout
    assert "epoch" not in done.stdout
    assert time.monotonic() - started < 60


def test_the_setting_names_the_data_when_no_flag_does(
    trained: str, command: Command, data: Path
) -> None:
    done = command("training/run.py", "--if-needed", *QUICK, ALEXNET_DATA=str(data))
    assert f"Training on {data} (named by ALEXNET_DATA)" in done.stdout


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--data", "no/such/folder"], "does not exist"),
        (["--data", "README.md"], "is a file"),
        (["--data", "tests"], "does not exist; photographs are expected as train/<class>/*"),
        (["--epochs", "0"], "--epochs cannot be 0"),
        (["--resume", "tests"], "not the folder of a run"),
    ],
)
def test_what_cannot_be_is_said_in_one_line(command: Command, words: list[str], said: str) -> None:
    done = command("training/run.py", *words, code=2)
    assert said in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_a_finished_run_cannot_be_gone_on_with(trained: str, command: Command, home: Path) -> None:
    run = (home / "weights.safetensors").resolve().parent
    done = command("training/run.py", "--resume", run, code=2)
    assert done.stderr == f"training/run.py: {run} is finished: its weights are {run}/{WEIGHTS}\n"


def start(tmp_path: Path, *words: str | Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "training/run.py", *map(str, words)],
        cwd=ROOT,
        env=environment(tmp_path),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_asked_to_stop_training_saves_at_once_and_goes_on_later(
    data: Path, tmp_path: Path, number: signal.Signals
) -> None:
    process = start(tmp_path, "--data", data, "--batch", "2", "--epochs", "200")
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith("epoch"):
            break
    time.sleep(1)  # in the middle of the second
    process.send_signal(number)
    said, errors = process.communicate(timeout=60)
    assert process.returncode == 128 + number
    assert errors.splitlines() == ["training/run.py: interrupted"]
    (run,) = (tmp_path / "runs").iterdir()
    assert f"Saved. To resume: python training/run.py --resume {run}" in said
    assert not (tmp_path / WEIGHTS).exists()
    assert not list(tmp_path.rglob("*.part"))
    changed = start(tmp_path, "--resume", run, "--epochs", "1", "--rate", "0.5")
    _, errors = changed.communicate(timeout=60)
    assert changed.returncode == 2
    assert "epochs was 200, is 1" in errors
    assert "--accept epochs rate" in errors
    assert len(errors.splitlines()) == 1
    again = start(tmp_path, "--resume", run, "--epochs", "1", "--accept", "epochs")
    said, errors = again.communicate(timeout=120)
    assert again.returncode == 0, errors
    assert f"Resuming {run.name} after epoch" in said
    assert load_weights(tmp_path / WEIGHTS).provenance.epochs >= 1


def test_a_second_ctrl_c_does_not_wait(data: Path, tmp_path: Path) -> None:
    process = start(tmp_path, "--data", data, "--batch", "25", "--epochs", "200")
    while not list(tmp_path.glob("runs/*/environment.json")):
        assert process.poll() is None, process.communicate()
        time.sleep(0.05)
    time.sleep(1)  # in the first step
    for _ in range(2):
        process.send_signal(signal.SIGINT)
        time.sleep(0.1)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert errors.splitlines() == ["training/run.py: interrupted"]
    assert not list(tmp_path.rglob("*.part"))

"""Evaluation from the command line to the JSON, against asking image by image."""

import io
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from rich.console import Console

from model.dataset.folder import FolderError
from model.image.preprocess import CENTRE_CROP
from model.network.alexnet import AlexNet
from model.network.config import AlexNetConfig
from model.predict import Predictor
from model.weights.checkpoint import Weights, load_weights, save_weights
from storage.home import Home
from training.evaluate import main
from training.evaluation.networks import NetworksError
from training.evaluation.run import EvaluationError, evaluate

ROOT = Path(__file__).resolve().parents[3]
NAMES = ("boat", "cat", "coffee", "car", "grass", "house", "tree")


@pytest.fixture(scope="module")
def nets(
    weights_of: Callable[..., Weights], tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Path]:
    """Small networks: two of different input and order of classes, one that knows others."""
    root = tmp_path_factory.mktemp("nets")
    orders = {
        "first": (NAMES, 32, 24),
        "second": (NAMES[::-1], 48, 32),
        "other": (("dingo", "dog", *NAMES[:5]), 32, 24),
    }
    files = {}
    for seed, (name, (classes, side, crop)) in enumerate(orders.items()):
        torch.manual_seed(seed)
        config = AlexNetConfig(
            net="cifar", classes=len(classes), side=side, crop=crop, init="he", input_scale=40.0
        )
        if name == "second":
            # As others' networks see photographs.
            config = replace(config, resize="warp", channel_scales=(0.8, 1.0, 1.2))
        network = AlexNet(config)
        # So that probabilities differ.
        torch.nn.init.normal_(network.get_submodule("fc10").weight, 0, 0.3)
        mean, files[name] = 90.0 + 20 * seed, root / f"{name}.safetensors"
        save_weights(weights_of(config, classes, mean, state=network.state_dict()), files[name])
    return files


def run(tmp_path: Path, *words: str | Path) -> tuple[dict[str, Any], str]:
    """Evaluate; give the JSON file's content and what was printed."""
    printed = io.StringIO()
    console = Console(file=printed, width=200)
    flags = [*words, "--json", tmp_path / "found.json", "--device", "cpu", "--precision", "f32"]
    evaluate([str(word) for word in flags], Home(root=tmp_path), console)
    found: dict[str, Any] = json.loads((tmp_path / "found.json").read_text())
    return found, printed.getvalue()


def by_hand(file: Path, photographs: Path) -> dict[str, dict[str, Mapping[str, float]]]:
    """Each validation photograph's probabilities by crops and class, asked one at a time."""
    predictor = Predictor.from_weights(load_weights(file), "cpu")
    folders = [known.folder for known in predictor.classes]
    said: dict[str, dict[str, Mapping[str, float]]] = {"ten": {}, "centre": {}}
    for path in sorted((photographs / "val").glob("*/*")):
        look = predictor.predict(predictor.read_square(path))
        name = path.relative_to(photographs).as_posix()
        said["ten"][name] = dict(zip(folders, look.probabilities.tolist(), strict=True))
        said["centre"][name] = dict(
            zip(folders, look.crop_probabilities[CENTRE_CROP].tolist(), strict=True)
        )
    return said


def check(result: dict[str, Any], said: Mapping[str, Mapping[str, float]]) -> None:
    """A result of the JSON file against each photograph's probabilities."""
    confusion: dict[str, dict[str, int]] = {}
    wrong: dict[str, list[int]] = {"top1": [], "top5": []}
    mistakes = []
    for path, probabilities in said.items():
        true = path.split("/")[1]
        falling = sorted(probabilities, key=lambda folder: -probabilities[folder])
        row = confusion.setdefault(true, {})
        row[falling[0]] = row.get(falling[0], 0) + 1
        wrong["top1"].append(falling[0] != true)
        wrong["top5"].append(true not in falling[:5])
        if falling[0] != true:
            mistakes.append((probabilities[falling[0]], path, falling))
    assert result["confusion"] == confusion
    for top, each in wrong.items():
        assert (result[top]["wrong"], result[top]["images"]) == (sum(each), len(each))
        assert result[top]["error"] == pytest.approx(np.mean(each))
    for own in result["classes"]:
        images = sum(confusion[own["folder"]].values())
        assert own["top1"]["images"] == images
        assert own["top1"]["wrong"] == images - confusion[own["folder"]].get(own["folder"], 0)
    mistakes.sort(reverse=True)
    assert [m["path"] for m in result["mistakes"]] == [path for _, path, _ in mistakes]
    for mistake, (probability, path, falling) in zip(result["mistakes"], mistakes, strict=True):
        assert mistake["probability"] == pytest.approx(probability, abs=1e-5)
        assert mistake["true"] == path.split("/")[1]
        assert mistake["guess"] == falling[0]
        assert mistake["guess_label"] == falling[0].upper()
        assert mistake["rank"] == falling.index(mistake["true"]) + 1
        assert mistake["true_probability"] == pytest.approx(said[path][mistake["true"]], abs=1e-5)


def test_every_number_is_that_of_asking_one_by_one(
    nets: dict[str, Path], photographs: Path, tmp_path: Path
) -> None:
    found, printed = run(tmp_path, nets["first"], "--data", photographs, "--batch", "5")
    assert [(r["name"], r["crops"]) for r in found["results"]] == [
        ("first", "centre"),
        ("first", "ten"),
    ]
    said = by_hand(nets["first"], photographs)
    for result in found["results"]:
        check(result, said[result["crops"]])
    assert found["models"][0]["identity"] == load_weights(nets["first"]).identity
    assert found["data"]["images"] == 12
    assert (found["data"]["layout"], found["data"]["split"]) == ("split", "val")
    assert f"{found['results'][1]['top1']['error']:.2%}" in printed
    assert "images/s" in printed
    (top1, top5) = found["differences"]
    assert (top1["first_crops"], top1["second_crops"], top1["guesses"]) == ("centre", "ten", 1)
    errors = [r["top1"]["error"] for r in found["results"]]
    assert top1["found"]["difference"] == pytest.approx(errors[0] - errors[1])
    assert top5["guesses"] == 5


def test_an_ensemble_is_the_mean_of_probabilities_whatever_the_order_of_classes(
    nets: dict[str, Path], photographs: Path, tmp_path: Path
) -> None:
    found, _ = run(tmp_path, nets["first"], nets["second"], "--data", photographs)
    said = {name: by_hand(nets[name], photographs) for name in ("first", "second")}
    for result in found["results"]:
        asked = result["crops"]
        if result["name"] == "ensemble":
            one, two = said["first"][asked], said["second"][asked]
            mean = {p: {c: (one[p][c] + two[p][c]) / 2 for c in NAMES} for p in one}
            check(result, mean)
        else:
            check(result, said[result["name"]][asked])
    assert len(found["results"]) == 6
    # Three pairs within each kind of crops, three of ten crops against the centre; two errors.
    assert len(found["differences"]) == 2 * (3 + 3 + 3)


def test_networks_that_know_other_classes_make_no_ensemble(
    nets: dict[str, Path], photographs: Path, tmp_path: Path
) -> None:
    with pytest.raises(NetworksError) as error:
        run(tmp_path, nets["first"], nets["other"], "--data", photographs)
    assert "first.safetensors has house, tree" in str(error.value)
    assert "other.safetensors has dingo, dog" in str(error.value)


def test_what_cannot_be_read_or_is_unknown_is_named_and_left_out(
    nets: dict[str, Path], photographs: Path, tmp_path: Path
) -> None:
    data = tmp_path / "data"
    for path in sorted((photographs / "val").glob("c*/*")):
        copy = data / path.parent.name.upper() / path.name  # found by its label
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_bytes(path.read_bytes())
    (data / "CAT/broken.jpg").write_bytes(b"\xff\xd8 not a photograph")
    (data / "[zebra]").mkdir()
    (data / "[zebra]/1.jpg").write_bytes(b"")
    found, printed = run(tmp_path, nets["first"], "--data", data, "--crops", "centre")
    assert found["data"]["unknown"] == {"[zebra]": 1}
    (line,) = found["data"]["unreadable"]
    assert line.startswith("CAT/broken.jpg: ")
    assert found["data"]["images"] == 8
    assert "[zebra] (1)" in printed
    assert "CAT/broken.jpg" in printed
    assert sum(found["results"][0]["confusion"]["cat"].values()) == 4
    assert str(tmp_path) not in json.dumps(found["results"] + found["models"])


def test_what_was_found_is_kept_for_the_application(
    nets: dict[str, Path], photographs: Path, tmp_path: Path
) -> None:
    flags = ("--data", os.path.relpath(photographs), "--crops", "centre", "--device", "cpu")
    flags += ("--precision", "f32")
    for words in ([nets["first"]], [nets["first"]], [nets["first"], nets["second"]]):
        console = Console(file=io.StringIO())
        evaluate([*map(str, words), *flags], Home(root=tmp_path), console)
    kept = sorted((tmp_path / "evaluations").iterdir(), key=lambda file: file.stat().st_mtime_ns)
    assert len(kept) == 3
    for file, name in zip(kept, ("first", "first", "ensemble"), strict=True):
        assert re.fullmatch(rf"\d{{8}}-\d{{6}}-{name}(-2)?\.json", file.name)
        told = json.loads(file.read_text())
        # Where the photographs are is known from wherever the file is read.
        assert told["root"] == str(photographs)
        assert told["created"].startswith(f"{file.name[:4]}-{file.name[4:6]}-{file.name[6:8]}T")
    whole, _ = run(tmp_path, nets["first"], *flags)
    told = json.loads(kept[0].read_text())
    assert {k: v for k, v in told.items() if k not in ("root", "created")} == whole


def test_where_nothing_can_be_kept_the_numbers_are_told_all_the_same(
    nets: dict[str, Path], photographs: Path, tmp_path: Path
) -> None:
    (tmp_path / "evaluations").write_text("a file")
    found, printed = run(tmp_path, nets["first"], "--data", photographs, "--crops", "centre")
    assert found["data"]["images"] == 12
    assert "Not saved for the application" in printed


@pytest.mark.parametrize(
    ("flags", "error"),
    [
        (["--batch", "0"], EvaluationError),
        (["--mistakes", "-1"], EvaluationError),
        (["--picture", "no/such/folder/x.png"], OSError),
        (["--picture", "."], OSError),
        (["--data", "no/such/folder"], FolderError),
    ],
)
def test_what_cannot_be_is_refused_before_the_work(
    flags: list[str],
    error: type[Exception],
    nets: dict[str, Path],
    photographs: Path,
    tmp_path: Path,
) -> None:
    with pytest.raises(error):
        run(tmp_path, nets["first"], "--data", photographs, *flags)
    assert not list(tmp_path.iterdir())


def command(home: Path, *words: str | Path) -> subprocess.Popen[str]:
    kept = {k: v for k, v in os.environ.items() if not k.startswith("ALEXNET_")}
    return subprocess.Popen(
        [sys.executable, "training/evaluate.py", *map(str, words)],
        cwd=ROOT,
        env=kept | {"ALEXNET_HOME": str(home), "COLUMNS": "160"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def call_main(monkeypatch: pytest.MonkeyPatch, home: Path, *words: str | Path) -> int:
    """Run the command in this process; give its exit code."""
    monkeypatch.setenv("ALEXNET_HOME", str(home))
    monkeypatch.setattr(sys, "argv", ["training/evaluate.py", *map(str, words)])
    return main()


def test_the_command_evaluates_the_weights_in_use_and_draws_a_picture(
    nets: dict[str, Path],
    photographs: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "weights.safetensors").symlink_to(nets["second"])
    flags = ["--data", photographs, "--json", tmp_path / "x.json", "--picture", tmp_path / "x.png"]
    assert call_main(monkeypatch, tmp_path, *flags) == 0
    printed, errors = capsys.readouterr()
    assert errors == ""
    assert "second, ten crops" in printed
    assert json.loads((tmp_path / "x.json").read_text())["models"][0]["name"] == "second"
    picture = Image.open(tmp_path / "x.png")
    assert (picture.format, picture.size) == ("PNG", (1800, 1600))
    assert np.asarray(picture.convert("L")).std() > 10
    names = ["evaluations", "weights.safetensors", "x.json", "x.png"]
    assert sorted(p.name for p in tmp_path.iterdir()) == names


@pytest.mark.parametrize(
    ("words", "named"),
    [
        ([], "weights.safetensors"),
        (["no/such/run"], "no/such/run"),
        (["tests"], "tests"),
        (["README.md"], "README.md"),
    ],
)
def test_weights_that_cannot_be_used_are_one_line_and_exit_code_2(
    words: list[str],
    named: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert call_main(monkeypatch, tmp_path, *words, "--data", "tests") == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert named in line


@pytest.mark.slow
def test_ctrl_c_is_one_line_and_leaves_nothing(
    nets: dict[str, Path], photographs: Path, tmp_path: Path
) -> None:
    many = tmp_path / "many"
    for number in range(500):
        link = many / "val/cat" / f"{number}.jpg"
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(photographs / "val/cat/0.jpg")
    flags = ["--data", many, "--json", tmp_path / "x.json", "--batch", "1"]
    process = command(tmp_path, nets["first"], *flags)
    assert process.stdout is not None
    assert str(many) in process.stdout.readline()
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert errors.splitlines() == ["training/evaluate.py: interrupted"]
    assert not (tmp_path / "x.json").exists()

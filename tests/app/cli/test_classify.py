"""`flask classify`, run as a person runs it: what it writes, and what it ends with."""

import csv
import io
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import Result
from flask import Flask
from PIL import Image

from app import create_app
from app.config import Settings
from app.database.images import find_images
from app.inference.state import Ready
from model.dataset.folder import SUFFIXES
from model.image.preprocess import decode_square
from storage.files import switch_link
from storage.home import Home

PROJECT = Path(__file__).parents[3]
Run = Callable[..., Result]


@pytest.fixture
def run(app: Flask) -> Run:
    """Runs the command."""
    return lambda *words: app.test_cli_runner().invoke(args=["classify", *map(str, words)])


@pytest.fixture
def ready(app: Flask) -> Ready:
    """The pair that answers."""
    found: Ready = app.extensions["loader"].require_ready()
    return found


@pytest.fixture
def folder(tmp_path: Path, photographs: Path, jpeg: bytes) -> Path:
    """Photographs in folders in a folder, and what is none."""
    place = tmp_path / "photographs"
    (place / "inner/.hidden").mkdir(parents=True)
    (place / "b.jpg").write_bytes(jpeg)
    (place / "notes.txt").write_text("not asked about")
    (place / "inner/.hidden/c.jpg").write_bytes(jpeg)
    for number, name in enumerate(("astronaut", "brick", "coffee")):
        shutil.copy(photographs / f"val/{name}/00.jpg", place / f"inner/{number}.JPG")
    return place


def check(found: list[dict[str, Any]], files: list[Path], ready: Ready, sessions: Any) -> None:
    """What is written of files is what the network and a brute-force search say of each."""
    assert [one["file"] for one in found] == [str(file) for file in files]
    ids = ready.index.id_map.ids.tolist()
    features = ready.index.read_features(ids)
    for one, file in zip(found, files, strict=True):
        look = ready.predictor.predict(decode_square(file.read_bytes()))
        order = np.argsort(-look.probabilities)[: len(one["top"])]
        assert [g["label"] for g in one["top"]] == [ready.predictor.classes[i].label for i in order]
        shares = [guess["probability"] for guess in one["top"]]
        assert shares == pytest.approx(look.probabilities[order].tolist(), abs=1e-5)
        distances = np.linalg.norm(features.astype(np.float64) - look.fc7, axis=1)
        near = np.argsort(distances, kind="stable")[: len(one["neighbours"])]
        assert [n["id"] for n in one["neighbours"]] == [ids[i] for i in near]
        assert [n["distance"] for n in one["neighbours"]] == pytest.approx(
            distances[near].tolist(), rel=1e-4
        )
        known = find_images(sessions, [n["id"] for n in one["neighbours"]])
        assert [n["file"] for n in one["neighbours"]] == [
            str(known[n["id"]].file) for n in one["neighbours"]
        ]


def test_a_whole_folder_is_answered_as_each_image_alone(
    app: Flask, run: Run, ready: Ready, folder: Path
) -> None:
    done = run(folder, "--format", "json", "--top", "3", "--neighbours", "2")
    assert done.exit_code == 0, done.output
    files = [folder / "b.jpg", *(folder / f"inner/{n}.JPG" for n in range(3))]
    found = json.loads(done.stdout)
    check(found, files, ready, app.extensions["sessions"])
    assert {(len(one["top"]), len(one["neighbours"])) for one in found} == {(3, 2)}
    assert "Classifying" in done.stderr
    assert "4/4" in done.stderr


def test_csv_says_the_same_in_a_line_each(run: Run, folder: Path) -> None:
    asked = (folder / "inner", folder / "gone.jpg", "--top", "2", "--neighbours", "1")
    spoken = json.loads(run(*asked, "--format", "json").stdout)
    done = run(*asked, "--format", "csv")
    assert done.exit_code == 1
    lines = list(csv.DictReader(io.StringIO(done.stdout)))
    assert list(lines[0]) == [
        *("file", "error", "verdict", "label_1", "probability_1", "label_2", "probability_2"),
        *("neighbour_1", "neighbour_label_1", "distance_1"),
    ]
    assert [line["file"] for line in lines] == [one["file"] for one in spoken]
    for line, one in zip(lines[:3], spoken, strict=False):
        assert line["verdict"] == one["sureness"]["verdict"]
        assert line["label_2"] == one["top"][1]["label"]
        assert float(line["probability_2"]) == pytest.approx(one["top"][1]["probability"], abs=1e-6)
        assert line["neighbour_1"] == one["neighbours"][0]["file"]
        assert float(line["distance_1"]) == pytest.approx(
            one["neighbours"][0]["distance"], abs=1e-4
        )
    assert (
        lines[3]["error"]
        == spoken[3]["error"]
        == ("The file cannot be opened: No such file or directory.")
    )
    assert lines[3]["label_1"] == ""


def test_the_table_shows_labels_and_neighbours(
    run: Run, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "400")  # so wide that no cell is folded, wherever the files lie
    (folder / "bad.jpg").write_bytes(b"\xff\xd8\xff bad")
    spoken = json.loads(run(folder, "--format", "json").stdout)
    done = run(folder)
    assert done.exit_code == 1
    (said,) = (one for one in spoken if "error" in one)
    assert f"Left out: {said['file']}: {said['error']}" in done.stdout
    for one in spoken:
        for guess in one.get("top", []):
            assert guess["label"] in done.stdout
            assert f"{100 * guess['probability']:.1f}" in done.stdout
        for near in one.get("neighbours", []):
            assert f"{near['distance']:.1f}" in done.stdout


def test_files_named_twice_are_answered_once(run: Run, folder: Path) -> None:
    done = run(folder / "b.jpg", folder, folder / "inner", "--format", "csv", "--neighbours", "0")
    assert len(done.stdout.splitlines()) == 1 + 4


def test_without_neighbours_no_index_is_needed(
    tmp_path: Path, settings: Settings, folder: Path
) -> None:
    home = Home(root=tmp_path / "home")
    switch_link(home.weights, settings.home.weights.resolve())
    runner = create_app(replace(settings, home=home)).test_cli_runner()
    asked = ["classify", str(folder / "b.jpg"), "--format", "json"]
    refused = runner.invoke(args=asked)
    assert refused.exit_code == 2
    (line,) = refused.stderr.strip().splitlines()
    assert "flask index build" in line
    done = runner.invoke(args=[*asked, "--neighbours", "0"])
    assert done.exit_code == 0, done.output
    assert list(json.loads(done.stdout)[0]) == ["file", "top"]


def test_without_weights_it_names_the_command(
    tmp_path: Path, settings: Settings, folder: Path
) -> None:
    runner = create_app(replace(settings, home=Home(root=tmp_path / "home"))).test_cli_runner()
    for neighbours in ("0", "6"):
        done = runner.invoke(args=["classify", str(folder), "--neighbours", neighbours])
        assert done.exit_code == 2
        assert "python training/run.py" in done.stderr


def test_when_nothing_can_be_read_it_says_so_and_ends_with_two(run: Run, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    os.mkfifo(tmp_path / "pipe.jpg")
    done = run(
        tmp_path / "empty", tmp_path / "pipe.jpg", tmp_path / ("x" * 300), "--format", "json"
    )
    assert done.exit_code == 2
    reasons = [one["error"] for one in json.loads(done.stdout)]
    assert reasons == [
        f"The folder holds no photographs ({', '.join(SUFFIXES)}).",
        "This is neither a file nor a folder.",
        "The file cannot be opened: File name too long.",
    ]
    assert run().exit_code == 2


ODD = {
    b"caf\xe9.jpg": "caf\\xe9.jpg",
    b"new\nline.jpg": "new\nline.jpg",
    b"=1+1.jpg": "=1+1.jpg",
    b"\x1b[31mred.jpg": "\x1b[31mred.jpg",
    b"[bold]x.jpg": "[bold]x.jpg",
}


def test_odd_names_break_nothing(
    run: Run, tmp_path: Path, jpeg: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ODD:
        (tmp_path / os.fsdecode(name)).write_bytes(jpeg)
    monkeypatch.chdir(tmp_path)
    every = (".", "--top", "1", "--neighbours", "0", "--format")
    assert {one["file"] for one in json.loads(run(*every, "json").stdout)} == set(ODD.values())
    lines = csv.reader(io.StringIO(run(*every, "csv").stdout))
    names = {line[0] for line in lines} - {"file"}
    changed = {"=1+1.jpg": "'=1+1.jpg", "\x1b[31mred.jpg": "\\x1b[31mred.jpg"}
    assert names == {changed.get(name, name) for name in ODD.values()}
    table = run(*every, "table").stdout
    assert "\x1b" not in table
    assert all(shown in table for shown in ("caf\\xe9.jpg", "new\\nline.jpg", "[bold]x"))


def test_a_label_is_no_formula_either(run: Run, folder: Path, monkeypatch: Any, app: Flask) -> None:
    predictor = app.extensions["loader"].require_ready().predictor
    classes = [replace(one, label=f"@SUM(1){one.label}") for one in predictor.classes]
    monkeypatch.setattr(predictor, "classes", tuple(classes))
    done = run(folder / "b.jpg", "--format", "csv", "--neighbours", "0")
    assert next(csv.DictReader(io.StringIO(done.stdout)))["label_1"].startswith("'@SUM(1)")


def test_what_is_passed_over_in_a_folder_is_named(run: Run, folder: Path) -> None:
    done = run(folder, "--neighbours", "0", "--format", "csv")
    assert done.exit_code == 0
    said = done.stderr.strip().splitlines()[-1]
    assert str(folder / "notes.txt") in said
    assert str(folder / "inner/.hidden") in said
    assert "b.jpg" not in said
    assert "notes.txt" not in done.stdout
    assert "Passed over" not in run(folder / "b.jpg", "--neighbours", "0").stderr


def test_a_file_is_written_whole(run: Run, tmp_path: Path, folder: Path) -> None:
    asked = (folder / "b.jpg", "--format", "csv", "--neighbours", "1")
    kept, link = tmp_path / "answers.csv", tmp_path / "link.csv"
    kept.write_text("from before")
    kept.chmod(0o600)
    link.symlink_to(kept)
    done = run(*asked, "--output", link)
    assert (done.exit_code, done.stdout) == (0, "")
    assert kept.read_text() == run(*asked).stdout
    assert link.is_symlink()
    assert kept.stat().st_mode & 0o777 == 0o600
    assert sorted(file.name for file in tmp_path.iterdir()) == [
        *("answers.csv", "link.csv", "photographs"),
    ]


@pytest.mark.parametrize("place", ["", "gone/answers.csv", "full.csv"])
def test_where_nothing_can_be_written_nothing_is_computed(
    run: Run, tmp_path: Path, folder: Path, place: str, monkeypatch: Any
) -> None:
    if place == "full.csv":
        monkeypatch.setattr(os, "fsync", lambda _: (_ for _ in ()).throw(OSError(28, "No space")))
    done = run(folder / "b.jpg", "--output", tmp_path / place)
    assert done.exit_code == 2
    assert ("Classifying" in done.stderr) == (place == "full.csv")
    assert {file.name for file in tmp_path.iterdir()} == {"photographs"}


def test_a_device_is_written_as_it_is(run: Run, folder: Path) -> None:
    done = run(folder / "b.jpg", "--neighbours", "0", "--output", "/dev/null")
    assert done.exit_code == 0, done.output
    assert Path("/dev/null").is_char_device()


def test_an_interrupted_one_leaves_the_file_from_before(tmp_path: Path, settings: Settings) -> None:
    picture = tmp_path / "000.jpg"
    Image.effect_noise((64, 64), 60).save(picture)
    for number in range(1, 500):
        (tmp_path / f"{number:03}.jpg").symlink_to(picture)
    output = tmp_path / "answers.csv"
    output.write_text("from before")
    command = [sys.executable, "-m", "flask", "classify", str(tmp_path), "--output", str(output)]
    environ = os.environ | {"ALEXNET_HOME": str(settings.home.root), "ALEXNET_DEVICE": "cpu"}
    environ |= {"FORCE_COLOR": "1", "TERM": "xterm"}  # shows the progress as on a terminal
    with subprocess.Popen(
        command, cwd=PROJECT, env=environ, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stderr is not None
        said = ""
        while "/500" not in said:
            character = process.stderr.read(1)
            assert character, said
            said += character
        assert list(tmp_path.glob(".*.part"))
        process.send_signal(signal.SIGINT)
        said += process.stderr.read()
    assert process.returncode == 130
    assert said.strip().endswith("Interrupted; nothing was written.")
    assert "Traceback" not in said
    assert output.read_text() == "from before"
    assert not list(tmp_path.glob(".*.part"))

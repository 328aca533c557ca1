"""The pages of runs: what they draw and say, against what training wrote."""

import io
import json
import os
import re
import shutil
import subprocess
import time
from collections.abc import Callable
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from flask import Flask
from flask.testing import FlaskClient
from PIL import Image

from app.config import Settings
from app.views.format import format_scientific
from app.views.runs.chart import list_epoch_ticks, make_linear_axis, make_log_axis
from model.network.architectures import VARIANTS
from model.network.config import AlexNetConfig
from model.network.definition import describe_definition
from model.network.paper_layers import list_layers
from storage.evaluations import (
    Evaluation,
    EvaluationData,
    Mistake,
    ModelInfo,
    Result,
    save_evaluation,
)
from storage.home import Home
from storage.recipe import RecipeFields
from storage.runs import Epoch, RunFolder
from storage.steps import StepRecord, append_step
from training.evaluation.confidence import error_rate
from training.recipe.config import PAPER
from training.records.reporting import draw_conv1

NAME = "20261124-150627-demo-photographs"
RATES = (0.01, 0.01, 0.001, 0.001, 0.0001)
ERRORS = (0.62, 0.41, 0.28, 0.3, 0.25)
LOSSES = (2.3, 1.9, 1.2, 1.1, 0.9)


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory, open_app) -> Flask:
    """The application over a home with neither weights nor index."""
    root = tmp_path_factory.mktemp("home")
    return open_app(Settings.from_environment({"ALEXNET_HOME": str(root)}))


@pytest.fixture
def home(app: Flask) -> Home:
    """Its home, without runs."""
    home: Home = app.extensions["settings"].home
    for folder in (home.runs, home.evaluations):
        shutil.rmtree(folder, ignore_errors=True)
    return home


def record(home: Home, name: str = NAME, **told: Any) -> RunFolder:
    """Write a run by training's own means."""
    run = RunFolder(home.runs / name)
    run.path.mkdir(parents=True)
    known = {"preset": "demo", "data": "/server/photographs", "finished": True, "weights": "a" * 32}
    run.update_description(**{**known, "recipe": asdict(replace(PAPER, epochs=10)), **told})
    for number, values in enumerate(zip(RATES, LOSSES, ERRORS, strict=True), start=1):
        run.append_epoch(epoch(number, *values))
    return run


def epoch(number: int, rate: float, loss: float, error: float) -> Epoch[float]:
    """An epoch of these values."""
    return Epoch(
        epoch=number,
        rate=rate,
        loss=loss,
        top1_error=error,
        top5_error=error / 5,
        images_per_second=20.0,
        data_wait=0.0,
        seconds=30.0,
        memory=3.0,
    )


def share_of(text: str) -> float:
    """Read what the page writes: 41.0 %, 0.01, 10⁻⁴."""
    number, percent = re.fullmatch(r"([\d.⁻⁰¹²³⁴⁵⁶⁷⁸⁹]+)\u2009?(%?)", text).groups()
    if "⁻" in number:
        return 10.0 ** -int(number[3:].translate(str.maketrans("⁰¹²³⁴⁵⁶⁷⁸⁹", "0123456789")))
    return float(number) / (100 if percent else 1)


def drawn(plot, line: int = 0) -> list[tuple[float, float]]:
    """A curve's places, in per cent from the left and the top; the last line is drawn first."""
    words = plot.all("path")[::-1][line].attributes["d"]
    found = re.findall(r"[ML]([\d.]+) ([\d.]+)", words)
    return [(float(x) / 10, float(y) / 10) for x, y in found]


def scale(plot, anchor: str) -> Callable[[float], float]:
    """Read an axis: what a place in per cent means, by its first and last number."""
    side = {"end": "y", "middle": "x"}[anchor]
    ticks = [
        (float(text.attributes[side].rstrip("%")), share_of(text.text))
        for text in plot.all("text")
        if text.attributes.get("text-anchor") == anchor and text.text != "epoch"
    ]
    (from_, low), (to, high) = ticks[0], ticks[-1]
    return lambda place: low + (place - from_) / (to - from_) * (high - low)


def test_the_curves_lie_where_the_axes_say(home: Home, client: FlaskClient, page) -> None:
    record(home)
    shown = page(client.get(f"/training/{NAME}"))
    error, loss, rates = shown.all("svg", "plot")
    for plot, line, values in (
        (error, 0, ERRORS),
        (error, 1, [e / 5 for e in ERRORS]),
        (loss, 0, LOSSES),
    ):
        x, y = scale(plot, "middle"), scale(plot, "end")
        places = drawn(plot, line)
        assert [x(left) for left, _ in places] == pytest.approx([1, 2, 3, 4, 5], abs=0.01)
        assert [y(top) for _, top in places] == pytest.approx(values, rel=0.01)
    # The learning rate holds for whole epochs, on a scale of powers of ten.
    y, places = scale(rates, "end"), drawn(rates)
    assert len(places) == 10
    tops = sorted({top for _, top in places})
    assert tops == pytest.approx([0, 50, 100])
    assert y(0) == 0.01
    assert y(100) == 1e-4


def test_the_drops_of_the_rate_are_marked_between_their_epochs(
    home: Home, client: FlaskClient, page
) -> None:
    record(home)
    plot = page(client.get(f"/training/{NAME}")).all("svg", "plot")[0]
    x = scale(plot, "middle")
    marks = [x(float(mark.attributes["x1"].rstrip("%"))) for mark in plot.all("line", "rate-drop")]
    assert marks == pytest.approx([2.5, 4.5], abs=0.01)
    assert [text.text for text in plot.all("text", "rate-drop-label")] == ["÷\u200910", "÷\u200910"]


def test_steps_that_float16_skipped_are_a_column_of_its_runs_alone(
    home: Home, client: FlaskClient, page
) -> None:
    epochs = [replace(epoch(n, 0.01, 1.0, 0.5), skipped_steps=n - 1) for n in (1, 2, 3)]
    record(home, precision="f16").write_epochs(epochs)
    record(home, "20261124-150628-demo-photographs", precision="bf16")
    columns = {}
    for name in (NAME, "20261124-150628-demo-photographs"):
        table = page(client.get(f"/training/{name}")).one("table", "numbers")
        rows = [row.all("td") for row in table.all("tr")[1:]]
        columns[name] = [[cell.text for cell in cells] for cells in rows]
    with_it, without = columns.values()
    assert [row[10] for row in with_it] == ["0", "1", "2"]
    assert {len(row) for row in without} == {len(with_it[0]) - 1}


COSINE = {"schedule": "cosine", "warmup": 1, "crops": "areas", "smoothing": 0.1}


def test_a_rate_that_falls_in_every_epoch_has_no_drops(
    home: Home, client: FlaskClient, page
) -> None:
    recipe = asdict(replace(PAPER, epochs=10, **COSINE))
    record(home, recipe=recipe)
    error, _, rate = page(client.get(f"/training/{NAME}")).all("svg", "plot")
    assert error.all("line", "rate-drop") == []
    # Each epoch's rate stands in its middle, with a line between.
    x = scale(rate, "middle")
    assert [x(left) for left, _ in drawn(rate)] == pytest.approx([1, 2, 3, 4, 5], abs=0.01)


def test_a_rate_that_is_less_than_halved_has_not_dropped(
    home: Home, client: FlaskClient, page
) -> None:
    run = record(home)
    run.write_epochs([epoch(n, rate, 1.0, 0.5) for n, rate in enumerate((0.01, 0.006, 0.0006), 1)])
    plot = page(client.get(f"/training/{NAME}")).all("svg", "plot")[0]
    assert [text.text for text in plot.all("text", "rate-drop-label")] == ["÷\u200910"]


def test_conv1s_distance_from_noise_is_a_curve_where_it_was_recorded(
    home: Home, client: FlaskClient, page
) -> None:
    run = record(home)
    assert len(page(client.get(f"/training/{NAME}")).all("svg", "plot")) == 3
    shares = [None, 0.2, 0.5, 0.8, 0.9]
    epochs = [epoch(n, *v) for n, v in enumerate(zip(RATES, LOSSES, ERRORS, strict=True), start=1)]
    run.write_epochs(
        [replace(e, conv1_low_frequency=s) for e, s in zip(epochs, shares, strict=True)]
    )
    shown = page(client.get(f"/training/{NAME}"))
    plot = shown.one("svg", "conv1")
    x, y = scale(plot, "middle"), scale(plot, "end")
    places = drawn(plot)
    assert [x(left) for left, _ in places] == pytest.approx([2, 3, 4, 5], abs=0.01)
    assert [y(top) for _, top in places] == pytest.approx(shares[1:], abs=0.002)
    # Beside it the share of noise in kernels of 11×11.
    assert [x(left) for left, _ in drawn(plot, 1)] == pytest.approx([1, 5], abs=0.01)
    assert [y(top) for _, top in drawn(plot, 1)] == pytest.approx([21 / 121] * 2, abs=0.002)
    rows = shown.one("table", "numbers").one("tbody").all("tr")
    assert [row.children[-1].text for row in rows][:2] == ["–", "20.0\u2009%"]
    told = client.get(f"/api/runs/{NAME}").json["epochs"]
    assert [e["conv1_low_frequency"] for e in told] == shares


def test_every_number_is_in_the_table(home: Home, client: FlaskClient, page) -> None:
    run = record(home)
    run.append_epoch(epoch(6, 0.00001, float("nan"), float("inf")))
    tables = page(client.get(f"/training/{NAME}")).all("table")
    table = next(table for table in tables if table.attributes.get("id") == "epochs")
    rows = [[cell.text for cell in row.children] for row in table.one("tbody").all("tr")]
    assert [row[0] for row in rows] == ["1", "2", "3", "4", "5", "6"]
    assert [share_of(row[1]) for row in rows] == pytest.approx([*RATES, 0.00001])
    assert [share_of(row[2]) for row in rows[:5]] == list(LOSSES)
    assert {(row[3], row[4]) for row in rows} == {("–", "–")}  # older runs lack them
    assert [share_of(row[5]) for row in rows[:5]] == pytest.approx(ERRORS)
    assert rows[5][2] == rows[5][5] == "–"
    assert rows[0][8] == "30\u2009s"
    run.append_epoch(
        replace(epoch(7, 0.1, 0.5, 0.5), validation_loss=1.25, training_top1_error=0.75)
    )
    tables = page(client.get(f"/training/{NAME}")).all("table")
    table = next(table for table in tables if table.attributes.get("id") == "epochs")
    last = [cell.text for cell in table.one("tbody").all("tr")[-1].children]
    assert (share_of(last[3]), share_of(last[4])) == (1.25, 0.75)


def test_a_gap_interrupts_the_curve(home: Home, client: FlaskClient, page) -> None:
    run = record(home)
    for number, loss in ((6, float("nan")), (7, 0.5)):
        run.append_epoch(epoch(number, 0.0001, loss, 0.2))
    loss = page(client.get(f"/training/{NAME}")).all("svg", "plot")[1]
    assert loss.one("path").attributes["d"].count("M") == 2
    assert len(drawn(loss)) == 6


@pytest.mark.parametrize("top", [0.0, 1e-29, 0.3, 0.9999, 1.0, 6.9, 7.1, 1234.5, 1e15])
def test_an_axis_holds_its_values_and_has_few_round_numbers(top: float) -> None:
    axis = make_linear_axis([0.0, top])
    assert axis.low == 0
    assert axis.high >= top
    assert top == 0 or axis.high <= 2 * top
    small = make_log_axis([max(top, 1e-29)])
    assert small.low <= max(top, 1e-29) * (1 + 1e-9)
    assert small.high >= max(top, 1e-29) * (1 - 1e-9)
    assert 2 <= len(list_epoch_ticks(make_linear_axis([50]))) <= 8


def test_small_numbers_are_written_as_powers() -> None:
    said = [
        format_scientific(value) for value in (0.0, 0.01, 0.00125, 0.000125, 1e-5, 0.0009996, 2e6)
    ]
    plain = [text.replace("\u2009", " ") for text in said]
    assert plain == ["0", "0.01", "0.00125", "1.25 · 10⁻⁴", "10⁻⁵", "10⁻³", "2 · 10⁶"]


def test_departures_from_the_paper_stand_beside_its_values(
    home: Home, client: FlaskClient, page
) -> None:
    record(home)
    rows = page(client.get(f"/training/{NAME}")).all("tr", "differs")
    assert [row.one("th").text.split()[:2] for row in rows] == [["Maximum", "epochs"]]
    assert re.findall(r"\d+", rows[0].one("td").text) == ["10", "90"]


def test_fields_without_effect_are_left_out(home: Home, client: FlaskClient, page) -> None:
    plateau, cosine = PAPER, replace(PAPER, **COSINE)
    labels = {}
    for name, recipe in (("plateau", plateau), ("cosine", cosine)):
        record(home, name, recipe=asdict(recipe))
        table = page(client.get(f"/training/{name}")).all("table", "facts-table")[0]
        labels[name] = {row.one("th").text.split(" §")[0] for row in table.all("tr")}
    named = {f.name: f.metadata["label"] for f in fields(RecipeFields)}
    drops = {named[name] for name in ("drops", "patience", "drop_after")}
    always = set(named.values()) - {named["fall"], named["definition"]}
    assert labels["plateau"] == always - {named["smallest_area"]}
    assert labels["cosine"] == always - drops


def test_a_network_that_files_define_is_named_without_its_layers(
    home: Home, client: FlaskClient, page
) -> None:
    layers = tuple(list_layers(VARIANTS["one-gpu"].config))
    text = describe_definition(AlexNetConfig(net="defined", layers=layers))
    run = record(home, recipe=asdict(replace(PAPER, variant="defined", definition=text)))
    run.conv1.mkdir()
    draw_conv1(torch.rand(48, 3, 11, 11), 1).save(run.conv1_picture(5))
    shown = page(client.get(f"/training/{NAME}"))
    labels = [row.one("th").text for row in shown.all("table", "facts-table")[0].all("tr")]
    label = next(f.metadata["label"] for f in fields(RecipeFields) if f.name == "definition")
    assert label in labels
    assert "kernel" not in shown.all("table", "facts-table")[0].text


def test_the_list_says_of_each_run_what_came_out(home: Home, client: FlaskClient, page) -> None:
    record(home)
    record(home, "20250101-000000-small-x", finished=False)
    shown = page(client.get("/training"))
    first, second = shown.all("li", "run")
    assert first.one("a").attributes["href"] == f"/training/{NAME}"
    figures = {row.one("dt").text: row.one("dd").text for row in first.one("dl").children}
    assert figures == {
        "epochs": "5 of 10",
        "top-1, lowest": "25.0\u2009%",
        "top-1, last": "25.0\u2009%",
        "top-5, last": "5.0\u2009%",
    }
    assert first.one("span", "status").text == "finished"
    assert second.one("span", "status").text == "running"
    assert "from 62.0\u2009% to 25.0\u2009%" in first.one("svg").attributes["aria-label"]
    assert "/server" not in shown.text  # where things lie is nobody's business


def test_nothing_there_yet_says_which_command_to_run(home: Home, client: FlaskClient, page) -> None:
    shown = page(client.get("/training"))
    assert shown.one("code").text == "python training/run.py"


def test_a_page_is_sent_again_only_when_something_was_written(
    home: Home, client: FlaskClient
) -> None:
    run = record(home, finished=False)
    for address in ("/training", f"/training/{NAME}"):
        tag = client.get(address).headers["ETag"]
        answer = client.get(address, headers={"If-None-Match": tag})
        assert (answer.status_code, answer.data) == (304, b"")
        assert "no-cache" in answer.headers["Cache-Control"]
        run.append_epoch(epoch(len(run.epochs.read_text().splitlines()) + 1, 0.0001, 0.8, 0.2))
        assert client.get(address, headers={"If-None-Match": tag}).status_code == 200


def test_only_what_is_running_is_followed(home: Home, client: FlaskClient, page) -> None:
    run = record(home, finished=False)
    for finished in (False, True):
        run.update_description(finished=finished)
        shown = page(client.get(f"/training/{NAME}"))
        live = [part for part in shown.all("div") if "data-live" in part.attributes]
        assert bool(live) is not finished
        # While it runs there is room for epochs to come.
        assert bool(shown.all("rect", "future")) is not finished


@pytest.mark.parametrize(
    "name",
    [
        "a b",
        "<b>&amp;",
        "100%",
        "%2e%2e",
        "ü n",
        "a?b#c",
        "a'b\"c",
        "compare",
        "$(rm -r x)",
        "new\nline",
    ],
)
def test_a_run_of_any_name_has_its_page(home: Home, client: FlaskClient, page, name: str) -> None:
    record(home, name, finished=False)
    folder = home.runs / name
    (folder / "checkpoint.safetensors").write_bytes(b"")
    for path in (*folder.iterdir(), folder):
        os.utime(path, (0, 1e9))
    href = page(client.get("/training")).one("li", "run").one("a").attributes["href"]
    answer = client.get(href)
    assert answer.status_code == 200
    shown = page(answer)
    assert shown.one("h1").text == name
    # What is there to copy means this folder to a shell, and nothing else.
    command = next(code.text for code in shown.all("code") if "--resume" in code.text)
    script = f"unset ALEXNET_HOME; printf '%s\\0' {command}"
    words = subprocess.run(["sh", "-c", script], capture_output=True, check=True).stdout
    assert words.decode().split("\0")[2:4] == ["--resume", f"var/runs/{name}"]


@pytest.mark.parametrize(
    "address",
    [
        "nothing",
        "..",
        "../runs",
        "..%2f..%2fsecret_key",
        "x%00",
        f"{NAME}/conv1/9.png",
        f"{NAME}/conv1/-1.png",
        "nothing/conv1/1.png",
        "..%2fruns/conv1/1.png",
        "evaluations/x/0/0/picture.jpg",
    ],
)
def test_what_is_not_there_is_not_found(home: Home, client: FlaskClient, address: str) -> None:
    record(home)
    assert client.get(f"/training/{address}").status_code == 404


def test_conv1_is_that_of_the_run_with_its_gaps_open(home: Home, client: FlaskClient, page) -> None:
    run = record(home)
    kernels = torch.randn(96, 3, 11, 11, generator=torch.manual_seed(0))
    drawing = draw_conv1(kernels)
    (run.path / "conv1").mkdir()
    for number in range(1, 21):
        drawing.save(run.path / "conv1" / f"epoch-{number:03d}.png")
    shown = page(client.get(f"/training/{NAME}"))
    pictures = shown.one("ol", "kernels").all("img")
    assert [p.attributes["alt"] for p in pictures] == [
        f"conv1 after epoch {n}" for n in (1, 5, 9, 12, 16, 20)
    ]
    assert (pictures[0].attributes["width"], pictures[0].attributes["height"]) == ("776", "284")
    assert [a.text for a in shown.one("ul", "conv1-epochs").all("a")][-1].endswith("20")
    served = client.get(pictures[0].attributes["src"])
    assert served.mimetype == "image/png"
    pixels = np.asarray(Image.open(io.BytesIO(served.data)))
    seen = pixels[..., 3] == 255
    assert (pixels[seen][:, :3] == np.asarray(drawing)[seen]).all()
    assert seen.sum() == 96 * 44 * 44
    tag = served.headers["ETag"]
    again = client.get(pictures[0].attributes["src"], headers={"If-None-Match": tag})
    assert again.status_code == 304
    (run.path / "conv1/epoch-001.png").write_bytes(b"half a pic")
    assert client.get(pictures[0].attributes["src"]).status_code == 404


def compared(client: FlaskClient, page, *names: str) -> Any:
    """The page of these runs side by side."""
    return page(client.get("/training/compare", query_string=[("run", name) for name in names]))


def test_compared_runs_are_told_apart_and_only_differences_are_listed(
    home: Home, client: FlaskClient, page
) -> None:
    told = {"recipe": asdict(replace(PAPER, epochs=10, batch=64)), "commit": "1"}
    record(home, "a", commit="1")
    record(home, "b", **told)
    record(home, "c", **told)
    shown = compared(client, page, "a", "b", "c")
    error, loss = shown.all("svg", "plot")
    assert [text.text for text in error.all("text", "letter")] == ["A", "B", "C"]
    tones = [path.attributes["class"] for path in loss.all("path")]
    assert len(set(tones)) == 3
    table = shown.all("table", "words")[-1]
    rows = [[cell.text for cell in row.children] for row in table.one("tbody").all("tr")]
    assert rows == [["Batch size §5", "128", "64", "64"]]
    assert len(compared(client, page, "a", "gone", "b").all("svg", "plot")) == 2
    for too_few in (("a",), ("a", "a")):
        assert not compared(client, page, *too_few).all("svg", "plot")
    names = [f"x{n}" for n in range(7)]
    for name in names:
        record(home, name)
    many = compared(client, page, *names)
    assert len(many.one("ol", "compared-runs").children) == 6


@pytest.fixture
def photographs_of(tmp_path: Path) -> Path:
    """Photographs that were judged, and one outside their folder."""
    folder = tmp_path / "judged"
    (folder / "val/cat").mkdir(parents=True)
    for place in ("judged/val/cat/1.jpg", "outside.jpg"):
        Image.fromarray(np.full((40, 60, 3), (200, 90, 30), np.uint8)).save(tmp_path / place)
    (folder / "val/cat/link.jpg").symlink_to(tmp_path / "outside.jpg")
    (folder / "val/cat/broken.jpg").write_bytes(b"no image")
    return folder


PATHS = (
    "val/cat/1.jpg",
    "val/cat/link.jpg",
    "../outside.jpg",
    "val/cat/broken.jpg",
    "val/cat/2.jpg",
)


def verdict(*paths: str, classes: tuple[str, ...] = ("cat", "dog")) -> Evaluation:
    """A verdict on one network: of four cats one is taken for a dog, of two dogs none."""
    mistakes = tuple(
        Mistake(
            path=path,
            true="cat",
            true_label="a cat",
            true_probability=0.2,
            guess="dog",
            guess_label="a dog",
            probability=0.75,
            rank=2,
        )
        for path in paths
    )
    wrong = np.array([True, False, False, False, False, False])
    result = Result(
        name="net",
        crops="ten",
        top1=error_rate(wrong),
        top5=error_rate(wrong & False),
        classes=(),
        confusion={"cat": {"cat": 3, "dog": 1}, **{c: {c: 2} for c in classes[1:]}},
        mistakes=mistakes,
    )
    data = EvaluationData(
        folder="judged", layout="split", split="val", images=6, classes=2, unreadable=(), unknown={}
    )
    judged = ModelInfo(
        name="net", identity="a" * 32, classes=2, side=256, crop=224, preset="", epochs=5, images=9
    )
    return Evaluation(
        format=1,
        data=data,
        precision="f32",
        models=(judged,),
        labels={c: f"a {c}" for c in classes},
        results=(replace(result, crops="centre", mistakes=()), result),
        differences=(),
    )


def test_an_evaluation_is_shown_with_the_run_whose_weights_it_judged(
    home: Home, client: FlaskClient, page, photographs_of: Path
) -> None:
    record(home)
    record(home, "other", weights="b" * 32)
    assert not page(client.get(f"/training/{NAME}")).all("table", "matrix")
    save_evaluation(verdict("val/cat/1.jpg"), home, photographs_of)
    assert not page(client.get("/training/other")).all("table", "matrix")
    shown = page(client.get(f"/training/{NAME}"))
    (errors,) = [t for t in shown.all("table") if t.text.strip().startswith("Errors with")]
    rows = [[cell.text for cell in row.children] for row in errors.one("tbody").all("tr")]
    # Wilson's interval of one in six, and of none in six.
    assert rows == [
        [
            crops,
            "16.7\u2009%",
            "3.0\u2009% – 56.4\u2009%",
            "0.0\u2009%",
            "0.0\u2009% – 39.0\u2009%",
            "6",
        ]
        for crops in ("centre crop", "ten crops")
    ]
    matrix = shown.one("table", "matrix")
    assert [th.attributes["scope"] for th in matrix.all("th")] == ["col"] * 2 + ["row"] * 2
    counts = [[td.text for td in row.all("td")] for row in matrix.one("tbody").all("tr")]
    assert counts == [["3", "1"], ["0", "2"]]
    mistake = shown.one("ol", "mistakes").one("li")
    assert mistake.one("span", "correct").text.split()[-4:] == ["a", "cat", "20.0", "%"]


def test_only_photographs_of_the_verdict_inside_its_folder_are_served(
    home: Home, client: FlaskClient, page, photographs_of: Path
) -> None:
    record(home)
    kept = save_evaluation(verdict(*PATHS), home, photographs_of)
    answers = [
        client.get(img.attributes["src"])
        for img in page(client.get(f"/training/{NAME}")).one("ol", "mistakes").all("img")
    ]
    assert [answer.status_code for answer in answers] == [200, 404, 404, 404, 404]
    assert {answer.mimetype for answer in answers[1:]} == {"image/svg+xml"}
    served = Image.open(io.BytesIO(answers[0].data))
    assert (served.format, served.size) == ("JPEG", (256, 256))
    assert np.abs(np.asarray(served).mean((0, 1)) - (200, 90, 30)).max() < 3
    whole = client.get(f"/training/evaluations/{kept.stem}/1/0/picture.jpg")
    assert Image.open(io.BytesIO(whole.data)).size == (60, 40)
    for place in ("0/0", "1/5", "2/0", "1/99999999999"):
        assert (
            client.get(f"/training/evaluations/{kept.stem}/{place}/picture.jpg").status_code == 404
        )
    told = json.loads(kept.read_text())
    for root in ("judged", "", "/nowhere", "/", None, 3):
        kept.write_text(json.dumps(told | {"root": root}))
        answer = client.get(f"/training/evaluations/{kept.stem}/1/0/picture.jpg")
        assert answer.status_code == 404


def test_of_many_classes_the_strongest_confusions_are_listed(
    home: Home, client: FlaskClient, page, photographs_of: Path
) -> None:
    record(home)
    save_evaluation(
        verdict(classes=("cat", "dog", *(f"c{n}" for n in range(29)))), home, photographs_of
    )
    shown = page(client.get(f"/training/{NAME}"))
    assert not shown.all("table", "matrix")
    (line,) = shown.one("ol", "confusions").all("li")
    assert line.one("span", "number").text.split() == ["1", "of", "4"]
    assert line.text.index("a cat") < line.text.index("a dog")


def test_of_several_evaluations_the_newest_is_shown_and_the_others_linked(
    home: Home, client: FlaskClient, page, photographs_of: Path
) -> None:
    record(home)
    first, second = (save_evaluation(verdict(), home, photographs_of) for _ in range(2))
    assert first != second
    second.write_bytes(b'{"format": 1,')
    assert not earlier(page(client.get(f"/training/{NAME}")))
    third = save_evaluation(replace(verdict(), precision="bf16"), home, photographs_of)
    shown = page(client.get(f"/training/{NAME}"))
    (link,) = earlier(shown)
    assert first.stem in link
    assert third.stem not in link
    assert client.get(link).status_code == 200


def earlier(shown: Any) -> list[str]:
    """The links to earlier evaluations."""
    links = (a.attributes["href"] for a in shown.all("a"))
    return [link for link in links if "evaluation=" in link]


def test_a_running_run_shows_how_far_its_epoch_is(home: Home, client: FlaskClient, page) -> None:
    run = record(home, finished=False)
    step = StepRecord(
        time=time.time(),
        epoch=len(RATES) + 1,
        step=1200,
        steps=4800,
        images=153_600,
        loss=0.8125,
        images_per_second=321.5,
        data_wait=0.0,
        memory=1.0,
        remaining=7200.0,
        rates={},
        gradient_norms={},
        update_norms={},
    )
    append_step(run.steps, step)
    shown = page(client.get(f"/training/{NAME}"))
    bar = shown.one("progress").attributes
    assert (bar["value"], bar["max"]) == ("1200", "4800")
    line = shown.one("p", "epoch-progress")
    numbers = [re.sub(r"\D", "", number.text) for number in line.all(class_="number")]
    assert numbers == ["1200", "4800", "153600", "0812", "3215"]
    # Of an epoch that is over, nothing is in progress.
    append_step(run.steps, replace(step, epoch=len(RATES), step=4800))
    assert page(client.get(f"/training/{NAME}")).all("progress") == []

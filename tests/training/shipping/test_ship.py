"""The folder that ships: complete, free of this machine's paths, its card true to its files."""

import io
import json
import re
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from rich.console import Console

from model.dataset.folder import scan_folder
from model.network.alexnet import AlexNet
from model.network.architectures import VARIANTS
from model.weights.checkpoint import Weights, load_weights, save_weights
from model.weights.header import read_weights_header
from storage.evaluation_files import parse_evaluation
from storage.home import Home
from storage.pretrained import (
    CARD_FILE,
    CONV1_FILE,
    EVALUATION_FILE,
    MEASUREMENTS_FILE,
    PRETRAINED_DATA,
    SHIPPED,
)
from storage.runs import Epoch, RunFolder, read_run_folder
from training.evaluation.run import evaluate
from training.recipe.config import SMALL
from training.records.reporting import draw_conv1
from training.shipping.card import write_shipped_card
from training.shipping.measure import measure_photographs
from training.shipping.run import MAX_CONV1_PICTURES, ShipError, ship

MAX_BYTES = 20_000_000
EPOCHS = 9


@dataclass
class Made:
    """A finished run with its compressed weights, and what was shipped of it."""

    home: Home
    run: RunFolder
    weights: Path
    shipped: RunFolder


def make_run(home: Home, weights: Weights, data: Path) -> RunFolder:
    """Write the folder of a run as training leaves it."""
    run = RunFolder(home.runs / "20261127-000000-small-photographs")
    run.conv1.mkdir(parents=True)
    run.update_description(
        data=str(data),
        content="0123456789abcdef",
        recipe=asdict(SMALL),
        preset="small",
        precision="f32",
        commit="abc",
        finished=True,
        weights=weights.identity,
        start_file=str(data / "weights.safetensors"),
        options={"device": "auto"},
    )
    run.environment.write_text(json.dumps({"python": "3.11", "arguments": [str(data)]}))
    for number in range(1, EPOCHS + 1):
        values = {"top1_error": 0.5 / number, "top5_error": 0.25 / number}
        zeros = {"images_per_second": 1.0, "data_wait": 0.0, "seconds": 1.0, "memory": 1.0}
        run.append_epoch(Epoch(epoch=number, rate=0.01, loss=1.0, **values, **zeros))
        picture = draw_conv1(weights.state["conv1.weight"], weights.config.towers)
        picture.save(run.conv1_picture(number))
    return run


@pytest.fixture(scope="module")
def made(
    tmp_path_factory: pytest.TempPathFactory,
    photographs: Path,
    weights_of: Callable[..., Weights],
) -> Made:
    """A small network, evaluated on the photographs and shipped."""
    place = tmp_path_factory.mktemp("ship")
    home = Home(root=place / "home")
    names = [known.folder for known in scan_folder(photographs).classes]
    config = replace(VARIANTS["cifar"].config, classes=len(names))
    torch.manual_seed(3)
    state = AlexNet(config).state_dict()
    weights = weights_of(config, names, state=state, data=str(photographs), images=24, epochs=9)
    file = place / "compressed.safetensors"
    save_weights(weights, file, compressed=True)
    run = make_run(home, weights, photographs)
    words = [str(file), "--data", str(photographs), "--device", "cpu", "--precision", "f32"]
    evaluate(words, home, Console(file=io.StringIO()))
    # A later evaluation beside another network is not what ships.
    other = place / "other.safetensors"
    save_weights(weights_of(config, names, seed=4), other)
    evaluate([str(other), *words], home, Console(file=io.StringIO()))
    precision = place / "precision.json"
    said = {"weights": weights.identity, "images": 12, "share": 0.75, "unreadable": []}
    precision.write_text(json.dumps(said))
    output = place / "shipped"
    words = [str(run.path), "--weights", str(file), "--precision", str(precision)]
    shipped = ship([*words, "--output", str(output)], home, Console(file=io.StringIO()))
    return Made(home, run, file, shipped)


def test_the_folder_is_a_run_with_everything_that_the_pages_show(made: Made) -> None:
    found = read_run_folder("shipped", made.shipped.path)
    assert found is not None
    assert (found.finished, found.pretrained, found.data) == (True, True, PRETRAINED_DATA)
    assert found.weights == load_weights(made.shipped.weights).identity
    assert len(found.epochs) == EPOCHS
    assert len(found.conv1_epochs) == MAX_CONV1_PICTURES
    assert {1, EPOCHS} <= set(found.conv1_epochs)
    text = (made.shipped.path / EVALUATION_FILE).read_text()
    evaluation = parse_evaluation("shipped", text.encode())
    assert evaluation is not None
    assert [model.identity for model in evaluation.models] == [found.weights]
    results = evaluation.results_for(found.weights)
    ten = next(result for result in results if result.crops == "ten")
    assert ten.top1 is not None
    assert ten.top5 is not None
    assert found.ten_crops == (ten.top1.error, ten.top5.error)


def test_its_weights_are_the_same_and_still_compressed(made: Made) -> None:
    before, after = load_weights(made.weights), load_weights(made.shipped.weights)
    assert after.identity == before.identity
    assert read_weights_header(made.shipped.weights).compressed
    assert after.provenance.data == PRETRAINED_DATA
    assert made.shipped.weights.stat().st_size == pytest.approx(made.weights.stat().st_size, 0.01)


def test_nothing_in_it_names_a_place_on_this_machine(made: Made) -> None:
    check_no_paths(made.shipped)


def check_no_paths(run: RunFolder) -> None:
    """No text of the folder, nor its weights' header, holds an absolute path."""
    for file in (path for path in run.path.rglob("*") if path.is_file()):
        if file.suffix in (".json", ".jsonl", ".md"):
            text = re.sub(r"https?://\S+", "", file.read_text())
            assert not re.search(r"(?<![\w.)/])/\w+/", text), file
    header = read_weights_header(run.weights)
    assert "/" not in header.provenance.data


def test_the_card_has_the_numbers_of_the_files(made: Made) -> None:
    card = (made.shipped.path / CARD_FILE).read_text()
    check_card(made.shipped, card)
    assert "75.0 % of 12" in card
    # The epochs of the curve, and the recipe where it is not the paper's.
    assert f"| {EPOCHS} | 0.01 | 1.000 |" in card
    assert "| cosine | plateau |" in card


def check_card(run: RunFolder, card: str) -> None:
    """A card agrees with the files beside it."""
    assert card == write_shipped_card(run)
    weights = load_weights(run.weights)
    evaluation: dict[str, Any] = json.loads((run.path / EVALUATION_FILE).read_text())
    assert weights.identity in card
    for known in weights.classes:
        assert known.label in card
    for result in evaluation["results"]:
        for rate in (result["top1"], result["top5"]):
            numbers = (100 * rate[end] for end in ("error", "low", "high"))
            assert "{:.2f} % ({:.2f}–{:.2f})".format(*numbers) in card
    measured = json.loads((run.path / MEASUREMENTS_FILE).read_text())
    assert measured["bytes"] == run.weights.stat().st_size
    assert f"{measured['bytes'] / 1e6:.1f} MB" in card
    assert (run.path / CONV1_FILE).exists()
    assert f"]({CONV1_FILE})" in card


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda made, words: made.run.update_description(finished=False), "finished run"),
        (lambda made, words: words.extend(["--precision", str(made.run.epochs)]), "--json"),
    ],
)
def test_what_is_not_finished_or_not_measured_is_not_shipped(
    made: Made, tmp_path: Path, change: Callable[[Made, list[str]], None], said: str
) -> None:
    words = [str(made.run.path), "--weights", str(made.weights), "--output", str(tmp_path / "out")]
    change(made, words)
    try:
        with pytest.raises(ShipError, match=said):
            ship(words, made.home, Console(file=io.StringIO()))
    finally:
        made.run.update_description(finished=True)
    with pytest.raises(ShipError, match=r"evaluate\.py"):
        ship(words[:5], Home(root=tmp_path), Console(file=io.StringIO()))
    assert not (tmp_path / "out").exists()


def test_photographs_of_one_size_are_told_from_others(tmp_path: Path, photographs: Path) -> None:
    assert measure_photographs(photographs) == {"photograph_size": None}
    for split in ("train", "val"):
        for name in ("a", "b"):
            (tmp_path / split / name).mkdir(parents=True)
            Image.new("RGB", (32, 24)).save(tmp_path / split / name / "0.png")
    assert measure_photographs(tmp_path) == {"photograph_size": [32, 24]}


def test_an_index_of_other_weights_says_nothing_about_these(made: Made, tmp_path: Path) -> None:
    file = tmp_path / "precision.json"
    file.write_text(json.dumps({"weights": "other", "images": 1, "share": 1.0}))
    words = [str(made.run.path), "--weights", str(made.weights), "--precision", str(file)]
    with pytest.raises(ShipError, match="other weights"):
        ship([*words, "--output", str(tmp_path / "out")], made.home, Console(file=io.StringIO()))


@pytest.fixture
def in_project() -> RunFolder:
    """The folder that lies in the project; skips where there is none."""
    if not SHIPPED.weights.exists():
        pytest.skip(f"this copy of the project has no weights in {SHIPPED.path}")
    return SHIPPED


def test_what_ships_is_whole_and_its_card_is_true(in_project: RunFolder) -> None:
    check_card(in_project, (in_project.path / CARD_FILE).read_text())
    check_no_paths(in_project)
    found = read_run_folder("shipped", in_project.path)
    assert found is not None
    weights = load_weights(in_project.weights)
    assert (found.finished, found.pretrained, found.weights) == (True, True, weights.identity)
    assert weights.provenance.data == PRETRAINED_DATA
    assert len(weights.classes) == 10
    files = [path for path in in_project.path.rglob("*") if path.is_file()]
    assert sum(file.stat().st_size for file in files) < MAX_BYTES

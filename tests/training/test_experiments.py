"""The experiments that train, on a tiny dataset: split, starts, resumption, tables."""

import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from rich.console import Console
from rich.table import Table
from torch import nn

from experiments import finetune, recipe
from experiments.arms import Arm, Average, ResultsFile, find_wrong_rows, run_arms, train_arm
from experiments.held_out import hold_out
from model.weights.checkpoint import Weights
from training.batches.batches import Batches
from training.dataset.prepare import PreparedDataset
from training.dataset.store import Split
from training.optimisation.state import TrainingState
from training.recipe.config import SMALL
from training.recipe.options import Options

ROOT = Path(__file__).resolve().parents[2]
QUIET, F32 = Console(quiet=True), Options(precision="f32", device="cpu")
TINY = replace(SMALL, variant="cifar", batch=5, rate=0.003)


def images_of(split: Split) -> list[bytes]:
    return [image.tobytes() for image in split.iter_images(np.arange(len(split)))]


@pytest.mark.parametrize("fixture", ["prepared", "prepared_as_jpeg", "tiny"])
def test_the_held_out_part_is_never_trained_on(
    fixture: str, request: pytest.FixtureRequest
) -> None:
    data: PreparedDataset = request.getfixturevalue(fixture)
    view = hold_out(data, 4)
    train, held_out, whole = (images_of(s) for s in (view.train, view.val, data.train))
    assert set(train) & set(held_out) == set()
    assert sorted(train + held_out) == sorted(whole)
    assert set(held_out) & set(images_of(data.val)) == set()
    # Two of the eight in each class, with their classes.
    assert np.bincount(view.val.classes).tolist() == [2, 2, 2]
    labels = dict(zip(whole, data.train.classes, strict=True))
    assert [labels[image] for image in train + held_out] == [*view.train.classes, *view.val.classes]
    # What the loop reads of the view.
    batches = Batches(view, TINY.augmentation(TINY.network(3)), batch=6)
    rows = np.concatenate([batch.rows.numpy() for batch in batches])
    assert set(images_of(view.train)) >= {view.train.read(rows[[n]]).tobytes() for n in range(18)}


def test_the_same_images_are_held_out_whatever_their_order() -> None:
    random = np.random.default_rng(0)
    images = random.integers(0, 256, (60, 4, 4, 3), dtype=np.uint8)
    classes = np.repeat([0, 1, 2], [30, 20, 10])
    order = random.permutation(60)

    def held_out(images: Any, classes: Any) -> set[bytes]:
        split = Split.from_arrays(images, classes)
        data = PreparedDataset("k", "r", (), split, split, None, None, ())  # type: ignore[arg-type]
        return set(images_of(hold_out(data, 10).val))

    found = held_out(images, classes)
    assert len(found) == 3 + 2 + 1
    assert held_out(images[order], classes[order]) == found
    # Copies of an image are on the same side, even where they are more than the tenth.
    copy = next(n for n in range(30) if images[n].tobytes() in found)
    images[5:15] = images[copy]
    assert images[copy].tobytes() in held_out(images, classes)


def test_a_class_of_one_image_cannot_be_divided() -> None:
    split = Split.from_arrays(np.zeros((1, 4, 4, 3), np.uint8), np.zeros(1, np.int64))
    data = PreparedDataset("k", "r", (), split, split, None, None, ())  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="class 0 has too few"):
        hold_out(data, 10)


def test_the_arms_are_the_preset_and_one_change_each() -> None:
    arms = recipe.list_arms(SMALL, 8, 2)
    assert len({(arm.name, arm.recipe.seed) for arm in arms}) == len(arms)
    for arm in arms:
        changed = {k for k, v in vars(arm.recipe).items() if v != vars(SMALL)[k]}
        changed -= {"epochs", "seed"}
        expected = {"small": 0, "plain-alpha": 0, "paper-start": 2}.get(arm.name, 1)
        assert len(changed) == expected, arm.name
        factors = arm.network(10).lrn_alpha_factors
        assert bool(factors) == (arm.name not in ("plain-alpha", "paper-start"))
    assert [arm.recipe.seed for arm in arms] == [0] * (len(arms) // 2) + [1] * (len(arms) // 2)
    only = recipe.list_arms(SMALL, 24, 1, ["scale-60", "small"])
    assert [(arm.name, arm.recipe.input_scale, arm.epochs) for arm in only] == [
        ("small", 4.0, 24),
        ("scale-60", 60.0, 24),
    ]


def test_the_average_of_the_weights_by_hand() -> None:
    network = nn.Linear(1, 1, bias=False)
    weights = [3.0, -1.0, 5.0, 2.0, 7.0]
    averages = [Average(network, decay) for decay in (0.5, 0.75)]
    for weight in weights:
        network.weight.data.fill_(weight)
        for average in averages:
            average.update()
    # The first two, or four, steps count evenly; then it is decay · old + (1 − decay) · new.
    half = 0.5 * (0.5 * (0.5 * (3 - 1) / 2 + 0.5 * 5) + 0.5 * 2) + 0.5 * 7
    slow = 0.75 * (3 - 1 + 5 + 2) / 4 + 0.25 * 7
    found = [average.network.weight.item() for average in averages]
    assert found == pytest.approx([half, slow])
    assert network.weight.item() == 7


def column(table: Table, heading: str, nth: int = 0) -> list[str]:
    """The cells of a table's nth column of that heading."""
    return list([c for c in table.columns if c.header == heading][nth].cells)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def view(tiny: PreparedDataset) -> PreparedDataset:
    return hold_out(tiny, 2)


def test_an_interrupted_experiment_trains_what_is_missing_to_the_same_numbers(
    view: PreparedDataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trained: list[str] = []

    def train(arm: Arm, *rest: Any) -> dict[str, Any]:
        result = train_arm(arm, *rest)
        trained.append(arm.name)
        return result

    def run(results: ResultsFile) -> list[dict[str, Any]]:
        arms = recipe.list_arms(TINY, 2, 1, ["small", "no-smoothing", "offsets"])
        run_arms(arms, view, results, F32, QUIET)
        return results.read("result")

    monkeypatch.setattr("experiments.arms.train_arm", train)
    results = ResultsFile(tmp_path / "deep" / "recipe.jsonl")
    whole = run(results)
    assert trained == ["small", "offsets", "no-smoothing"]
    assert [line["epoch"] for line in results.read("epoch")] == [1, 2] * 3
    for line, last in zip(whole, results.read("epoch")[1::2], strict=True):
        # The loop's own validation, on the same weights.
        assert len(line["wrong"]) / line["images"] == last["top1_error"]
        assert line["images"] == len(view.val) == 12
        assert 0 < line["conv1_low_frequency"] == last["conv1_low_frequency"] < 1
    assert set(whole[0]["averages"]) == {"0.99", "0.998"}
    assert run(results) == whole
    assert len(trained) == 3

    # Killed while it wrote the second epoch of the second arm.
    lines = results.path.read_text().splitlines()
    results.path.write_text("\n".join([*lines[:4], lines[4][:50]]))
    again = run(results)
    assert trained[3:] == ["offsets", "no-smoothing"]
    kept = ("arm", "recipe", "wrong", "averages", "conv1_low_frequency")
    assert [{k: line[k] for k in kept} for line in again] == [
        {k: line[k] for k in kept} for line in whole
    ]
    # Other epochs or other images are another experiment.
    identity = recipe.list_arms(TINY, 3, 1, ["small"])[0].identify(view)
    assert not results.has_result(identity)


def test_the_documents_have_the_table_of_the_results_that_are_kept() -> None:
    lines = ResultsFile(ROOT / "experiments/results/recipe.jsonl").read("result")
    arms = [line["arm"] for line in lines]
    assert arms == [name for name in recipe.CHANGES if name in arms]
    assert arms[0] == recipe.WHOLE
    assert recipe.write_markdown(lines) in (ROOT / "docs/training.md").read_text()
    other = lines[0] | {"recipe": lines[0]["recipe"] | {"seed": 1}}
    with pytest.raises(ValueError, match="one seed"):
        recipe.write_markdown([*lines, other])


def test_a_training_that_diverges_is_recorded_and_the_next_begins(
    view: PreparedDataset, tmp_path: Path
) -> None:
    results = ResultsFile(tmp_path / "recipe.jsonl")
    arms = [
        Arm(name="wild", recipe=replace(TINY, epochs=2, warmup=0, rate=1e20)),
        Arm(name="small", recipe=replace(TINY, epochs=2)),
    ]
    run_arms(arms, view, results, F32, QUIET)
    wild, small = results.read("result")
    assert "nan" in wild["diverged"]
    assert "wrong" in small
    (table,) = recipe.make_tables(results.read("result"))
    assert column(table, "error, %")[0] == "diverged"


def test_fine_tuning_starts_from_the_weights_and_training_from_scratch_does_not(
    tiny: PreparedDataset,
    tmp_path: Path,
    weights_of: Callable[..., Weights],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    weights = weights_of(TINY.network(5))
    scratch, tuned, by_small = finetune.list_arms(weights, [1], 1)
    assert (scratch.name, tuned.name) == (finetune.SCRATCH, finetune.FINETUNED)
    assert (by_small.recipe, by_small.weights) == (scratch.recipe, weights)
    still = {"rate": 1e-20, "batch": 5, "layer_rates": (), "variant": "cifar"}
    conv1: list[torch.Tensor] = []

    def find_wrong(state: TrainingState, **rest: Any) -> list[int]:
        conv1.append(state.network.conv1.weight.detach().clone())
        return find_wrong_rows(state, **rest)

    monkeypatch.setattr("experiments.arms.find_wrong_rows", find_wrong)
    results = ResultsFile(tmp_path / "finetune.jsonl")
    arms = [replace(arm, recipe=replace(arm.recipe, **still)) for arm in (scratch, tuned)]
    run_arms(arms, tiny, results, F32, QUIET)
    assert [torch.equal(c, weights.state["conv1.weight"]) for c in conv1] == [False, True]
    assert [line.get("weights") for line in results.read("result")] == [None, weights.identity]
    assert column(finetune.make_table(results.read("result")), "start") == [
        finetune.SCRATCH,
        finetune.FINETUNED,
    ]
    # Other weights are another experiment.
    other = replace(arms[1], weights=weights_of(TINY.network(5), seed=1))
    assert not results.has_result(other.identify(tiny))


def line(arm: str, wrong: list[int], **more: Any) -> dict[str, Any]:
    """A result as the file has it."""
    known = {"kind": "result", "arm": arm, "data": "d", "recipe": {"seed": 0, "epochs": 8}}
    numbers = {"images": 200, "conv1_low_frequency": 0.5, "images_per_second": 40.0}
    return {**known, **numbers, "wrong": wrong, "averages": {}, **more}


def test_the_table_compares_each_arm_with_the_whole_preset(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    results = ResultsFile(tmp_path / "recipe.jsonl")
    results.append(line("small", [0, 1], averages={"0.99": [0]}))  # an older recipe's
    results.append(line("small", list(range(20)), averages={"0.99": list(range(18))}))
    results.append(line("offsets", list(range(10, 60))))
    results.append(line("small", [3], recipe={"seed": 0, "epochs": 24}))
    table, longer = recipe.make_tables(results.read("result"))
    assert column(table, "arm") == ["small", "small, average 0.99", "offsets"]
    assert column(table, "error, %") == ["10.00", "9.00", "25.00"]
    # Wilson's interval of 20 of 200, by hand: (20 + 1.92 ± 1.96 √(18 + 0.96)) / 203.84.
    assert column(table, "95 %")[0] == "6.6–14.9"
    assert column(table, "difference") == ["", "-1.00", "+15.00"]
    # McNemar: 2 images against none, and 40 against 10 of those on which the two differ.
    assert column(table, "p") == ["", "0.500", "0.000"]
    assert column(longer, "error, %") == ["0.50"]
    monkeypatch.setattr(sys, "argv", ["recipe.py", "--report", "--results", str(results.path)])
    recipe.main()
    assert "25.00" in capsys.readouterr().out
    monkeypatch.setattr(sys, "argv", [*sys.argv, "--only", "nothing"])
    with pytest.raises(SystemExit, match="nothing"):
        recipe.main()

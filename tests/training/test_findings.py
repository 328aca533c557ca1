"""What is computed of the experiments' results: verdicts, findings, their page and figures."""

import json
import re
from collections.abc import Iterator
from dataclasses import asdict, replace

import numpy as np
import pytest
from scipy.stats import ttest_1samp

from experiments.claims import baseline, chain, figures, page, pooled
from experiments.claims.experiment import Contrast
from experiments.claims.findings import judge_claim, judge_on_data, make_findings
from experiments.claims.listing import make_listing
from experiments.claims.measures import read_epochs_to, read_epochs_to_common_error
from experiments.claims.registry import EXPERIMENTS
from experiments.claims.result import (
    RunResult,
    pack,
    read_result,
    read_results,
)
from experiments.claims.statistics import (
    combine_data,
    count_seeds_needed,
    find_mean_interval,
    judge,
)
from storage.findings import FINDINGS, RESULTS, Findings, read_findings
from tests.experiment_runs import make_result
from training.recipe.config import PAPER


def test_intervals_and_verdicts_by_another_implementation() -> None:
    values = [0.031, 0.012, 0.024, 0.018]
    found = find_mean_interval(values)
    expected = ttest_1samp(values, 0).confidence_interval(0.95)
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high))
    assert judge(found) == "held"
    assert judge(find_mean_interval([-v for v in values])) == "not held"
    unsure = [0.03, -0.01]
    assert judge(find_mean_interval(unsure)) == judge(find_mean_interval([0.5])) == "not resolved"
    assert count_seeds_needed([0.5]) is None
    needed = count_seeds_needed(unsure)
    assert needed is not None

    def is_resolved(seeds: int) -> bool:
        # Values of that number with the same mean and deviation.
        spread = np.linspace(-1, 1, seeds)
        drawn = 0.01 + spread / spread.std(ddof=1) * np.std(unsure, ddof=1)
        return bool(ttest_1samp(drawn, 0).confidence_interval(0.95).low > 0)

    assert is_resolved(needed)
    assert not is_resolved(needed - 1)
    assert combine_data(["held", "not resolved", "not run"]) == "held"
    assert combine_data(["held", "not held"]) == "not resolved"
    assert combine_data(["not run"]) == combine_data([]) == "not run"


def test_epochs_to_an_error_lie_between_epochs() -> None:
    run = make_result("a", 0, [0.6, 0.3, 0.2])
    assert read_epochs_to(run, 0.25) == (pytest.approx(2.5), False)
    assert read_epochs_to(run, 0.1) == (3, True)
    slow = make_result("b", 0, [0.8, 0.6, 0.5, 0.45])
    # The worse of the two reached 0.45, the other between its first and second epoch.
    pair = read_epochs_to_common_error(slow, run)
    assert pair is not None
    assert [reading.value for reading in pair] == pytest.approx([4, 1.5])


def test_a_ratio_of_runs_that_ended_early_is_a_lower_bound() -> None:
    claim = EXPERIMENTS["figure1"].claims[0]
    relu = [make_result("ReLU", seed, [0.5, 0.25]) for seed in (0, 1)]
    tanh = [make_result("tanh", seed, [0.9] * 8) for seed in (0, 1)]
    found = judge_on_data(claim, "cifar10", [*relu, *tanh])
    (effect,) = found.effects
    assert (effect.value, effect.verdict) == (pytest.approx(4), "held")
    assert "lower bound: 2 of 2" in effect.reason
    assert judge_claim(claim, {"cifar10": [*relu, *tanh]}, []).outcome == "held"
    reached = [make_result("tanh", seed, [0.9, 0.9, 0.9, 0.25]) for seed in (0, 1)]
    assert judge_claim(claim, {"cifar10": [*relu, *reached]}, []).outcome == "held, but by less"
    # The other way round nothing is known.
    (unknown,) = judge_on_data(
        replace(claim, contrasts=(Contrast(more="ReLU", less="tanh"),)), "cifar10", [*relu, *tanh]
    ).effects
    assert (unknown.value, unknown.verdict) == (None, "not resolved")


def test_neighbours_are_compared_image_by_image() -> None:
    claim = EXPERIMENTS["neighbours"].claims[0]
    random = np.random.default_rng(0)
    hits = {"fc7": random.integers(3, 7, 100), "pixels": random.integers(0, 4, 100)}
    runs = [
        replace(make_result(arm, 0, []), per_image={"hits": pack(one.astype(np.uint8))})
        for arm, one in hits.items()
    ]
    found = judge_on_data(claim, "imagenette", runs)
    assert [arm.mean for arm in found.arms] == pytest.approx([hits[a].mean() / 6 for a in hits])
    (effect,) = found.effects
    expected = ttest_1samp((hits["fc7"] - hits["pixels"]) / 6, 0).confidence_interval(0.95)
    assert (effect.low, effect.high) == pytest.approx((expected.low, expected.high))
    assert (effect.verdict, effect.compared) == ("held", 100)


def make_halves(variant: str, *, differ: list[bool]) -> list[RunResult]:
    """Runs of 20 epochs on photographs, whose halves of conv1 differ or not."""
    run = make_result("x", 0, [0.5])
    return [
        replace(
            run,
            data=replace(run.data, kind="imagenette"),
            recipe={"variant": variant, "epochs": 20},
            seed=seed,
            measured={"first half": 0.5, "second half": 0.2, "p": 0.001 if one else 0.3},
        )
        for seed, one in enumerate(differ)
    ]


@pytest.mark.parametrize(
    ("measure", "variant", "differ", "verdict"),
    [
        (pooled.TOGETHER_DIFFER, "paper", [True] * 5, "held"),
        (pooled.TOGETHER_DIFFER, "paper", [True] * 4, "not resolved"),
        (pooled.TOGETHER_DIFFER, "paper", [True] * 5 + [False], "not held"),
        (pooled.APART_DIFFER, "separate-towers", [True] * 5, "held"),
        (pooled.HALVES_DIFFER, "one-gpu", [False] * 5, "held"),
        (pooled.HALVES_DIFFER, "one-gpu", [False] * 2, "not resolved"),
        (pooled.HALVES_DIFFER, "one-gpu", [False, True], "not resolved"),
        (pooled.HALVES_DIFFER, "one-gpu", [False] * 4 + [True], "not held"),
        (pooled.TOGETHER_DIFFER, "paper", [False], "not resolved"),
    ],
)
def test_the_runs_whose_halves_differ_are_counted(
    measure: str, variant: str, differ: list[bool], verdict: str
) -> None:
    runs = make_halves(variant, differ=differ)
    others = [
        run
        for other in ("paper", "separate-towers", "one-gpu")
        if other != variant
        for run in make_halves(other, differ=[True, False])
    ]
    short = [replace(run, recipe={"variant": variant, "epochs": 19}) for run in runs]
    (found,) = pooled.make_pooled(measure, {}, [*others, *runs, *short])
    assert found.verdict == verdict
    assert found.effects[0].compared == len(differ)
    assert found.effects[0].value == pytest.approx(sum(differ) / len(differ))
    assert [arm.mean for arm in found.arms] == pytest.approx([0.2, 0.5])


def test_the_rates_that_were_tried_and_chosen_are_said() -> None:
    searched = [make_result(f"ReLU, rate {rate:g}", 0, [0.9]) for rate in (0.01, 0.003)]
    # The paper's own rate is not kept.
    recipes: list[dict[str, float]] = [{}, {"rate": 0.003}]
    runs = [
        replace(run, purpose="search", recipe=run.recipe | recipe)
        for run, recipe in zip(searched, recipes, strict=True)
    ]
    found = make_findings([*runs, make_result("ReLU", 0, [0.9])]).find("figure1")
    assert found is not None
    assert re.findall(r"[\d.]*\d", found.choice) == ["0.003", "0.01", "0.01"]
    assert found.runs == 1


def test_every_experiment_of_the_table_is_registered_and_complete() -> None:
    names = (
        "figure1 lrn pooling colour dropout decay towers depth crops ensemble colour-towers "
        "neighbours baseline as-run start chain"
    )
    assert list(EXPERIMENTS) == names.split()
    extra = {
        "neighbours": {"fc7", "pixels", "fc7, mirrored", "pixels, mirrored"}
        | {"fc7, shifted", "pixels, shifted"},
        "baseline": {baseline.ARM},
        "chain": {chain.ALONE, chain.TUNED},
    }
    for name, one in EXPERIMENTS.items():
        for kind, setting in one.settings.items():
            arms = setting.make_arms(max(1, setting.epochs))
            known = set(arms) | extra.get(name, set())
            for claim in one.claims:
                if not claim.data or kind in claim.data:
                    assert {a for c in claim.contrasts for a in (c.more, c.less)} <= known, name
            for recipe in arms.values():
                recipe.network(10)
            recipes = [json.dumps(asdict(recipe), sort_keys=True) for recipe in arms.values()]
            assert len(set(recipes)) == len(recipes), name
            if kind == "imagenet" and arms:
                # With the paper's recipe: the first arm has no more than its network changed.
                assert any(r.rate == PAPER.rate and r.batch == PAPER.batch for r in arms.values())
                assert all(r.smoothing == 0 and r.crops == "offsets" for r in arms.values())
    listed = make_listing([])
    assert listed.row_count == len(EXPERIMENTS)


@pytest.fixture(scope="module")
def committed() -> Findings:
    found = read_findings()
    assert found is not None
    return found


def test_the_findings_are_those_of_the_results(committed: Findings) -> None:
    how = "run: python experiments/run.py report"
    computed = make_findings(read_results())
    assert json.loads(FINDINGS.read_text()) == json.loads(json.dumps(asdict(computed))), how
    assert page.make_page(committed) == page.PAGE.read_text(), how


def test_the_figures_are_drawn_of_the_results(committed: Findings) -> None:
    sources: dict[str, str] = {}
    for one in committed.experiments:
        for kind in {curve.kind for curve in one.curves}:
            own = [curve for curve in one.curves if curve.kind == kind]
            sources[figures.name_figure(one.name, kind)] = figures.describe_source(own)
    drawn = {file.name: file.read_text() for file in page.FIGURES.glob("*.svg")}
    assert set(drawn) == set(sources)
    assert all(sources[name] in text for name, text in drawn.items())


def test_a_figure_has_a_line_for_each_run() -> None:
    runs = [make_result(arm, seed, [0.9, 0.5]) for arm in ("ReLU", "tanh") for seed in (0, 1)]
    found = make_findings(runs).find("figure1")
    assert found is not None
    ((name, svg),) = figures.list_figures([found])
    assert name == "figure1-cifar10.svg"
    assert len(set(re.findall(r'id="line2d_\d+"', svg))) >= 4
    assert {"ReLU", "tanh"} <= set(re.findall(r">(ReLU|tanh)<", svg))


def test_what_is_committed_is_small_and_complete() -> None:
    for file in RESULTS.glob("*/*.json"):
        assert file.stat().st_size < 100_000, file
        run = read_result(file)
        assert run.experiment in EXPERIMENTS
        assert run.machine
        assert run.data.fingerprint
        assert run.curve or run.per_image or run.measured
        assert sorted(run.curve, key=lambda point: point.epoch) == list(run.curve)


def iter_numbers(text: str) -> Iterator[float]:
    yield from map(float, re.findall(r"\d+\.\d+", text))


def test_the_page_has_the_logged_figures_beside_the_papers() -> None:
    section = page.PAGE.read_text().split("## What was run in 2012")[1].split("\n## ")[0]
    found = set(iter_numbers(section))
    assert {37.47, 17.0, 39.17, 18.23, 41.06, 42.03, 41.83, 40.49, 38.99, 39.1} <= found
    assert {37.5, 40.7, 18.2} <= found

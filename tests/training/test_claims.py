"""The experiments on the paper's claims: runs, verdicts, and the findings that are committed."""

import json
import re
import signal
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console
from scipy.stats import ttest_1samp

from experiments.claims import baseline, chain, figures, neighbours, page
from experiments.claims.experiment import Claim, Contrast, Experiment, Setting
from experiments.claims.findings import judge_on_data, make_findings
from experiments.claims.listing import make_listing
from experiments.claims.measures import read_epochs_to, read_epochs_to_common_error
from experiments.claims.pooled import FIVE, ONE, make_pooled
from experiments.claims.recipes import define_network
from experiments.claims.registry import EXPERIMENTS
from experiments.claims.result import (
    ResultError,
    RunResult,
    pack,
    read_result,
    read_results,
    unpack,
)
from experiments.claims.runner import Workplace, choose_setting, run_arms_interleaved
from experiments.claims.special import run_experiment
from experiments.claims.statistics import (
    combine_data,
    count_seeds_needed,
    find_mean_interval,
    judge,
)
from experiments.held_out import keep_classes, take_images
from model.architectures import VARIANTS
from model.checkpoint import load_weights
from model.layers import Activation, Conv, Dense, Flatten, Pool
from storage.findings import FINDINGS, RESULTS, Findings, read_findings
from storage.home import Home
from tests.experiment_runs import make_result
from training.callbacks import StoppedError
from training.config import PAPER, SMALL
from training.dataset.prepare import PreparedDataset
from training.options import Options

TINY = replace(SMALL, variant="cifar-24", batch=5, rate=0.003, warmup=0)
ARMS = {"plain": {}, "slow": {"rate": 0.001}}


def make_setting(**more: Any) -> Setting:
    """Two arms of a small net, with half of the images held out."""

    def make_arms(epochs: int) -> dict[str, Any]:
        return {name: replace(TINY, epochs=epochs, **own) for name, own in ARMS.items()}

    defaults = {"epochs": 2, "seeds": 2, "minutes": 1, "held_out": 2, "sample": 6}
    return Setting(make_arms=make_arms, **(defaults | more))


def make_experiment(name: str = "tiny", **more: Any) -> Experiment:
    claim = Claim(
        statement="",
        measure="error, crops",
        paper="",
        contrasts=(Contrast(more="slow", less="plain"),),
    )
    return Experiment(name=name, title="", section="", claims=(claim,), **more)


@pytest.fixture
def work_on(tmp_path: Path) -> Callable[..., Workplace]:
    """A workplace with a home and results of its own."""

    def make(data: PreparedDataset, where: str = "a", calls: int = 10**9) -> Workplace:
        left = iter(range(calls))
        return Workplace(
            data=data,
            home=Home(root=tmp_path / where),
            options=Options(precision="f32", device="cpu"),
            console=Console(quiet=True),
            stop_signal=lambda: 0 if next(left, None) is not None else signal.SIGTERM,
            deadline=float("inf"),
            results=tmp_path / where / "results",
        )

    return make


def run_all(experiment: Experiment, setting: Setting, work: Workplace) -> list[RunResult]:
    return [run for _, run in run_arms_interleaved(experiment, setting, setting.seeds, work)]


def without_times(runs: Sequence[RunResult]) -> list[RunResult]:
    return [replace(run, cpu_seconds=0, seconds=0) for run in runs]


def test_a_stopped_run_ends_with_the_same_numbers(
    tiny: PreparedDataset, work_on: Callable[..., Workplace]
) -> None:
    experiment, setting = make_experiment(), make_setting(seeds=1)
    whole = run_all(experiment, setting, work_on(tiny))
    again: list[RunResult] = []
    # Stopped after a few steps or validations, again and again, until there is nothing left.
    stops = 0
    while not again:
        try:
            again = run_all(experiment, setting, work_on(tiny, "b", calls=5))
        except StoppedError:
            stops += 1
    assert stops > 1
    assert without_times(again) == without_times(whole)
    work = work_on(tiny, "b")
    assert without_times(read_results(work.results)) == sorted(
        without_times(whole), key=lambda run: (run.arm, run.seed)
    )
    assert not list((work.home.root / "experiments").glob("*/checkpoint*"))
    for run in whole:
        assert run.data.train == 12
        assert run.errors["centre top-1"].images == run.data.test == len(tiny.val)
        wrong = unpack(run.per_image["crops"])
        assert wrong.sum() == run.errors["crops top-1"].wrong
        assert [point.epoch for point in run.curve] == [1, 2]
        assert all(0 <= point.training_error <= 1 for point in run.curve)  # type: ignore[operator]


def test_seeds_take_turns_and_the_same_run_is_made_once_and_counted_once(
    tiny: PreparedDataset, work_on: Callable[..., Workplace]
) -> None:
    work, setting = work_on(tiny), make_setting(epochs=1)
    first = run_all(make_experiment(), setting, work)
    seeds = [(run.seed, run.arm) for run in first]
    assert seeds == [(0, "plain"), (0, "slow"), (1, "plain"), (1, "slow")]
    second = run_all(make_experiment("other"), setting, work)
    assert {run.copied_from for run in second} == {"tiny"}
    assert [replace(run, experiment="tiny", copied_from="") for run in second] == first
    findings = make_findings(read_results(work.results))
    assert findings.cpu_seconds == round(sum(run.cpu_seconds for run in first))


def test_a_run_ends_at_its_target_and_the_rate_is_chosen_on_other_images(
    tiny: PreparedDataset, work_on: Callable[..., Workplace]
) -> None:
    setting = make_setting(
        epochs=3, seeds=1, target=1.0, rates=(1e-9, 0.003), search_epochs=2, images=6
    )
    work = work_on(tiny)
    measured = run_all(make_experiment(), setting, work)
    # Any training error is at most 1.
    assert [len(run.curve) for run in measured] == [1, 1]
    searched = [run for run in read_results(work.results) if run.purpose == "search"]
    assert len(searched) == 4
    for arm in ARMS:
        tried = {r.recipe["rate"]: r.curve[-1] for r in searched if r.arm.startswith(arm)}
        best = min(tried, key=lambda rate: (tried[rate].epoch, tried[rate].training_error, rate))
        assert next(run for run in measured if run.arm == arm).recipe["rate"] == best
    digests = {run.purpose: run.data.fingerprint.split()[0] for run in (*searched, *measured)}
    assert digests["search"] != digests["measurement"]


def test_an_experiment_that_cannot_run_says_so(tiny: PreparedDataset) -> None:
    with pytest.raises(ResultError, match="other experiments"):
        choose_setting(EXPERIMENTS["crops"], tiny, None, None)
    only = make_experiment(settings={"cifar10": make_setting()})
    with pytest.raises(ResultError, match="CIFAR-10"):
        choose_setting(only, tiny, None, None)
    setting = choose_setting(EXPERIMENTS["lrn"], tiny, 3, 10)
    assert (setting.epochs, setting.images) == (3, 10)


def test_a_damaged_result_is_named(tmp_path: Path) -> None:
    file = tmp_path / "run.json"
    file.write_text('{"format": 1}')
    with pytest.raises(ResultError, match=r"run\.json"):
        read_result(file)


def test_five_networks_are_averaged(
    tiny: PreparedDataset, work_on: Callable[..., Workplace]
) -> None:
    setting = replace(
        make_setting(seeds=5), make_arms=lambda epochs: {ONE: replace(TINY, epochs=epochs)}
    )
    experiment, work = make_experiment(special="ensemble"), work_on(tiny)
    run_experiment(experiment, setting, 5, Path(), work)
    files = sorted((work.home.root / "experiments/predictions").glob("*.npy"))
    assert len(files) == 5
    mean = np.mean([np.load(file).astype(np.float32) for file in files], axis=0)
    wrong = mean.argmax(1) != tiny.val.classes
    (five,) = [run for run in read_results(work.results) if run.arm == FIVE]
    assert unpack(five.per_image["crops"]).tolist() == wrong.tolist()
    ones = [run for run in read_results(work.results) if run.arm == ONE]
    (found,) = make_pooled("one against five", {"imagenette": [*ones, five]} | EMPTY, [])
    each = np.mean([run.errors["crops top-1"].error for run in ones])
    assert found.effects[0].value == pytest.approx(each - wrong.mean())


EMPTY: Any = {"cifar10": [], "imagenet": []}


def test_the_chain_hands_its_layers_on(
    tiny: PreparedDataset, work_on: Callable[..., Workplace]
) -> None:
    convs = [Conv(f"conv{n}", 4, 3, pad=1) for n in range(1, 6)]
    last = [Activation("relu", "relu"), Pool("pool", 3), Flatten("flatten"), Dense("fc8", 3)]
    config = replace(VARIANTS["cifar-24"].config, classes=3)
    small, wide = (
        define_network(config, [*convs, *more, *last], 0.0) for more in ([], [Conv("conv6", 4, 3)])
    )
    setting = replace(
        make_setting(seeds=1, epochs=1),
        make_arms=lambda epochs: {
            chain.WIDE: replace(PAPER, epochs=epochs, batch=4, rate=1e-20, **small),
            chain.WIDER: replace(PAPER, epochs=epochs, batch=4, rate=1e-20, **wide),
        },
    )
    work = work_on(tiny)
    run_experiment(make_experiment(special="chain"), setting, 1, Path(), work)
    runs = {run.arm: run for run in read_results(work.results)}
    assert set(runs) == {chain.WIDE, chain.WIDER, chain.ALONE, chain.TUNED}
    classes = {arm: run.data.classes for arm, run in runs.items()}
    assert classes == {chain.WIDE: 3, chain.WIDER: 3, chain.ALONE: 2, chain.TUNED: 2}
    kept = [load_weights(f) for f in (work.home.root / "experiments/weights").glob("*")]
    first, second = sorted(kept, key=lambda weights: "conv6.weight" in weights.state)
    for name in chain.TAKEN:
        assert np.array_equal(first.state[f"{name}.weight"], second.state[f"{name}.weight"])
    assert runs[chain.WIDER].weights == first.identity
    assert runs[chain.TUNED].weights == second.identity


def test_classes_and_images_are_taken_evenly(tiny: PreparedDataset) -> None:
    kept = keep_classes(tiny, 2)
    assert [name.folder for name in kept.class_names] == ["cat", "grass"]
    assert np.bincount(kept.train.classes).tolist() == [8, 8]
    whole = dict(
        zip(map(bytes, tiny.train.iter_images(np.arange(24))), tiny.train.classes, strict=True)
    )
    names = [
        tiny.class_names[whole[bytes(i)]].folder for i in kept.train.iter_images(np.arange(16))
    ]
    assert names == [kept.class_names[number].folder for number in kept.train.classes]
    assert np.bincount(take_images(tiny.train, 7).classes).tolist() == [3, 2, 2]
    assert take_images(tiny.train, 99) is tiny.train


def test_the_nearest_images_against_a_sort_of_all() -> None:
    random = np.random.default_rng(0)
    queries = random.normal(size=(5, 8)).astype(np.float32)
    images = random.normal(size=(40, 8)).astype(np.float32)
    nearest = neighbours.Nearest(5)
    for start in range(0, 40, 7):
        rows = np.arange(start, min(start + 7, 40))
        nearest.add(queries, images[rows], rows)
    distances = np.linalg.norm(queries[:, None] - images[None], axis=2)
    assert nearest.rows.tolist() == distances.argsort(1)[:, :6].tolist()
    squares = random.integers(0, 256, (1, 40, 40, 3), dtype=np.uint8)
    moved = neighbours.shift(squares)
    assert np.array_equal(moved[:, 16:, 16:], squares[:, :-16, :-16])


def test_the_baseline_classifies_what_is_easy(
    tiny: PreparedDataset, work_on: Callable[..., Workplace], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(baseline, "GAUSSIANS", 2)
    monkeypatch.setattr(baseline, "DIMENSIONS", 8)
    experiment, work = make_experiment(), work_on(tiny)
    for _ in range(2):  # the second time it is read
        baseline.measure_baseline(experiment, make_setting(), 1, work)
    (run,) = read_results(work.results)
    assert run.errors["crops top-1"].images == 12
    assert run.errors["crops top-5"].wrong == 0  # of three classes
    vectors = baseline.FisherEncoder([np.random.default_rng(1).random((50, 128), np.float32)], 0)
    assert vectors.encode([np.random.default_rng(2).random((9, 128), np.float32)]).shape == (1, 34)


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

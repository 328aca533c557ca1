"""The experiments on the paper's claims, run on a tiny dataset."""

import signal
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from rich.console import Console

from experiments.claims import baseline, chain, kernel_sheet, neighbours, train
from experiments.claims.experiment import Claim, Contrast, Experiment, Setting
from experiments.claims.findings import make_findings
from experiments.claims.pooled import FIVE, ONE, make_pooled
from experiments.claims.recipes import define_network
from experiments.claims.registry import EXPERIMENTS
from experiments.claims.result import (
    ResultError,
    RunResult,
    read_result,
    read_results,
    unpack,
)
from experiments.claims.runner import (
    Workplace,
    choose_setting,
    conv1_file,
    run_arms_interleaved,
)
from experiments.claims.special import run_experiment
from experiments.held_out import keep_classes, take_images
from model.network.architectures import VARIANTS
from model.network.layers import Activation, Conv, Dense, Flatten, Pool
from model.visualization.kernels import compute_colour_selectivity
from model.weights.checkpoint import load_weights
from storage.findings import locate_kernel_sheet
from storage.home import Home
from training.dataset.prepare import PreparedDataset
from training.recipe.config import PAPER, SMALL
from training.recipe.options import Options
from training.records.callbacks import StoppedError
from training.records.reporting import draw_conv1

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


def test_only_the_arms_that_are_named_run(
    tiny: PreparedDataset, work_on: Callable[..., Workplace]
) -> None:
    experiment = make_experiment(settings={"imagenette": make_setting(epochs=1, seeds=1)})
    setting = choose_setting(experiment, tiny, None, None, ["slow"])
    work = work_on(tiny)
    assert [run.arm for run in run_all(experiment, setting, work)] == ["slow"]
    # The other arm later, as another process would, and then there is nothing left to do.
    whole = choose_setting(experiment, tiny, None, None)
    runs = run_all(experiment, whole, work)
    assert [run.arm for run in runs] == ["plain", "slow"]
    assert run_all(experiment, whole, work) == runs
    with pytest.raises(ResultError, match="no arm fast; choose from plain, slow"):
        choose_setting(experiment, tiny, None, None, ["plain", "fast"])
    with pytest.raises(ResultError, match="chain runs whole"):
        choose_setting(EXPERIMENTS["chain"], tiny, None, None, ["all classes"])


def test_the_first_kernels_of_all_runs_are_drawn_beside_the_results(
    tiny: PreparedDataset, work_on: Callable[..., Workplace], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(train, "ONE_TOWER", (TINY.variant,))
    monkeypatch.setattr(kernel_sheet, "MIN_EPOCHS", 1)
    experiment = make_experiment(special="kernels")
    work, setting = work_on(tiny), make_setting(epochs=1)
    run_experiment(experiment, setting, 2, Path(), work)
    runs = read_results(work.results)
    for run in runs:
        conv1 = np.load(conv1_file(run, work.home))
        assert conv1.shape == (64, 3, 5, 5)
        both = compute_colour_selectivity(conv1)
        halves = [run.measured[name] for name in ("first half", "second half")]
        assert halves == pytest.approx([both[:32].mean(), both[32:].mean()], rel=1e-5)
        assert 0 < run.measured["p"] <= 1
    sheet = locate_kernel_sheet(experiment.name, "imagenette", work.results)
    with Image.open(sheet) as image:
        # Two arms of two seeds: 64 kernels of 5×5, four rows of eight on each side, doubled.
        wide, high = 2 * (8 * 14 - 4) + 16, 4 * 14 - 4
        margin, caption = kernel_sheet.MARGIN, kernel_sheet.CAPTION
        assert image.size == (2 * (wide + margin) + margin, 2 * (high + caption + margin) + margin)
        first = np.array(image)[margin + caption :, margin:][:high, :wide]
    kernels = torch.from_numpy(np.load(conv1_file(runs[0], work.home)))
    assert np.array_equal(first, np.array(draw_conv1(kernels, 2, kernel_sheet.SCALE)))

    # Runs of another machine are not here: the picture that has them stays.
    before = sheet.read_bytes()
    conv1_file(runs[0], work.home).unlink()
    run_experiment(experiment, setting, 2, Path(), work)
    assert sheet.read_bytes() == before


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


def test_the_baseline_is_measured_and_read_again(
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
    # Stopped before its results, it goes on with the vectors on disk.
    (file,) = work.results.glob("*/*.json")
    file.unlink()
    monkeypatch.setattr(baseline.FisherEncoder, "encode", None)
    baseline.measure_baseline(experiment, make_setting(), 1, work)
    (again,) = read_results(work.results)
    assert without_times([again]) == without_times([run])


def test_fisher_vectors_tell_lying_stripes_from_standing_ones(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(baseline, "GAUSSIANS", 4)
    random = np.random.default_rng(0)

    def draw(*, standing: bool) -> np.ndarray:
        phase, width = random.uniform(0, 6), random.uniform(6, 9)
        line = 127 + 90 * np.sin(np.arange(96) * 2 * np.pi / width + phase)
        image = np.broadcast_to(line, (96, 96)) + random.normal(0, 12, (96, 96))
        grey = (image if standing else image.T).clip(0, 255).astype(np.uint8)
        return np.repeat(grey[:, :, None], 3, axis=2)

    images = [draw(standing=n % 2 == 0) for n in range(24)]
    described = [baseline.describe_image(image) for image in images]
    assert described[0].shape == (4 * 11 * 11, 128)
    encoder = baseline.FisherEncoder(np.concatenate(described[:12]), 0)
    vectors = np.stack([encoder.encode(one) for one in described])
    assert np.linalg.norm(vectors, axis=1) == pytest.approx(1)
    centres = [vectors[first:12:2].mean(axis=0) for first in (0, 1)]
    nearer = [np.linalg.norm(vectors[12:] - c, axis=1) for c in centres]
    assert (nearer[0] < nearer[1]).tolist() == [True, False] * 6
    # An image without contrast has descriptors too.
    flat = encoder.encode(baseline.describe_image(np.full((96, 96, 3), 90, np.uint8)))
    assert np.isfinite(flat).all()

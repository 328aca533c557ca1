"""§5: "divide the learning rate by 10 when the validation error rate stopped improving"."""

import math
from collections.abc import Callable
from dataclasses import replace

import pytest

from training.recipe.config import CIFAR, FIGURE_1, ORIGINAL, ORIGINAL_2010, PAPER, SMALL, Recipe
from training.recipe.schedule import schedule_epoch

RECIPE = replace(PAPER, epochs=1000, patience=3)


def rates(errors: list[float], recipe: Recipe = RECIPE) -> list[float]:
    return [schedule_epoch(errors[:n], recipe).rate for n in range(len(errors) + 1)]


def test_the_rate_stays_while_the_error_falls() -> None:
    assert rates([0.9 - 0.01 * n for n in range(50)]) == [0.01] * 51


def test_it_is_divided_by_ten_when_three_epochs_bring_nothing_better() -> None:
    found = rates([0.9, 0.8, 0.8, 0.85, 0.8, 0.7, 0.7])
    assert found == pytest.approx([0.01] * 5 + [0.001] * 3)


def test_three_drops_then_the_end() -> None:
    errors = [0.5] * 100
    drops = [schedule_epoch(errors[:n], RECIPE) for n in range(100)]
    ends = next(n for n, step in enumerate(drops) if step.stop)
    assert ends == 1 + 4 * 3  # the first epoch improves on nothing; four plateaus of three
    assert [drops[n].rate for n in (3, 4, 7, 10)] == pytest.approx([0.01, 1e-3, 1e-4, 1e-5])


def test_all_three_drops_come_before_the_end_of_a_run_that_never_stalls() -> None:
    recipe = replace(PAPER, epochs=10)
    errors = [0.9 - 0.01 * n for n in range(10)]
    found = [schedule_epoch(errors[:n], recipe) for n in range(11)]
    assert [step.rate for step in found[:10]] == pytest.approx(
        [0.01] * 6 + [0.001] * 2 + [0.0001] + [0.00001]
    )
    assert [step.stop for step in found] == [False] * 10 + [True]


def test_the_papers_numbers() -> None:
    assert (PAPER.rate, PAPER.momentum, PAPER.decay, PAPER.batch) == (0.01, 0.9, 0.0005, 128)
    assert (PAPER.epochs, PAPER.drops, PAPER.dropout, PAPER.colour_noise) == (90, 3, None, 0.1)
    assert (PAPER.init, PAPER.input_scale) == ("paper", 1.0)
    assert PAPER.network(1000).dropout == 0.5


def test_the_paper_has_one_rate_for_all_layers() -> None:
    for errors in ([], [0.5] * 40):
        step = schedule_epoch(errors, RECIPE)
        assert set(step.rates.values()) == {step.rate}


def log_of_2012(epoch: int) -> dict[str, float]:
    """The rates in the log of network 145 on ILSVRC-2012, epochs from 1."""
    drops = (epoch > 25) + (epoch > 51) + (epoch > 79)
    conv1 = 0.01 / 10 ** ((epoch > 25) + (epoch > 51) + (epoch > 67))
    frozen = epoch > 72
    return {
        "conv1": 0.0 if frozen else conv1,
        "conv1 bias": 0.0 if frozen else 0.02,
        "conv": 0.01 / 10**drops,
        "dense": 0.01 / 10**drops,
        "bias": 0.02,
    }


def test_as_run_every_epoch_has_the_rates_of_the_log() -> None:
    for epoch in range(1, 92):
        # Errors that never improve: as run, they do not matter.
        schedule = schedule_epoch([0.5] * (epoch - 1), ORIGINAL)
        assert schedule.rates == pytest.approx(log_of_2012(epoch)), epoch
        assert schedule.rate == pytest.approx(schedule.rates["dense"])
        assert not schedule.stop
        augmentation = ORIGINAL.augmentation(ORIGINAL.network(1000), epoch)
        assert augmentation.colour_noise == (0.1 if epoch <= 67 else 0.0)
        assert augmentation.divisor == pytest.approx(1.1 if epoch <= 67 else 1.0)


def test_as_run_it_stops_after_91_epochs() -> None:
    assert schedule_epoch([0.5] * 91, ORIGINAL).stop


def test_conv1_slows_by_a_tenth_of_what_it_had_under_the_plateau_rule_too() -> None:
    recipe = replace(RECIPE, slow_conv1_after=6)
    # One drop, after epoch 4; conv1's own after epoch 6; the next drop, after 7, leaves it alone.
    found = [schedule_epoch([0.5] * n, recipe).rates for n in range(9)]
    assert [r["conv1"] for r in found] == pytest.approx([0.01] * 4 + [1e-3] * 2 + [1e-4] * 3)
    assert [r["conv"] for r in found] == pytest.approx([0.01] * 4 + [1e-3] * 3 + [1e-4] * 2)


def test_the_biases_of_the_cifar_nets_keep_their_rate() -> None:
    assert schedule_epoch([0.5] * 40, CIFAR).rates["bias"] == 0.002


def log_of_2010(epoch: int) -> dict[str, float]:
    """The rates in the log of network 145 on ILSVRC-2010: ÷ 10 at 23 and 51; at 68 conv1's alone;
    at 72 conv1 frozen; at 78 the others'. The biases end at 0.002."""
    rate = 0.01 / 10 ** ((epoch > 23) + (epoch > 51) + (epoch > 78))
    conv1 = 0.01 / 10 ** ((epoch > 23) + (epoch > 51) + (epoch > 68))
    bias = 0.002 if epoch > 78 else 0.02
    frozen = epoch > 72
    return {
        "conv1": 0.0 if frozen else conv1,
        "conv1 bias": 0.0 if frozen else bias,
        "conv": rate,
        "dense": rate,
        "bias": bias,
    }


def test_on_ilsvrc_2010_every_epoch_has_the_rates_of_the_log() -> None:
    for epoch in range(1, 94):
        schedule = schedule_epoch([0.5] * (epoch - 1), ORIGINAL_2010)
        assert schedule.rates == pytest.approx(log_of_2010(epoch)), epoch
        assert not schedule.stop
        augmentation = ORIGINAL_2010.augmentation(ORIGINAL_2010.network(1000), epoch)
        assert augmentation.colour_noise == (0.1 if epoch <= 68 else 0.0)
    assert schedule_epoch([0.5] * 93, ORIGINAL_2010).stop


def test_the_published_phases_of_the_cifar_nets() -> None:
    def rates(done: int) -> tuple[float, float]:
        schedule = schedule_epoch([0.5] * done, CIFAR)
        assert not schedule.stop
        return schedule.rate, schedule.rates["bias"]

    # 350 epochs and 150 more at the rate, 10 at a tenth, 10 at a hundredth.
    phases = {0: 0.001, 349: 0.001, 499: 0.001, 500: 1e-4, 509: 1e-4, 510: 1e-5, 519: 1e-5}
    for done, rate in phases.items():
        assert rates(done) == pytest.approx((rate, 0.002))
    assert schedule_epoch([0.5] * 520, CIFAR).stop


def test_figure_1_keeps_its_rate_to_the_end() -> None:
    found = [schedule_epoch([0.5] * done, FIGURE_1) for done in range(FIGURE_1.epochs + 1)]
    assert {(step.rate, *step.rates.values()) for step in found} == {(0.001,) * 6}
    assert [step.stop for step in found] == [False] * FIGURE_1.epochs + [True]


def test_an_exponential_fall() -> None:
    recipe = replace(PAPER, schedule="exponential", fall=100.0, epochs=2, bias_rate=0.02)
    # Four steps an epoch, each for its middle: from ε to ε / 100, the same factor for every step.
    found = step_rates(recipe, 4)
    assert found == pytest.approx([0.01 * 10 ** (-(n + 0.5) / 4) for n in range(8)])
    assert step_rates(recipe, 4, "bias")[7] == pytest.approx(2 * found[7])


def test_layers_have_rates_of_their_own() -> None:
    recipe = replace(
        ORIGINAL,
        layer_rates=("conv2=0.1", "fc8=10"),
        layer_bias_rates=("conv1=0.5", "fc6=0"),
        layer_decays=("fc7=0.1",),
    )
    first, last = (schedule_epoch([0.5] * done, recipe).rates for done in (0, 90))
    assert first["conv2"] == pytest.approx(0.001)
    assert first["fc8"] == pytest.approx(0.1)
    assert (first["conv1 bias"], first["fc6 bias"], first["fc7"]) == (0.5, 0.0, 0.01)
    assert last["fc8"] == pytest.approx(0.0001)
    # conv1 is frozen by then, its biases too.
    assert (last["conv1 bias"], last["fc7 bias"]) == (0.0, 0.02)


def test_the_biases_rate_drops_once_after_the_epoch_named() -> None:
    recipe = replace(CIFAR, drop_bias_rate_after=2)
    found = [schedule_epoch([0.5] * n, recipe).rates["bias"] for n in range(5)]
    assert found == pytest.approx([0.002, 0.002, 0.0002, 0.0002, 0.0002])


def step_rates(recipe: Recipe, steps: int, name: str = "conv") -> list[float]:
    """The rate of every step of a run whose error never improves."""
    found = []
    for epoch in range(recipe.epochs):
        schedule = schedule_epoch([0.5] * epoch, recipe)
        assert not schedule.stop
        found += [schedule.step_rates(step, steps)[name] for step in range(1, steps + 1)]
    return found


TEN = replace(SMALL, epochs=10, warmup=1)


def half_cosine(share: float) -> float:
    return 0.01 * (1 + math.cos(math.pi * share)) / 2


def line(share: float) -> float:
    return 0.01 * (1 - share)


@pytest.mark.parametrize(("schedule", "falls"), [("cosine", half_cosine), ("linear", line)])
def test_a_rate_rises_along_a_line_and_falls_to_nothing(
    schedule: str, falls: Callable[[float], float]
) -> None:
    found = step_rates(replace(TEN, schedule=schedule), 4)  # type: ignore[arg-type]
    # Each step stands for the middle of its part of the epoch: one epoch of warm-up is 4 steps.
    assert found[:4] == pytest.approx([0.01 * (n + 0.5) / 4 for n in range(4)])
    # The other 36 steps; the middle of them, between the 18th and the 19th, has half the rate.
    assert found[4:] == pytest.approx([falls((n + 0.5) / 36) for n in range(36)])
    assert (found[21] + found[22]) / 2 == pytest.approx(0.005)
    assert found[4:] == sorted(found[4:], reverse=True)
    assert 0 < found[-1] < 0.01 / 50
    assert schedule_epoch([0.5] * 10, TEN).stop


def test_numbers_of_the_cosine_written_out() -> None:
    # Without a warm-up, one step an epoch, four epochs: cos 22.5°, 67.5°, 112.5° and 157.5°.
    found = step_rates(replace(SMALL, epochs=4, warmup=0, rate=1.0), 1)
    assert found == pytest.approx([0.96194, 0.69134, 0.30866, 0.03806], abs=1e-5)


def test_the_error_does_not_end_a_cosine_nor_bend_it() -> None:
    errors = [0.1, *[0.9] * 20]
    better = [0.9 - 0.01 * n for n in range(21)]
    for done in (1, 9, 20):
        ours, others = (schedule_epoch(found[:done], SMALL) for found in (errors, better))
        assert ours.step_rates(3, 10) == others.step_rates(3, 10)
        assert not ours.stop


def test_the_rate_of_an_epoch_is_that_of_its_middle() -> None:
    schedule = schedule_epoch([0.5] * 4, TEN)
    assert schedule.rate == pytest.approx(half_cosine(3.5 / 9))
    # With an odd number of steps the middle one has it.
    assert schedule.step_rates(4, 7)["dense"] == pytest.approx(schedule.rate)


def test_a_warm_up_comes_before_plateaus_too() -> None:
    recipe = replace(RECIPE, epochs=10, patience=100, warmup=1, drop_after=(3,))
    found = step_rates(recipe, 2)
    assert found == pytest.approx([0.0025, 0.0075, *[0.01] * 4, *[0.001] * 14])


def test_a_warm_up_takes_at_most_a_tenth_of_a_short_run() -> None:
    found = step_rates(replace(SMALL, epochs=1, rate=1.0), 20)
    assert found[:3] == pytest.approx([0.25, 0.75, half_cosine(0.5 / 18) * 100])
    assert step_rates(replace(TEN, warmup=9), 4) == step_rates(TEN, 4)


def test_all_groups_take_part_in_the_warm_up_by_the_same_factor() -> None:
    recipe = replace(ORIGINAL, warmup=1)
    early = schedule_epoch([], recipe).step_rates(1, 4)
    assert early == pytest.approx({k: v / 8 for k, v in log_of_2012(1).items()})


def test_the_paper_has_no_factor() -> None:
    for epoch in (0, 5, 30):
        schedule = schedule_epoch([0.5] * epoch, PAPER)
        for step in (1, 7, 10):
            assert schedule.step_rates(step, 10) == schedule.rates


def test_an_extended_run_keeps_its_drops_and_goes_on_with_the_rate_it_ended_with() -> None:
    """As it was at 90 epochs: the drops at 54, 72 and 81 stay, though 120 would have later ones."""
    errors = [1 / n for n in range(1, 91)]
    longer = replace(PAPER, epochs=120)
    ended = schedule_epoch(errors[:89], PAPER).rate
    extended = schedule_epoch(errors, longer, [90] * 90)
    assert (extended.rate, extended.stop) == (ended, False)
    assert schedule_epoch(errors, PAPER).stop
    assert schedule_epoch(errors, longer).rate > ended


def test_a_run_that_ended_at_a_plateau_gets_as_much_patience_again() -> None:
    errors = [0.5] * (4 * PAPER.patience + 1)
    assert schedule_epoch(errors, PAPER).stop
    longer, planned = replace(PAPER, epochs=120), [90] * len(errors)
    for more in range(PAPER.patience):
        plans = [*planned, *[120] * more]
        assert not schedule_epoch([*errors, *[0.5] * more], longer, plans).stop
    plans = [*planned, *[120] * PAPER.patience]
    assert schedule_epoch([*errors, *[0.5] * PAPER.patience], longer, plans).stop

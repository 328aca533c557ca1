"""§5: "divide the learning rate by 10 when the validation error rate stopped improving"."""

from dataclasses import replace

import pytest

from training.config import CIFAR, ORIGINAL, PAPER, Recipe
from training.schedule import schedule_epoch

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
    """What ORIGINAL.md reads from the log of network 145 on ILSVRC-2012, epochs from 1."""
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

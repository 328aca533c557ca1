"""§5: "divide the learning rate by 10 when the validation error rate stopped improving"."""

from dataclasses import replace

import pytest

from training.config import PAPER
from training.schedule import plan

RECIPE = replace(PAPER, epochs=1000, patience=3)


def rates(errors: list[float], recipe: object = RECIPE) -> list[float]:
    return [plan(errors[:n], recipe).rate for n in range(len(errors) + 1)]  # type: ignore[arg-type]


def test_the_rate_stays_while_the_error_falls() -> None:
    assert rates([0.9 - 0.01 * n for n in range(50)]) == [0.01] * 51


def test_it_is_divided_by_ten_when_three_epochs_bring_nothing_better() -> None:
    found = rates([0.9, 0.8, 0.8, 0.85, 0.8, 0.7, 0.7])
    assert found == pytest.approx([0.01] * 5 + [0.001] * 3)


def test_three_drops_then_the_end() -> None:
    errors = [0.5] * 100
    drops = [plan(errors[:n], RECIPE) for n in range(100)]
    ends = next(n for n, step in enumerate(drops) if step.stop)
    assert ends == 1 + 4 * 3  # the first epoch improves on nothing; four plateaus of three
    assert [drops[n].rate for n in (3, 4, 7, 10)] == pytest.approx([0.01, 1e-3, 1e-4, 1e-5])


def test_all_three_drops_come_before_the_end_of_a_run_that_never_stalls() -> None:
    recipe = replace(PAPER, epochs=10)
    errors = [0.9 - 0.01 * n for n in range(10)]
    found = [plan(errors[:n], recipe) for n in range(11)]
    assert [step.rate for step in found[:10]] == pytest.approx(
        [0.01] * 6 + [0.001] * 2 + [0.0001] + [0.00001]
    )
    assert [step.stop for step in found] == [False] * 10 + [True]


def test_the_papers_numbers() -> None:
    assert (PAPER.rate, PAPER.momentum, PAPER.decay, PAPER.batch) == (0.01, 0.9, 0.0005, 128)
    assert (PAPER.epochs, PAPER.drops, PAPER.dropout, PAPER.colour_noise) == (90, 3, 0.5, 0.1)
    assert (PAPER.init, PAPER.input_scale) == ("paper", 1.0)

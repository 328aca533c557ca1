"""How sure an answer is: the temperature, the margin and the distance against known truths."""

from pathlib import Path

import numpy as np
import pytest
from scipy.optimize import minimize_scalar
from scipy.special import softmax

from index.calibration import (
    CALIBRATION_FILE,
    calibrate,
    choose_margin,
    compute_loss,
    fit_temperature,
    read_calibration,
    scale_probabilities,
    write_calibration,
)
from index.manifest import StoreError


def draw(temperature: float, count: int = 4000, classes: int = 5) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities of a network that is too sure by a temperature, and labels drawn honestly."""
    rng = np.random.default_rng(0)
    logits = rng.normal(0, 2, (count, classes))
    honest = softmax(logits, axis=1)
    labels = np.array([rng.choice(classes, p=row) for row in honest])
    return softmax(logits * temperature, axis=1).astype(np.float32), labels


@pytest.mark.parametrize("truth", [0.5, 1.0, 3.0])
def test_the_temperature_that_was_planted_is_found(truth: float) -> None:
    probabilities, labels = draw(truth)
    assert fit_temperature(probabilities, labels) == pytest.approx(truth, rel=0.06)


def test_the_temperature_is_the_minimum_that_scipy_finds() -> None:
    probabilities, labels = draw(2.0, 300)
    logs = np.log(probabilities.astype(np.float64))

    def loss(t: float) -> float:
        return float(-np.log(softmax(logs / t, axis=1)[range(300), labels]).mean())

    best = minimize_scalar(loss, bounds=(0.1, 20), method="bounded", options={"xatol": 1e-9})
    found = fit_temperature(probabilities, labels)
    assert found == pytest.approx(best.x, rel=1e-4)
    assert compute_loss(scale_probabilities(probabilities, found), labels) <= loss(1.0)


def test_a_label_without_any_probability_costs_a_finite_loss() -> None:
    probabilities = np.array([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]], np.float32)
    found = calibrate(np.ones(3), probabilities, np.array([0, 1, 1]))
    assert found.temperature is not None
    assert np.isfinite([found.temperature, *found.losses]).all()
    assert found.losses[1] < found.losses[0]


def test_below_the_margin_at_most_half_are_right_and_not_beyond() -> None:
    # Margins 0.1 … 0.6; right: no, no, yes, yes, no, yes.
    margins = np.arange(1, 7) / 10
    probabilities = np.stack([(1 + margins) / 2, (1 - margins) / 2], axis=1)
    labels = np.array([1, 1, 0, 0, 1, 0])
    margin = choose_margin(probabilities, labels)
    # Three of six are right: no margin is large enough.
    assert margin > 1
    assert choose_margin(probabilities, np.array([1, 0, 0, 0, 0, 0])) == pytest.approx(0.2)
    assert choose_margin(probabilities, np.zeros(6, int)) == 0


def test_a_distance_counts_as_unusual_only_where_one_in_twenty_would_be() -> None:
    usual = np.arange(1.0, 200.0)  # 1 … 199
    found = calibrate(usual, np.empty((0, 3), np.float32), np.empty(0, np.int64))
    answer = np.array([0.8, 0.1, 0.1], np.float32)
    # (1 + farther) / 200 is at most 0.05 where at most nine validation images are as far.
    assert found.judge(answer, 190.0).verdict == "sure"
    assert found.judge(answer, 190.5).verdict == "unlike"
    assert found.judge(answer, 190.5).nearer == 190
    assert found.judge(answer, 0.5).nearer == 0
    few = calibrate(usual[:18], np.empty((0, 3), np.float32), np.empty(0, np.int64))
    assert few.judge(answer, 1e9).verdict == "sure"  # 18 images cannot tell one in twenty


def test_images_like_the_validation_images_raise_few_false_alarms() -> None:
    rng = np.random.default_rng(1)
    alarms = 0
    for _ in range(40):
        found = calibrate(rng.gamma(3, size=300), np.empty((0, 2), np.float32), np.empty(0, int))
        answer = np.array([0.9, 0.1], np.float32)
        alarms += sum(found.judge(answer, d).verdict == "unlike" for d in rng.gamma(3, size=100))
    assert 0.03 < alarms / 4000 < 0.06


def test_two_labels_that_are_close_are_unsure() -> None:
    probabilities = np.array([[0.52, 0.48]] * 4 + [[0.9, 0.1]] * 6, np.float32)
    labels = np.array([0, 1, 1, 0] + [0] * 6)
    found = calibrate(np.ones(10), probabilities, labels)
    assert found.judge(np.array([0.51, 0.49], np.float32), 1.0).verdict == "unsure"
    assert found.judge(np.array([0.95, 0.05], np.float32), 1.0).verdict == "sure"


def test_a_label_that_is_less_probable_than_not_is_unsure() -> None:
    probabilities, labels = draw(2.0)  # too sure: at the temperature of 2, 0.6 becomes less
    found = calibrate(np.ones(4000), probabilities, labels)
    answer = np.array([0.6, 0.15, 0.1, 0.1, 0.05], np.float32)
    honest = answer**0.5 / (answer**0.5).sum()
    assert honest.max() < 0.5
    assert found.judge(answer, 1.0).verdict == "unsure"
    assert found.judge(np.array([0.96, 0.01, 0.01, 0.01, 0.01], np.float32), 1.0).verdict == "sure"


def test_scaling_keeps_the_order_and_sums_to_one() -> None:
    probabilities, _ = draw(1.0, 20)
    for temperature in (0.3, 1.0, 4.0):
        scaled = scale_probabilities(probabilities, temperature)
        assert scaled.sum(axis=1) == pytest.approx(np.ones(20))
        assert (np.argsort(scaled, axis=1) == np.argsort(probabilities, axis=1)).all()


def test_what_is_written_is_read_and_damage_is_named(tmp_path: Path) -> None:
    assert read_calibration(tmp_path) is None
    probabilities, labels = draw(2.0, 50)
    for made in (
        calibrate(np.array([3.0, 1.0, 2.0]), probabilities, labels),
        calibrate(np.array([3.0]), probabilities[:0], labels[:0]),
    ):
        write_calibration(tmp_path, made)
        read = read_calibration(tmp_path)
        assert read is not None
        assert read.distances.tolist() == sorted(made.distances.tolist())
        assert (read.temperature, read.margin, read.losses, read.labelled) == (
            made.temperature, made.margin, made.losses, made.labelled,
        )  # fmt: skip
    file = tmp_path / CALIBRATION_FILE
    file.write_bytes(file.read_bytes()[:-40])
    with pytest.raises(StoreError, match="damaged"):
        read_calibration(tmp_path)

"""The learning-rate schedule: divide by ten when the validation error stops improving (§5)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from training.config import Recipe

LATEST_DROPS = (0.6, 0.8, 0.9)
"""Fractions of the run at which the first, second and third drop happen without a plateau."""


@dataclass(frozen=True)
class EpochSchedule:
    """What the schedule says about the next epoch."""

    rate: float
    """The learning rate of most layers."""
    rates: Mapping[str, float]
    """The learning rate of each parameter group (training/sgd.py)."""
    stop: bool
    """Whether the run ends instead."""


def schedule_epoch(errors: Sequence[float], recipe: Recipe) -> EpochSchedule:
    """Schedule the next epoch, given the validation errors (top-1, 0–1) of those before it."""
    drops, plateau_end = count_drops(errors, recipe)
    rate = recipe.rate / 10.0**drops
    stop = plateau_end or len(errors) >= recipe.epochs
    return EpochSchedule(rate, compute_group_rates(errors, recipe), stop)


def count_drops(errors: Sequence[float], recipe: Recipe) -> tuple[int, bool]:
    """Return how often the rate has dropped after these epochs, and whether the run is over."""
    if recipe.drop_after:
        return sum(len(errors) >= epoch for epoch in recipe.drop_after), False
    return count_plateau_drops(errors, recipe)


def count_plateau_drops(errors: Sequence[float], recipe: Recipe) -> tuple[int, bool]:
    """Return how often the rate has dropped at a plateau, and whether the run is over.

    The rate drops after `patience` epochs without a new lowest error, and at the latest after
    60, 80 and 90 % of the epochs, so that even a short run makes all three of the paper's drops.
    A plateau after the last drop ends the run.
    """
    drops, since, best = 0, 0, float("inf")
    for epoch, error in enumerate(errors, start=1):
        since = 0 if error < best else since + 1
        best = min(best, error)
        plateau = since >= recipe.patience
        if drops == recipe.drops:
            if plateau:
                return drops, True
            continue
        if plateau or epoch >= recipe.epochs * LATEST_DROPS[min(drops, len(LATEST_DROPS) - 1)]:
            drops, since = drops + 1, 0
    return drops, False


def compute_group_rates(errors: Sequence[float], recipe: Recipe) -> dict[str, float]:
    """Return the learning rate of every parameter group (training/sgd.py) after these epochs.

    As in the run of 2012, conv1 may drop one step ahead, sitting out the other layers' next drop,
    and may later be frozen.
    """
    done, drops = len(errors), count_drops(errors, recipe)[0]
    rate = conv1 = recipe.rate / 10.0**drops
    if recipe.slow_conv1_after is not None and done >= recipe.slow_conv1_after:
        before = count_drops(errors[: recipe.slow_conv1_after], recipe)[0]
        conv1 = recipe.rate / 10.0 ** max(drops, before + 1)
    biases = conv1_bias = recipe.bias_rate
    if recipe.freeze_conv1_after is not None and done >= recipe.freeze_conv1_after:
        conv1, conv1_bias = 0.0, 0.0
    return {
        "conv1": conv1,
        "conv1 bias": conv1 if conv1_bias is None else conv1_bias,
        "conv": rate,
        "dense": rate,
        "bias": rate if biases is None else biases,
    }

"""When the learning rate falls: divided by ten when the validation error stops improving (§5)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from training.config import Recipe

LATEST_DROPS = (0.6, 0.8, 0.9)
"""Of a run's epochs: where the first, second and third drop are made when no plateau was met."""


@dataclass(frozen=True)
class EpochSchedule:
    """What the next epoch does: its learning rate, those of all groups, or nothing more."""

    rate: float
    rates: Mapping[str, float]
    stop: bool


def schedule_epoch(errors: Sequence[float], recipe: Recipe) -> EpochSchedule:
    """Say how training goes on after epochs with these validation errors (top-1, 0–1)."""
    drops, over = count_drops(errors, recipe)
    rate = recipe.rate / 10.0**drops
    return EpochSchedule(rate, compute_rates(errors, recipe), over or len(errors) >= recipe.epochs)


def count_drops(errors: Sequence[float], recipe: Recipe) -> tuple[int, bool]:
    """How often the rate has fallen after these epochs, and whether the run is over."""
    if recipe.drop_after:
        return sum(len(errors) >= epoch for epoch in recipe.drop_after), False
    return count_plateau_drops(errors, recipe)


def count_plateau_drops(errors: Sequence[float], recipe: Recipe) -> tuple[int, bool]:
    """How often the rate has fallen, and whether the run is over.

    The rate falls when `patience` epochs in a row brought no lower error than the lowest before
    them, and at the latest at 60, 80 and 90 % of the epochs, so that all three drops of the paper
    come before the end also in a short run. After the last drop a plateau ends the run.
    """
    drops, since, best = 0, 0, float("inf")
    for epoch, error in enumerate(errors, start=1):
        since = 0 if error < best else since + 1
        best = min(best, error)
        if drops == recipe.drops and since >= recipe.patience:
            return drops, True
        if drops < recipe.drops and (
            since >= recipe.patience or epoch >= latest_drop_epoch(drops, recipe)
        ):
            drops, since = drops + 1, 0
    return drops, False


def latest_drop_epoch(drops: int, recipe: Recipe) -> float:
    """The epoch after which the next drop is made in any case."""
    return recipe.epochs * LATEST_DROPS[min(drops, len(LATEST_DROPS) - 1)]


def compute_rates(errors: Sequence[float], recipe: Recipe) -> dict[str, float]:
    """The learning rate of every group of parameters (training/sgd.py) after these epochs.

    conv1 may be slowed ahead of the next drop, which then is made for the other layers only, and
    frozen, as in the run of 2012.
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

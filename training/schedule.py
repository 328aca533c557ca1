"""When the learning rate falls: divided by ten when the validation error stops improving (§5)."""

from collections.abc import Sequence
from typing import NamedTuple

from training.config import Recipe

LATEST = (0.6, 0.8, 0.9)
"""Of a run's epochs: where the first, second and third drop are made when no plateau was met."""


class Plan(NamedTuple):
    """What the next epoch does: its learning rate, or nothing more."""

    rate: float
    stop: bool


def plan(errors: Sequence[float], recipe: Recipe) -> Plan:
    """Say how training goes on after epochs with these validation errors (top-1, 0–1).

    The rate falls when `patience` epochs in a row brought no lower error than the lowest before
    them, and at the latest at 60, 80 and 90 % of the epochs, so that all three drops of the paper
    come before the end also in a short run. After the last drop a plateau ends the run.
    """
    drops, since, best = 0, 0, float("inf")
    for epoch, error in enumerate(errors, start=1):
        since = 0 if error < best else since + 1
        best = min(best, error)
        if epoch >= recipe.epochs or (drops == recipe.drops and since >= recipe.patience):
            return Plan(rate_after(drops, recipe), stop=True)
        if drops < recipe.drops and (since >= recipe.patience or epoch >= latest(drops, recipe)):
            drops, since = drops + 1, 0
    return Plan(rate_after(drops, recipe), stop=False)


def rate_after(drops: int, recipe: Recipe) -> float:
    """The learning rate after so many divisions by ten."""
    return recipe.rate / 10.0**drops


def latest(drops: int, recipe: Recipe) -> float:
    """The epoch after which the next drop is made in any case."""
    return recipe.epochs * LATEST[min(drops, len(LATEST) - 1)]

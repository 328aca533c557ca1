"""The learning-rate schedule: divide by ten when the validation error stops improving (§5).

For small training sets the rate may instead fall to zero along half a cosine or a line, and rise
from zero at first; one of 2012's runs had it fall exponentially.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from training.recipe.config import Recipe
from training.recipe.layer_values import parse_layer_values

LATEST_DROPS = (0.6, 0.8, 0.9)
"""Fractions of the run at which the first, second and third drop happen without a plateau."""

LONGEST_WARMUP = 0.1
"""Share of the run that the warm-up takes at most."""


@dataclass(frozen=True)
class EpochSchedule:
    """What the schedule says about the next epoch."""

    rate: float
    """The learning rate of most layers, in the middle of the epoch."""
    rates: Mapping[str, float]
    """The learning rate of each parameter group (training/optimisation/sgd.py)."""
    stop: bool
    """Whether the run ends instead."""
    factor: Callable[[float], float] = lambda _: 1.0
    """The factor of all rates after a share, 0–1, of the epoch's steps."""

    def step_rates(self, step: int, steps: int) -> dict[str, float]:
        """Return the rates of one of the epoch's steps, counted from 1; never zero by `factor`."""
        factor = self.factor((step - 0.5) / steps)
        return {name: factor * rate for name, rate in self.rates.items()}


def schedule_epoch(
    errors: Sequence[float], recipe: Recipe, planned: Sequence[int] = ()
) -> EpochSchedule:
    """Schedule the next epoch, given the validation errors (top-1, 0–1) of those before it.

    planned: how many epochs the run was to have when each of them was trained, in a run that was
    extended since; by default as many as the recipe says.
    """
    drops, plateau_end = count_drops(errors, recipe, planned)
    done = len(errors)

    def factor(share: float) -> float:
        return compute_factor(done + share, recipe)

    rate = recipe.rate / 10.0**drops * factor(0.5)
    stop = plateau_end or done >= recipe.epochs
    return EpochSchedule(rate, compute_group_rates(errors, recipe, planned), stop, factor)


def compute_factor(epochs: float, recipe: Recipe) -> float:
    """Return what the learning rate is multiplied by, 0–1, after so many epochs or parts of them.

    It rises along a line during the warm-up; then it is 1, or falls to 0, or 1 / `fall`, by the end
    of the run.
    """
    warmup = min(recipe.warmup, LONGEST_WARMUP * recipe.epochs)
    if epochs < warmup:
        return epochs / warmup
    rest = (recipe.epochs - epochs) / (recipe.epochs - warmup)
    match recipe.schedule:
        case "cosine":
            return 0.5 - 0.5 * math.cos(math.pi * rest)
        case "linear":
            return rest
        case "exponential":
            return math.pow(recipe.fall, rest - 1)
        case "plateau":
            return 1.0


def count_drops(
    errors: Sequence[float], recipe: Recipe, planned: Sequence[int] = ()
) -> tuple[int, bool]:
    """Return how often the rate has dropped after these epochs, and whether the run is over."""
    if recipe.schedule != "plateau":
        return 0, False
    if recipe.drop_after:
        return sum(len(errors) >= epoch for epoch in recipe.drop_after), False
    return count_plateau_drops(errors, recipe, planned)


def count_plateau_drops(
    errors: Sequence[float], recipe: Recipe, planned: Sequence[int] = ()
) -> tuple[int, bool]:
    """Return how often the rate has dropped at a plateau, and whether the run is over.

    The rate drops after `patience` epochs without a new lowest error, and at the latest after
    60, 80 and 90 % of the epochs, so that even a short run makes all three of the paper's drops.
    A plateau after the last drop ends the run. When a run is extended, its drops stay, and the
    epochs without a new lowest error are counted anew.
    """
    drops, since, best, over = 0, 0, float("inf"), False
    plans = planned or [recipe.epochs] * len(errors)
    for epoch, (error, plan) in enumerate(zip(errors, plans, strict=True), start=1):
        since = 0 if error < best else since + 1
        best = min(best, error)
        plateau = since >= recipe.patience
        if drops == recipe.drops:
            over = plateau
        elif plateau or epoch >= plan * LATEST_DROPS[min(drops, len(LATEST_DROPS) - 1)]:
            drops, since = drops + 1, 0
        if over and plan == recipe.epochs:
            break
        if plan != (*plans, recipe.epochs)[epoch]:
            since, over = 0, False
    return drops, over


def compute_group_rates(
    errors: Sequence[float], recipe: Recipe, planned: Sequence[int] = ()
) -> dict[str, float]:
    """Return the learning rate of every parameter group after these epochs.

    The groups are those of training/optimisation/sgd.py.

    As in the run of 2012, conv1 may drop one step ahead, sitting out the other layers' next drop,
    and may later be frozen.
    """
    done, drops = len(errors), count_drops(errors, recipe, planned)[0]
    rate = conv1 = recipe.rate / 10.0**drops
    if recipe.slow_conv1_after is not None and done >= recipe.slow_conv1_after:
        first = recipe.slow_conv1_after
        before = count_drops(errors[:first], recipe, planned[:first])[0]
        conv1 = recipe.rate / 10.0 ** max(drops, before + 1)
    biases = recipe.bias_rate
    if biases and recipe.drop_bias_rate_after and done >= recipe.drop_bias_rate_after:
        biases /= 10
    conv1_bias = biases
    if recipe.freeze_conv1_after is not None and done >= recipe.freeze_conv1_after:
        conv1, conv1_bias = 0.0, 0.0
    rates = {
        "conv1": conv1,
        "conv1 bias": conv1 if conv1_bias is None else conv1_bias,
        "conv": rate,
        "dense": rate,
        "bias": rate if biases is None else biases,
    }
    until = recipe.layer_rates_until
    applies = until is None or done < until
    factors, own_biases = recipe.rate_factors(), parse_layer_values(recipe.layer_bias_rates)
    slower = biases is not None and biases != recipe.bias_rate
    for layer in recipe.own_layers():
        of_weights, of_biases = ("conv1", "conv1 bias") if layer == "conv1" else ("conv", "bias")
        factor = factors.get(layer, 1.0) if applies else 1.0
        rates[layer] = rates[of_weights] * factor
        rates[f"{layer} bias"] = rates[of_biases] * factor
        if layer in own_biases and rates[of_biases]:
            rates[f"{layer} bias"] = own_biases[layer] / (10 if slower else 1)
    return rates

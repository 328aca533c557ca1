"""Values of a recipe for single layers, such as conv1=0.1, as the command line gives them."""

import re
from collections.abc import Iterable

LAYER_VALUES = ("layer_rates", "layer_bias_rates", "layer_decays", "layer_momenta")
"""Fields of a recipe that have values for single layers."""
LAYER_VALUE = re.compile(r"([a-z][a-z0-9_]*(?:\.bias)?)=([0-9.e+-]+)")
"""One of these values: a layer's name and a number."""


def parse_layer_values(pairs: Iterable[str]) -> dict[str, float]:
    """Parse LAYER=NUMBER, such as conv1=0.1; a number that is none becomes NaN."""
    values = {}
    for layer, _, number in (pair.partition("=") for pair in pairs):
        try:
            values[layer] = float(number)
        except ValueError:
            values[layer] = float("nan")
    return values


def check_layer_values(
    pairs: Iterable[str], below: float = float("inf"), *, biases: bool = False
) -> bool:
    """Return whether all are LAYER=NUMBER, with numbers from 0 to less than `below`.

    biases: whether LAYER.bias is a name, too.
    """
    known = all(LAYER_VALUE.fullmatch(pair) and (biases or ".bias" not in pair) for pair in pairs)
    return known and all(0 <= number < below for number in parse_layer_values(pairs).values())

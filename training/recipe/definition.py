"""The recipe of a network that its authors' files define (--layers)."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from model.formats.cfg_file import DefinitionError
from model.formats.cuda_convnet_layers import Definition
from model.network.definition import DEFINED, describe_definition
from training.recipe.config import Recipe, RecipeError

PARAMETER_FILES = (("layers", "layer-params"), ("layer", "params"), ("layers", "params"))
"""How a parameter file is called after its layer file, as the authors named theirs."""


def find_parameter_file(layer_file: Path) -> Path:
    """Return the parameter file beside a layer file: layer-params-NAME.cfg for layers-NAME.cfg.

    Raises DefinitionError if there is none.
    """
    names = [layer_file.name.replace(*names, 1) for names in PARAMETER_FILES]
    for name in names:
        if name != layer_file.name and layer_file.with_name(name).is_file():
            return layer_file.with_name(name)
    raise DefinitionError(
        f"there is no parameter file for {layer_file}: name it with --layer-params"
    )


def apply_definition(recipe: Recipe, definition: Definition) -> Recipe:
    """Return a recipe that trains a defined network with its rates, momenta and weight decays.

    What most layers have becomes the recipe's, and the others' is listed by layer. Biases do not
    decay, and keep their rate while the weights' falls. Raises RecipeError if no layer learns.
    """
    rates = definition.rates
    rate = find_commonest(one.rate for one in rates.values() if one.rate)
    bias_rate = find_commonest(one.bias_rate for one in rates.values() if one.bias_rate)
    momentum = find_commonest(one.momentum for one in rates.values())
    decay = find_commonest(one.decay for one in rates.values())
    if rate is None or momentum is None or decay is None:
        raise RecipeError("--layers: no layer of the definition learns: every epsW is 0")
    momenta = {name: one.momentum for name, one in rates.items()}
    momenta |= {f"{name}.bias": one.bias_momentum for name, one in rates.items()}
    return replace(
        recipe,
        variant=DEFINED,
        definition=describe_definition(definition.config),
        rate=rate,
        layer_rates=list_values({n: one.rate / rate for n, one in rates.items()}, 1.0),
        # Without any that learns, all are listed with a rate of zero.
        bias_rate=bias_rate or rate,
        # A factor of the layer's rate would be one of its biases', too.
        layer_bias_rates=list_values(
            {n: one.bias_rate for n, one in rates.items() if one.rate == rate}, bias_rate
        )
        + list_values({n: one.bias_rate for n, one in rates.items() if one.rate != rate}, None),
        momentum=momentum,
        layer_momenta=list_values(momenta, momentum),
        decay=decay,
        conv_decay=None,
        layer_decays=list_values({n: one.decay for n, one in rates.items()}, decay),
        bias_decay=False,
    )


def find_commonest(numbers: Iterable[float]) -> float | None:
    """Return the number that occurs most often, the first of several; None without any."""
    counts = Counter(numbers).most_common(1)
    return counts[0][0] if counts else None


def list_values(numbers: dict[str, float], usual: float | None) -> tuple[str, ...]:
    """Return LAYER=NUMBER for each layer whose number is not the usual one."""
    return tuple(f"{name}={number!r}" for name, number in numbers.items() if number != usual)

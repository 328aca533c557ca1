"""A list of layers as JSON, for networks that a file defines instead of a name.

Each layer is an object with its type, its name and the values in which it differs from its type's
defaults, so that a weights file describes its whole network (model/weights/checkpoint.py).
"""

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import MISSING, Field, fields
from typing import Any

from model.network.layers import (
    Activation,
    AveragePool,
    Border,
    Conv,
    Dense,
    Drop,
    Flatten,
    Layer,
    Local,
    Lrn,
    MapNorm,
    Pool,
)

KINDS: Mapping[str, type[Any]] = {
    "border": Border,
    "conv": Conv,
    "local": Local,
    "dense": Dense,
    "flatten": Flatten,
    "activation": Activation,
    "lrn": Lrn,
    "mapnorm": MapNorm,
    "pool": Pool,
    "average_pool": AveragePool,
    "drop": Drop,
}
"""Each type of layer by its name in JSON."""
WORDS = {"relu", "tanh", "max", "average"}
"""The values of a layer that are words: nonlinearities and kinds of pooling."""
MAX_LAYERS = 200
"""Layers of a network, at most."""
MAX_SIZE = 65_536
"""Maps, neurons or pixels of a layer, at most: a file must not make a reader run out of memory."""
MAX_MAPS = 4096
"""Maps of a convolutional or locally connected layer, at most. Normalisation makes a matrix of as
many rows and columns."""
NAME = re.compile(r"[a-z][a-z0-9_]{0,40}")
"""What a layer may be called."""
TAKEN = {"config", "layers", "last_hidden", "place"}
"""Names that the network's module needs for itself."""


class LayerListError(ValueError):
    """A list of layers that is not one, or that no network can be built of."""


def dump_layers(layers: Iterable[Layer]) -> list[dict[str, Any]]:
    """Describe layers as JSON objects; `parse_layers` reads them back.

    Raises LayerListError for a layer of a type that has no name here.
    """
    return [dump_layer(layer) for layer in layers]


def dump_layer(layer: Layer) -> dict[str, Any]:
    """Describe one layer, without the values that are its type's defaults."""
    kind = next((name for name, known in KINDS.items() if type(layer) is known), None)
    if kind is None:
        raise LayerListError(f"{layer.name}: a layer of this type cannot be described")
    values = {f.name: getattr(layer, f.name) for f in fields(layer)}  # type: ignore[arg-type]
    defaults = {f.name: f.default for f in fields(KINDS[kind])}
    return {"type": kind, **{k: v for k, v in values.items() if v != defaults[k]}}


def parse_layers(described: Sequence[Any]) -> tuple[Layer, ...]:
    """Make layers of their descriptions; layers stay as they are.

    Raises LayerListError for anything that is not a layer, an unknown or missing value, a value of
    another type or far too large, and for a name that is impossible or used twice.
    """
    if isinstance(described, str | Mapping) or not isinstance(described, Sequence):
        raise LayerListError("a network's layers must be a list")
    if len(described) > MAX_LAYERS:
        raise LayerListError(f"{len(described)} layers are more than {MAX_LAYERS}")
    layers = tuple(
        parse_layer(one) if isinstance(one, Mapping) else check_layer(one) for one in described
    )
    names = [layer.name for layer in layers]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise LayerListError(f"two layers are called {twice[0]}")
    return layers


def parse_layer(described: Mapping[str, Any]) -> Layer:
    """Make a layer of its description. Raises LayerListError."""
    values = dict(described)
    kind, name = values.pop("type", None), values.get("name")
    if not isinstance(kind, str) or kind not in KINDS:
        raise LayerListError(f"{name}: there is no layer of the type {kind!r}")
    known = {field.name: field for field in fields(KINDS[kind])}
    missing = {n for n, field in known.items() if field.default is MISSING} - set(values)
    if unknown := sorted(set(values) - set(known)):
        raise LayerListError(f"{name}: a layer of the type {kind} has no {', '.join(unknown)}")
    if missing:
        raise LayerListError(f"{name}: {', '.join(sorted(missing))} is missing")
    layer: Layer = KINDS[kind](**values)
    return check_layer(layer)


def check_layer(layer: Any) -> Layer:
    """Return a layer if its name and values are possible. Raises LayerListError."""
    # Not above: only networks that a file defines need it, and it takes seconds to import.
    from torch import nn

    if type(layer) not in KINDS.values():
        raise LayerListError(f"{layer!r} is not a layer")
    name = layer.name
    if not isinstance(name, str) or not NAME.fullmatch(name) or name in TAKEN:
        raise LayerListError(f"{name!r} cannot be the name of a layer")
    if hasattr(nn.Module, name) or hasattr(nn.Module(), name):
        raise LayerListError(f"{name!r} cannot be the name of a layer: torch's modules use it")
    for field in fields(layer):
        value = getattr(layer, field.name)
        if not is_possible(field, value):
            raise LayerListError(f"{name}: {field.name} cannot be {value!r}")
    if isinstance(layer, Conv | Local) and layer.maps > MAX_MAPS:
        raise LayerListError(f"{name}: {layer.maps} maps are more than {MAX_MAPS}")
    if isinstance(layer, Lrn | MapNorm) and layer.n % 2 == 0:
        raise LayerListError(f"{name}: n must be odd, not {layer.n}")
    if isinstance(layer, Drop) and not 0 <= layer.p < 1:
        raise LayerListError(f"{name}: p cannot be {layer.p}")
    result: Layer = layer
    return result


def is_possible(field: "Field[Any]", value: Any) -> bool:
    """Return whether a field of a layer may have this value, by the field's type."""
    if field.name == "name":
        return True
    if field.name == "kind":
        return value in WORDS
    if isinstance(field.default, bool):
        return isinstance(value, bool)
    if isinstance(value, bool):
        return False
    if field.type is int:
        lowest = 0 if field.name in ("pad", "pixels", "tower") else 1
        return isinstance(value, int) and lowest <= value <= MAX_SIZE
    if field.name == "sigma" and value is None:
        return True
    if field.name in ("bias", "sigma"):
        return isinstance(value, int | float) and math.isfinite(value)
    return isinstance(value, int | float) and 0 <= value < math.inf

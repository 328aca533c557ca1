"""A defined network as text: what a run's recipe keeps of the files that it was read from."""

import json
from dataclasses import fields
from typing import Any

from model.network.architectures import VARIANTS
from model.network.config import AlexNetConfig, ConfigError
from model.network.layer_list import dump_layers

DEFINED = "defined"
"""The variant of a network that is defined by a text, not by its name."""
DEFINITION_FIELDS = ("side", "crop", "test_crops", "dropout")
"""Fields of the configuration that a definition has beside the layers."""


def describe_definition(config: AlexNetConfig) -> str:
    """Describe a defined network as JSON; `parse_definition` reads it back."""
    values: dict[str, Any] = {name: getattr(config, name) for name in DEFINITION_FIELDS}
    return json.dumps(values | {"layers": dump_layers(config.layers)})


def parse_definition(text: str) -> AlexNetConfig:
    """Return the configuration that a text describes. Raises ConfigError if it describes none."""
    try:
        values = json.loads(text)
        if unknown := sorted(set(values) - {field.name for field in fields(AlexNetConfig)}):
            raise ConfigError(f"unknown fields {', '.join(unknown)}")
        return AlexNetConfig(**{"net": DEFINED, **values})
    except (TypeError, ValueError, AttributeError, RecursionError) as error:
        raise ConfigError(f"this describes no network: {error}") from error


def find_network(variant: object, definition: object) -> AlexNetConfig | None:
    """Return the configuration of the network that a run's recipe names or defines.

    None for one that is unknown, as in a run of a newer version, or damaged.
    """
    if variant == DEFINED and isinstance(definition, str):
        try:
            return parse_definition(definition)
        except ConfigError:
            return None
    known = VARIANTS.get(variant) if isinstance(variant, str) else None
    return known.config if known else None

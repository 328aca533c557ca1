"""A defined network as text, in a run's recipe: it comes back; damage is named or passed over."""

import json
from dataclasses import replace

import pytest

from model.network.architectures import VARIANTS
from model.network.config import AlexNetConfig, ConfigError
from model.network.definition import describe_definition, find_network, parse_definition
from model.network.paper_layers import list_layers

NAMED = VARIANTS["original-147"].config
DEFINED = AlexNetConfig(net="defined", layers=tuple(list_layers(NAMED)))


def test_a_definition_comes_back() -> None:
    text = describe_definition(DEFINED)
    assert parse_definition(text) == DEFINED
    assert parse_definition(text).towers == 2
    small = replace(DEFINED, side=80, crop=72, dropout=0.25, test_crops="nine")
    assert parse_definition(describe_definition(small)) == small


def test_a_runs_recipe_names_its_network_or_defines_it() -> None:
    assert find_network("original-147", "") == NAMED
    assert find_network("defined", describe_definition(DEFINED)) == DEFINED


@pytest.mark.parametrize(
    ("variant", "definition"),
    [("vgg", ""), (None, None), (["paper"], ""), ("defined", ""), ("defined", None),
     ("defined", "{"), ("defined", "[]"), ("defined", '{"layers": 3}'), ("defined", "null")],
)  # fmt: skip
def test_a_network_that_is_unknown_or_damaged_is_none(variant: object, definition: object) -> None:
    assert find_network(variant, definition) is None


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"layers": []}, "layers"),
        ({"layers": [{"type": "conv", "name": "conv1"}]}, "is missing"),
        ({"colour": "red"}, "unknown fields colour"),
        ({"crop": 300}, "side"),
        ({"lrn": False}, "lrn"),
        ({"net": "paper"}, "layers"),
    ],
)
def test_a_definition_of_no_network_is_refused(change: dict[str, object], reason: str) -> None:
    text = json.dumps(json.loads(describe_definition(DEFINED)) | change)
    with pytest.raises(ConfigError, match=reason):
        parse_definition(text)

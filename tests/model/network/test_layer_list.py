"""Layers as JSON in a weights file's header: they come back, and nothing else is believed."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from model.network.alexnet import AlexNet
from model.network.architectures import VARIANTS
from model.network.config import AlexNetConfig, ConfigError
from model.network.layer_list import LayerListError, dump_layers, parse_layers
from model.network.paper_layers import list_layers
from model.weights.checkpoint import Weights, load_weights, save_weights
from model.weights.header import WeightsError, read_weights_header

CONV = {"type": "conv", "name": "conv1", "maps": 4, "kernel": 5}
FLAT = {"type": "flatten", "name": "flatten"}
FC = {"type": "dense", "name": "fc2", "neurons": 3}
SMALL = AlexNetConfig(net="defined", classes=3, side=16, crop=12, layers=[CONV, FLAT, FC])  # type: ignore[arg-type]


@pytest.mark.parametrize("name", VARIANTS)
def test_every_networks_layers_survive_json(name: str) -> None:
    layers = list_layers(VARIANTS[name].config)
    described = json.loads(json.dumps(dump_layers(layers)))
    assert list(parse_layers(described)) == layers


def test_a_network_of_listed_layers_computes_what_the_named_one_does() -> None:
    named = replace(VARIANTS["cifar-18pct"].config, classes=5, init="he", input_scale=60.0)
    defined = AlexNetConfig(
        net="defined",
        classes=5,
        side=32,
        crop=32,
        dropout=0.0,
        init="he",
        input_scale=60.0,
        layers=tuple(list_layers(named)),
    )
    networks = []
    for config in (named, defined):
        torch.manual_seed(0)
        networks.append(AlexNet(config).eval())
    x = torch.randn(2, 3, 32, 32)
    with torch.inference_mode():
        assert torch.equal(networks[0](x).logits, networks[1](x).logits)


def test_weights_of_listed_layers_need_nothing_else(
    weights_of: Callable[..., Weights], tmp_path: Path
) -> None:
    weights = weights_of(SMALL, seed=3)
    save_weights(weights, tmp_path / "weights")
    read = load_weights(tmp_path / "weights")
    assert read.config == SMALL
    assert read.identity == weights.identity
    assert read_weights_header(tmp_path / "weights").config == SMALL
    x = torch.randn(2, 3, 12, 12)
    with torch.inference_mode():
        assert torch.equal(read.build_network()(x).logits, weights.build_network()(x).logits)


@pytest.mark.parametrize(
    ("layer", "reason"),
    [
        ({"type": "blur"}, "no layer of the type 'blur'"),
        ({"type": ["conv"]}, "no layer of the type"),
        ({"maps": -4}, "maps cannot be -4"),
        ({"maps": 5000}, "more than 4096"),
        ({"maps": 2**40}, "maps cannot be"),
        ({"maps": "4"}, "maps cannot be '4'"),
        ({"maps": True}, "maps cannot be True"),
        ({"kernel": 0}, "kernel cannot be 0"),
        ({"stride": 0}, "stride cannot be 0"),
        ({"pad": -1}, "pad cannot be -1"),
        ({"sigma": float("nan")}, "sigma cannot be nan"),
        ({"grouped": 1}, "grouped cannot be 1"),
        ({"colour": 3}, "has no colour"),
        ({"name": "training"}, "cannot be the name"),
        ({"name": "layers"}, "cannot be the name"),
        ({"name": "Conv 1"}, "cannot be the name"),
        ({"name": None}, "cannot be the name"),
        ({"name": "fc2"}, "two layers are called fc2"),
    ],
)
def test_impossible_layers_are_refused(layer: dict[str, object], reason: str) -> None:
    with pytest.raises(LayerListError, match=reason):
        parse_layers([CONV | layer, FLAT, FC])


@pytest.mark.parametrize(
    ("layers", "reason"),
    [
        ("conv1", "must be a list"),
        ([CONV, 3], "3 is not a layer"),
        ([{"type": "conv", "name": "conv1"}], "kernel, maps is missing"),
        ([FLAT, FC], "begin with a convolutional"),
        ([CONV, FLAT], "end with a fully connected"),
        ([], "layers"),
        ([CONV | {"name": f"conv{n}"} for n in range(300)], "300 layers"),
        ([CONV, {"type": "lrn", "name": "n", "k": 1, "n": 4, "alpha": 1, "beta": 1}, FC], "odd"),
        ([CONV, {"type": "drop", "name": "d", "p": 1.0}, FC], "p cannot be 1.0"),
    ],
)
def test_lists_that_make_no_network_are_refused(layers: object, reason: str) -> None:
    with pytest.raises(ConfigError, match=reason):
        AlexNetConfig(net="defined", layers=layers)  # type: ignore[arg-type]


def test_a_file_whose_layers_do_not_fit_together_is_refused(
    weights_of: Callable[..., Weights], tmp_path: Path
) -> None:
    # Windows of 13 on a crop of 12 pixels: found when the network is built.
    config = replace(SMALL, layers=parse_layers([CONV | {"kernel": 13}, FLAT, FC]))
    save_weights(replace(weights_of(SMALL, seed=3), config=config), tmp_path / "weights")
    with pytest.raises(WeightsError, match="conv1 has no room"):
        load_weights(tmp_path / "weights")

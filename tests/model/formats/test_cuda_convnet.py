"""The authors' definition files, in words of the tests' own, against the networks of the family."""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from model.formats.cfg_file import DefinitionError
from model.formats.cuda_convnet import read_definition
from model.formats.cuda_convnet_layers import Definition
from model.network.alexnet import AlexNet
from model.network.architectures import VARIANTS
from model.network.config import AlexNetConfig
from model.network.layers import Dense, Layer, Lrn, Pool, Shape
from model.network.paper_layers import list_layers

Sections = dict[str, dict[str, object]]
Read = Callable[..., Definition]
LEARNS = {"epsW": 0.01, "epsB": 0.02, "momW": 0.9, "momB": 0.9, "wc": 0.0005}


def write_cfg(sections: Mapping[str, Mapping[str, object]]) -> str:
    return "\n".join(
        "\n".join([f"[{name}]", *(f"{key}={value}" for key, value in values.items()), ""])
        for name, values in sections.items()
    )


@pytest.fixture
def read(tmp_path: Path) -> Read:
    """Write two definition files, then read them."""

    def write_and_read(
        layers: Sections | str, parameters: Sections | str, *, side: int = 256, crop: int = 224
    ) -> Definition:
        texts = [x if isinstance(x, str) else write_cfg(x) for x in (layers, parameters)]
        for name, text in zip(("net.cfg", "params.cfg"), texts, strict=True):
            (tmp_path / name).write_text(text)
        return read_definition(tmp_path / "net.cfg", tmp_path / "params.cfg", side=side, crop=crop)

    return write_and_read


def ends(last: str) -> Sections:
    return {
        "probs": {"type": "softmax", "inputs": last},
        "logprob": {"type": "cost.logreg", "inputs": "labels,probs", "gpu": 0},
    }


DATA: Sections = {
    "data": {"type": "data", "dataIdx": 0},
    "labels": {"type": "data", "dataIdx": 1},
}


def two_columns(run: int) -> tuple[Sections, Sections]:
    """A network of 2012 as ORIGINAL.md describes it, its two columns written as layers apart."""
    layers, learned, norms = dict(DATA), [], []

    def add(name: str, kind: str, reads: str, neuron: str = "", **values: object) -> None:
        for column in "ab":
            both = reads.endswith("*")
            names = [reads[:-1] + c for c in "ab"] if both else [reads + column]
            inputs = reads if reads == "data" else ",".join(names)
            # What a layer that reads both columns has for each of them.
            twice = ("channels", "filters", "filterSize", "padding", "stride", "initW")
            written = {k: f"{v},{v}" if both and k in twice else v for k, v in values.items()}
            layers[name + column] = {"type": kind, "inputs": inputs, **written}
            layers[name + column]["gpu"] = "ab".index(column)
            if neuron:
                layers[name + column]["neuron"] = neuron
            (learned if kind in ("conv", "fc") else norms).append((name + column, kind, both))

    def conv(name: str, reads: str, filters: int, size: int, **values: object) -> None:
        values = {"padding": 1, "stride": 1, "initW": 0.01} | values
        add(name, "conv", reads, filters=filters, filterSize=size, partialSum=1, **values)

    pool = {"pool": "max", "sizeX": 2 if run == 147 else 3, "stride": 2, "start": 0}
    conv("first", "data", 48, 11, channels=3, stride=4, padding=0, sharedBiases=1)
    reads = "first"
    if run != 148:
        add("norm", "cmrnorm", reads, channels=48, size=5)
        reads = "norm"
    add("small", "pool", reads, neuron="relu", channels=48, **pool)
    padding = 1 if run == 147 else 2
    conv("second", "small", 128, 5, neuron="relu", channels=48, padding=padding, initB=1)
    reads = "second"
    if run not in (148, 167):
        add("across", "cmrnorm", reads, channels=128, size=5)
        reads = "across"
    if run != 148:
        add("within", "rnorm", reads, channels=128, size=5)
        reads = "within"
    add("smaller", "pool", reads, channels=128, **pool)
    reads = "smaller" if run == 150 else "smaller*"
    conv("third", reads, 192, 3, neuron="relu", channels=128, initW=0.03)
    conv("fourth", "third", 192, 3, neuron="relu", channels=192, initW=0.03, initB=1)
    padding = 0 if run == 147 else 1
    conv("fifth", "fourth", 128, 3, channels=192, initW=0.03, initB=1, padding=padding)
    add("smallest", "pool", "fifth", neuron="relu", channels=128, **pool)
    add("wide", "fc", "smallest*", neuron="relu", outputs=2048, initW=0.01, initB=1)
    add("hide", "hs", "wide", keep=0.5)
    add("wider", "fc", "hide*", neuron="relu", outputs=2048, initW=0.01, initB=1)
    add("hidemore", "hs", "wider", keep=0.5)
    layers["out"] = {"type": "fc", "inputs": "hidemorea,hidemoreb", "outputs": 1000,
                     "initW": "0.01,0.01"}  # fmt: skip
    parameters: Sections = {"logprob": {"coeff": 1, "topk": 5}, "out": LEARNS | {"wball": 0}}
    for name, _, both in learned:
        lists = {k: f"{LEARNS[k]},{LEARNS[k]}" for k in ("epsW", "momW", "wc") if both}
        parameters[name] = LEARNS | lists
    scales = {"cmrnorm": {"scale": 0.0001, "pow": 0.75, "minDiv": 2},
              "rnorm": {"scale": 0.001, "pow": 0.75}, "hs": {"enable": "true"}}  # fmt: skip
    parameters |= {name: dict(scales[kind]) for name, kind, _ in norms if kind in scales}
    return layers | ends("out"), parameters


def comparable(layers: Sequence[Layer], towers: int, crop: int) -> list[Layer]:
    """Layers without what makes no difference at this size: whether windows may hang over."""
    found: list[Layer] = []
    shape = Shape(3, crop)
    for layer in layers:
        after = layer.output_shape(shape)
        if isinstance(layer, Pool):
            over = (shape.side - layer.size) % layer.stride != 0
            found.append(replace(layer, ceil=layer.ceil and over))
        elif isinstance(layer, Lrn):
            found.append(replace(layer, across=layer.across and towers > 1))
        else:
            found.append(layer)
        shape = after
    return found


def same_layers(ours: AlexNetConfig, named: AlexNetConfig) -> None:
    """Layer by layer the same, but for the name of the last one."""
    assert (ours.classes, ours.crop, ours.towers) == (named.classes, named.crop, named.towers)
    found, expected = (comparable(list_layers(c), c.towers, c.crop) for c in (ours, named))
    last = found[-1]
    assert isinstance(last, Dense)
    found[-1] = replace(last, name=expected[-1].name)
    for one, other in zip(found, expected, strict=True):
        assert type(one) is type(other), (one, other)
        for key, value in vars(one).items():
            assert value == pytest.approx(vars(other)[key]), (one, other)


@pytest.mark.parametrize("run", [145, 147, 148, 150, 167])
def test_two_columns_are_the_network_with_two_towers(run: int, read: Read) -> None:
    defined = read(*two_columns(run))
    named = VARIANTS["original" if run == 145 else f"original-{run}"]
    same_layers(defined.config, named.config)
    with torch.device("meta"):
        network = AlexNet(defined.config)
    assert sum(p.numel() for p in network.parameters()) == named.parameters
    assert list(defined.rates) == [f"conv{n}" for n in range(1, 6)] + ["fc6", "fc7", "fc8"]
    for rates in defined.rates.values():
        assert (rates.rate, rates.bias_rate, rates.decay) == (0.01, 0.02, 0.0005)
        assert (rates.momentum, rates.bias_momentum) == (0.9, 0.9)


def cifar(name: str) -> tuple[Sections, Sections]:
    """The authors' networks for CIFAR-10 as ORIGINAL.md describes them."""
    eleven = name == "cifar-lrn"
    learns = {"epsW": 0.001, "epsB": 0.002, "momW": 0.9, "momB": 0.9}
    layers: Sections = dict(DATA)
    reads = "data"

    def add(layer: str, kind: str, **values: object) -> None:
        nonlocal reads
        layers[layer] = {"type": kind, "inputs": reads, **values}
        reads = layer

    relu = {"neuron": "relu"}
    conv = {"padding": 2, "stride": 1, "filterSize": 5, "partialSum": 4, "sharedBiases": 1}
    pool = {"sizeX": 3, "stride": 2, "start": 0, "outputsX": 0}
    largest, mean = pool | {"pool": "max"}, pool | {"pool": "avg"}
    if name in ("cifar", "cifar-lrn"):
        add("c1", "conv", channels=3, filters=64, initW=0.0001, **conv, **relu)
        add("p1", "pool", channels=64, **largest)
        if eleven:
            add("n1", "cmrnorm", channels=64, size=9)
        add("c2", "conv", channels=64, filters=64, initW=0.01, **conv, **relu)
        if eleven:
            add("n2", "cmrnorm", channels=64, size=9)
        add("p2", "pool", channels=64, **largest)
        local = {"padding": 1, "stride": 1, "filterSize": 3, "initW": 0.04}
        maps = 64 if eleven else 32
        add("l3", "local", channels=64, filters=maps, **local, **relu)
        add("l4", "local", channels=maps, filters=32, **local, **relu)
        decays = {"c1": 0, "c2": "0.00", "l3": 0.004, "l4": ".004", "f": 0.01 if eleven else 0.004}
    else:
        small = name == "cifar-18pct"
        add("c1", "conv", channels=3, filters=32, initW=0.0001, **conv)
        add("p1", "pool", channels=32, **largest, **relu)
        if small:
            add("n1", "rnorm", channels=32, size=3)
        add("c2", "conv", channels=32, filters=32, initW=0.01, **conv, **relu)
        add("p2", "pool", channels=32, **mean)
        if small:
            add("n2", "rnorm", channels=32, size=3)
        add("c3", "conv", channels=32, filters=64, initW=0.01, **conv, **relu)
        add("p3", "pool", channels=64, **mean)
        decays = dict.fromkeys(("c1", "c2", "c3"), 0.004) | {"f": 1 if small else 0.03}
        if not small:
            add("g", "fc", outputs=64, initW=0.1, **relu)
            decays |= {"g": 0.03}
    add("f", "fc", outputs=10, initW=0.1 if name == "cifar-80sec" else 0.01, neuron="ident")
    scale = {"scale": 0.001 if eleven else 0.00005, "pow": 0.75}
    parameters: Sections = {n: learns | {"wc": decay} for n, decay in decays.items()}
    parameters |= {n: scale for n in ("n1", "n2") if n in layers}
    return layers | ends("f"), parameters


@pytest.mark.parametrize(
    ("name", "crop"),
    [("cifar", 32), ("cifar", 24), ("cifar-lrn", 24), ("cifar-18pct", 32), ("cifar-80sec", 32)],
)
def test_the_networks_for_cifar_are_those_by_name(name: str, crop: int, read: Read) -> None:
    defined = read(*cifar(name), side=32, crop=crop)
    named = replace(VARIANTS[name].config, crop=crop)
    assert (defined.config.side, defined.config.test_crops) == (named.side, named.test_crops)
    if name == "cifar-80sec":
        # Its layer of 64 neurons is called fc64 there.
        layers = [replace(x, name="fc64") if x.name == "fc4" else x for x in defined.config.layers]  # type: ignore[type-var]
        same_layers(replace(defined.config, layers=tuple(layers)), named)
    else:
        same_layers(defined.config, named)
    rates = defined.rates.values()
    assert {(r.rate, r.bias_rate, r.momentum) for r in rates} == {(0.001, 0.002, 0.9)}


def test_groups_in_one_column_do_not_stop_normalisation(read: Read) -> None:
    layers: Sections = DATA | {
        "a": {"type": "conv", "inputs": "data", "channels": 3, "filters": 16, "filterSize": 5},
        "n": {"type": "cmrnorm", "inputs": "a", "channels": 16, "size": 3},
        # Two groups of eight kernels, each of which sees eight maps.
        "b": {"type": "conv", "inputs": "n", "channels": 16, "filters": 8, "filterSize": 3,
              "groups": 2},
        "r": {"type": "neuron", "inputs": "b", "neuron": "tanh[1, 1]"},
        "f": {"type": "fc", "inputs": "r", "outputs": 3},
    }  # fmt: skip
    parameters: Sections = dict.fromkeys("abf", LEARNS)
    parameters["n"] = {"scale": 0.3, "pow": 0.5}
    config = read(layers | ends("f"), parameters, side=12, crop=12).config
    with torch.device("meta"):
        shapes = {k: tuple(v.shape) for k, v in AlexNet(config).state_dict().items()}
    assert shapes["conv2.weight"] == (16, 8, 3, 3)
    assert shapes["fc3.weight"] == (3, 16 * 6 * 6)
    norm = next(layer for layer in config.layers if isinstance(layer, Lrn))
    assert norm.across
    assert (norm.k, norm.alpha, norm.beta) == pytest.approx((1, 0.1, 0.5))


PLAIN: Sections = DATA | {
    "a": {"type": "conv", "inputs": "data", "channels": 3, "filters": 16, "filterSize": 5},
    "p": {"type": "pool", "inputs": "a", "channels": 16, "pool": "max", "sizeX": 2, "stride": 2},
    "f": {"type": "fc", "inputs": "p", "outputs": 3},
}
PLAIN_PARAMETERS: Sections = dict.fromkeys("af", LEARNS)


def line_of(text: str, section: str, key: str) -> int:
    """The number of a key's line in a section, or of the section's."""
    lines = text.splitlines()
    start = lines.index(f"[{section}]")
    rest = [n for n in range(start, len(lines)) if lines[n].split("=")[0] == key]
    return (rest[0] if key else start) + 1


@pytest.mark.parametrize(
    ("section", "key", "value", "reason"),
    [
        ("a", "randSparse", "true", "random connections"),
        ("a", "sharedBiases", "0", "bias for each place"),
        ("a", "groups", "4", "groups=4"),
        ("a", "channels", "4", "channels=4, but what it reads has 3"),
        ("a", "neuron", "brelu[3]", "supported are relu"),
        ("a", "initWFunc", "winit.f()", "initwfunc=, which is not supported"),
        ("a", "filterSize", "five", "no number"),
        ("a", "filterSize", "2.5", "whole number"),
        ("a", "filterSize", "0", "whole number"),
        ("a", "filterSize", "13", "window of 13 on maps of 12"),
        ("a", "initW", "inf", "not a finite number"),
        ("a", "inputs", "labels", "not just what is computed before it"),
        ("p", "pool", "rand", "pool=rand"),
        ("p", "start", "-1", "begins elsewhere"),
        ("p", "outputsX", "3", "must have 4 windows"),
        ("p", "type", "blur", "of the type blur"),
        ("f", "type", "local", "lacks channels"),
        ("logprob", "type", "cost.sum2", "supported is cost.logreg"),
        ("logprob", "inputs", "probs,labels", "the labels and the softmax"),
        ("probs", "inputs", "p", "must read the last layer, f"),
    ],
)
def test_what_is_not_supported_is_refused_with_its_line(
    section: str, key: str, value: str, reason: str, read: Read, tmp_path: Path
) -> None:
    layers = {name: dict(values) for name, values in (PLAIN | ends("f")).items()}
    layers[section][key] = value
    with pytest.raises(DefinitionError, match=re.escape(reason)) as refused:
        read(layers, PLAIN_PARAMETERS, side=12, crop=12)
    line = line_of((tmp_path / "net.cfg").read_text(), section, "" if "lacks" in reason else key)
    if "window" in reason and key == "filterSize":
        line = line_of((tmp_path / "net.cfg").read_text(), section, "")
    assert f"net.cfg, line {line}: [{section}]" in str(refused.value)


@pytest.mark.parametrize(
    ("section", "key", "value", "reason"),
    [
        ("a", "epsW", "dexp[base=0.01;tgtFactor=250;numSteps=4]", "has a schedule"),
        ("a", "wball", "0.1", "bound on the weights' norm"),
        ("a", "updatePeriod", "2", "several batches"),
        ("a", "dropout", "0.5", "dropout=, which is not supported"),
        ("f", "wc", "0.1,0.2", "different numbers"),
        ("logprob", "coeff", "0.5", "weight of the cost"),
    ],
)
def test_parameters_that_are_not_supported_are_refused_with_their_line(
    section: str, key: str, value: str, reason: str, read: Read, tmp_path: Path
) -> None:
    parameters = {name: dict(values) for name, values in PLAIN_PARAMETERS.items()}
    parameters.setdefault(section, {})[key] = value
    with pytest.raises(DefinitionError, match=re.escape(reason)) as refused:
        read(PLAIN | ends("f"), parameters, side=12, crop=12)
    line = line_of((tmp_path / "params.cfg").read_text(), section, key)
    assert f"params.cfg, line {line}: [{section}]" in str(refused.value)


def test_a_layer_without_parameters_is_refused(read: Read) -> None:
    with pytest.raises(DefinitionError, match=r"\[f\] has no section in .*params.cfg"):
        read(PLAIN | ends("f"), {"a": LEARNS}, side=12, crop=12)
    lacking = {key: value for key, value in LEARNS.items() if key != "momB"}
    with pytest.raises(DefinitionError, match=r"\[a\] lacks momB="):
        read(PLAIN | ends("f"), {"a": lacking, "f": LEARNS}, side=12, crop=12)


def change(sections: Sections, name: str, **values: object) -> Sections:
    return {n: v | values if n == name else v for n, v in sections.items()}


@pytest.mark.parametrize(
    ("name", "values", "reason"),
    [
        ("firstb", {"filters": 32}, "[firstb] differs from [firsta] in filters"),
        (
            "thirdb",
            {"inputs": "smallerb"},
            "[thirda] reads smallera,smallerb of smallera, smallerb",
        ),
        ("widea", {"inputs": "smallesta"}, "two columns must go on side by side"),
        ("out", {"inputs": "hidemorea"}, "two columns must go on side by side"),
    ],
)
def test_columns_that_are_not_alike_are_refused(
    name: str, values: dict[str, object], reason: str, read: Read
) -> None:
    layers, parameters = two_columns(145)
    with pytest.raises(DefinitionError, match=re.escape(reason)):
        read(change(layers, name, **values), parameters)


def test_columns_that_learn_differently_are_refused(read: Read) -> None:
    layers, parameters = two_columns(145)
    with pytest.raises(DefinitionError, match=r"params.cfg.*\[secondb\].*differs.*epsw"):
        read(layers, change(parameters, "secondb", epsW=0.5))


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "defines nothing"),
        ("type=data\n", "line 1: 'type=data' is neither"),
        ("# a comment\n[data]\ntype=data\nnonsense\n", "line 4: 'nonsense' is neither"),
        ("[data]\ntype=data\ndataIdx=0\n[data]\n", "line 4: [data] stands there twice"),
        ("[data]\ntype=data\nTYPE=conv\n", "line 3: TYPE= stands there twice"),
        ("[data]\ntype=data\ndataIdx=0\n", "one softmax and one cost"),
    ],
)
def test_files_that_are_no_definitions_are_refused(text: str, reason: str, read: Read) -> None:
    with pytest.raises(DefinitionError, match=re.escape(reason)):
        read(text, PLAIN_PARAMETERS)


def test_a_file_that_is_not_text_or_not_there_is_refused(tmp_path: Path) -> None:
    (tmp_path / "binary.cfg").write_bytes(b"\xff\xfe\x00[")
    for name in ("binary.cfg", "missing.cfg"):
        with pytest.raises(DefinitionError, match=name):
            read_definition(tmp_path / name, tmp_path / name, side=256, crop=224)


def test_comments_case_and_spaces_do_not_matter(read: Read) -> None:
    text = write_cfg(PLAIN | ends("f")).replace("filterSize=5", "FilterSize : 5   ; five")
    text = "# a network\n" + text.replace("=", " = ") + "\n; the log of its training: 0.5\n"
    found, expected = (
        read(words, PLAIN_PARAMETERS, side=12, crop=12).config
        for words in (text, PLAIN | ends("f"))
    )
    assert found == expected


def test_dropout_that_is_switched_off_is_left_out(read: Read) -> None:
    layers, parameters = two_columns(145)
    for name in ("hidea", "hideb", "hidemorea", "hidemoreb"):
        parameters[name] = {"enable": "false"}
    config = read(layers, parameters).config
    assert config.dropout == 0
    assert not any(layer.name.startswith("drop") for layer in config.layers)

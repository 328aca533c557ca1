"""The layers that cuda-convnet's sections define, by its rules of size and normalisation.

Two columns become one network of two towers, since their layers are alike: a layer that reads its
own column only is grouped. Layers are renamed by their kind and place, as in the paper: conv1, …,
local3, fc6.
"""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal, NamedTuple

from model.formats.cfg_file import DefinitionError, Section, compare_columns
from model.network.config import TOWERS, AlexNetConfig, ConfigError, TestCrops
from model.network.layers import (
    Activation,
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

CIFAR_SIDE = 32
"""Side of CIFAR-10's images; networks for them are tested on nine crops."""
SUPPORTED = (
    "data, conv, local, fc, pool, rnorm, cmrnorm, neuron, hs, dropout, dropout2, softmax and "
    "cost.logreg"
)
COLUMN_KEYS = ("inputs", "gpu", "partialSum", "sumWidth")
"""Keys in which two columns may differ: they do not change what is computed."""
NEURONS = {"": "", "ident": "", "relu": "relu", "tanh[1,1]": "tanh"}
"""The nonlinearities that are supported."""
DROPOUTS = ("hs", "dropout", "dropout2")


@dataclass(frozen=True, kw_only=True)
class LayerRates:
    """How a layer learns: ε and momentum of its weights and its biases, and its weight decay."""

    rate: float
    bias_rate: float
    momentum: float
    bias_momentum: float
    decay: float


@dataclass(frozen=True, kw_only=True)
class Definition:
    """A network that files define.

    rates: by the names of the configuration's layers, in their order.
    """

    config: AlexNetConfig
    rates: Mapping[str, LayerRates]


class Step(NamedTuple):
    """What is computed next: one section, or one of each column.

    reads: the output before it, of one column; its own column's, or both columns'.
    """

    sections: tuple[Section, ...]
    reads: Literal["one", "own", "both"]


@dataclass
class NetworkBuilder:
    """The layers of a network, step by step, and the shape of the last one's output.

    maps: of both columns together. columns: of the last step. norms: the sections that normalise
    across the maps of one column.
    """

    parameters: Mapping[str, Section]
    parameter_file: Path
    side: int
    maps: int = 3
    columns: int = 1
    weighted: int = 0
    layers: list[Layer] = field(default_factory=list)
    rates: dict[str, LayerRates] = field(default_factory=dict)
    norms: list[Section] = field(default_factory=list)

    def add_step(self, step: Step) -> None:
        """Add the layers of one step. Raises DefinitionError."""
        section = step.sections[0]
        compare_columns(step.sections, COLUMN_KEYS)
        kind = section.text("type")
        section.ignore(*COLUMN_KEYS)
        count = len(step.sections)
        if kind == "conv":
            self.add_conv(section, step, count)
        elif kind == "local":
            self.add_local(section, step)
        elif kind == "fc":
            self.add_dense(section, step, count)
        else:
            if step.reads == "both" or count != self.columns:
                raise section.error(
                    f"joins or splits columns, which a layer of the type {kind} cannot"
                )
            self.add_unweighted(section, step, kind)
        neuron = re.sub(r"\s+", "", section.text("neuron", ""))
        if neuron not in NEURONS:
            raise section.error(
                f"has neuron={neuron}; supported are relu, tanh[1,1] and ident", "neuron"
            )
        if NEURONS[neuron]:
            name = self.name_layer("relu")
            self.layers.append(Activation(name, "relu" if neuron == "relu" else "tanh"))
        section.finish()
        self.columns = count

    def add_unweighted(self, section: Section, step: Step, kind: str) -> None:
        """Add pooling, normalisation, a nonlinearity or dropout. Raises DefinitionError."""
        if kind == "pool":
            self.add_pool(section)
        elif kind in ("rnorm", "cmrnorm"):
            self.add_norm(section, step, kind)
        elif kind in DROPOUTS:
            self.add_dropout(section)
        elif kind == "neuron":
            section.text("neuron")
        else:
            raise section.error(f"is of the type {kind}; supported are {SUPPORTED}", "type")

    def add_conv(self, section: Section, step: Step, count: int) -> None:
        """Add a convolution, and the zeros that its last windows see beyond the edge."""
        self.check_channels(section)
        groups = section.whole("groups", 1, lowest=1)
        if groups > TOWERS or (groups > 1 and (count > 1 or step.reads != "one")):
            raise section.error(f"has groups={groups}; supported are 2 in one column", "groups")
        if section.flag("randSparse", default=False):
            raise section.error("has random connections, which are not supported", "randSparse")
        if not section.flag("sharedBiases", default=True):
            raise section.error("has a bias for each place, which is not supported", "sharedBiases")
        kernel, stride = section.whole("filterSize", lowest=1), section.whole("stride", 1, lowest=1)
        pad, maps = section.whole("padding", 0), section.whole("filters", lowest=1)
        windows = self.count_windows(section, kernel, stride, pad)
        self.weighted += 1
        if overhang := (windows - 1) * stride + kernel - self.side - 2 * pad:
            name = "border" if self.weighted == 1 else f"border{self.weighted}"
            self.layers.append(Border(name, overhang))
        self.maps, self.side = maps * groups * count, windows
        self.add_weighted(
            step,
            Conv(
                f"conv{self.weighted}",
                self.maps,
                kernel,
                stride,
                pad,
                grouped=step.reads == "own" or groups > 1,
                sigma=section.number("initW", 0.01),
                bias=section.number("initB", 0),
            ),
        )

    def add_local(self, section: Section, step: Step) -> None:
        """Add a locally connected layer."""
        if len(step.sections) > 1 or step.reads != "one":
            raise section.error("is locally connected, which is supported in one column only")
        self.check_channels(section)
        for key in ("stride", "groups"):
            section.require(key, 1, "locally connected layers have 1 here")
        if section.flag("randSparse", default=False):
            raise section.error("has random connections, which are not supported", "randSparse")
        kernel, pad = section.whole("filterSize", lowest=1), section.whole("padding", 0)
        self.side = self.count_windows(section, kernel, 1, pad)
        self.maps = section.whole("filters", lowest=1)
        self.weighted += 1
        name, sigma = f"local{self.weighted}", section.number("initW", 0.01)
        bias = section.number("initB", 0)
        self.add_weighted(step, Local(name, self.maps, kernel, pad, sigma, bias))

    def add_dense(self, section: Section, step: Step, count: int) -> None:
        """Add a fully connected layer, and before the first one the step from maps to neurons."""
        if step.reads == "own":
            raise section.error(
                "reads one column only; fully connected layers must read both", "inputs"
            )
        if not any(isinstance(layer, Flatten) for layer in self.layers):
            self.layers.append(Flatten("flatten"))
        self.maps, self.side = section.whole("outputs", lowest=1) * count, 1
        self.weighted += 1
        name, sigma = f"fc{self.weighted}", section.number("initW", 0.01)
        self.add_weighted(step, Dense(name, self.maps, sigma, section.number("initB", 0)))

    def add_weighted(self, step: Step, layer: Conv | Local | Dense) -> None:
        """Add a layer with weights, and how it learns by the parameter file."""
        self.layers.append(layer)
        found = self.find_parameters(step)
        found.require("wball", 0, "a bound on the weights' norm is not supported")
        found.require("updatePeriod", 1, "updates after several batches are not supported")
        self.rates[layer.name] = LayerRates(
            rate=found.number("epsW"),
            bias_rate=found.number("epsB"),
            momentum=found.number("momW"),
            bias_momentum=found.number("momB"),
            decay=found.number("wc"),
        )
        found.finish()

    def add_pool(self, section: Section) -> None:
        """Add pooling, whose last windows may hang over the edge."""
        self.check_channels(section)
        section.require("start", 0, "pooling that begins elsewhere is not supported")
        size, stride = section.whole("sizeX", lowest=1), section.whole("stride", 1, lowest=1)
        kind = section.text("pool")
        if kind not in ("max", "avg"):
            raise section.error(f"has pool={kind}; supported are max and avg", "pool")
        windows = self.count_windows(section, size, stride, 0)
        if section.whole("outputsX", 0) not in (0, windows):
            raise section.error(f"must have {windows} windows in each direction", "outputsX")
        over = (self.side - size) % stride != 0
        name: Literal["max", "average"] = "max" if kind == "max" else "average"
        self.layers.append(Pool(self.name_layer("pool"), size, stride, ceil=over, kind=name))
        self.side = windows

    def add_norm(self, section: Section, step: Step, kind: str) -> None:
        """Add normalisation; its scale is divided by the number of neighbours, as theirs."""
        self.check_channels(section)
        size = section.whole("size", lowest=1)
        if size % 2 == 0:
            raise section.error(f"has size={size}; supported are odd sizes", "size")
        found = self.find_parameters(step)
        scale, power, least = (
            found.number("scale"),
            found.number("pow"),
            found.number("minDiv", 1),
        )
        found.finish()
        if kind == "rnorm":
            name = self.name_layer("mapnorm")
            self.layers.append(MapNorm(name, least, size, scale / size**2, power))
            return
        name, across = self.name_layer("lrn"), len(step.sections) == 1
        self.layers.append(Lrn(name, least, size, scale / size, power, across=across))
        self.norms += [] if across else [section]

    def add_dropout(self, section: Section) -> None:
        """Add dropout, unless the parameter file switches it off."""
        keep = section.number("keep", 0.5)
        if not 0 < keep <= 1:
            raise section.error(f"has keep={keep:g}; it must lie between 0 and 1", "keep")
        dropped = {layer.p for layer in self.layers if isinstance(layer, Drop)}
        if dropped - {1 - keep}:
            raise section.error("drops another share than the layers before it", "keep")
        enabled = True
        if section.name in self.parameters:
            enabled = self.parameters[section.name].flag("enable", default=True)
            self.parameters[section.name].finish()
        if enabled:
            self.layers.append(Drop(self.name_layer("drop"), 1 - keep))

    def find_parameters(self, step: Step) -> Section:
        """Return the parameters of a step's layers, which must be alike. Raises DefinitionError."""
        for section in step.sections:
            if section.name not in self.parameters:
                raise section.error(f"has no section in {self.parameter_file}")
        found = [self.parameters[section.name] for section in step.sections]
        compare_columns(found, ())
        return found[0]

    def check_channels(self, section: Section) -> None:
        """Raise DefinitionError unless a section sees as many maps as each column has."""
        channels, maps = section.whole("channels", lowest=1), self.maps // self.columns
        if channels != maps:
            raise section.error(
                f"has channels={channels}, but what it reads has {maps}", "channels"
            )

    def count_windows(self, section: Section, size: int, stride: int, pad: int) -> int:
        """Count windows in each direction; the last one may hang over. Raises DefinitionError."""
        room = self.side + 2 * pad - size
        if room < 0:
            raise section.error(f"has a window of {size} on maps of {self.side} × {self.side}")
        return math.ceil(room / stride) + 1

    def name_layer(self, kind: str) -> str:
        """Return a name after the last layer with weights: relu2, or relu2_2 for a second one."""
        name, taken = f"{kind}{self.weighted}", {layer.name for layer in self.layers}
        return name if name not in taken else f"{name}_{sum(n.startswith(name) for n in taken) + 1}"

    def finish(self, last: Section, *, side: int, crop: int) -> Definition:
        """Return the network. Raises DefinitionError for one that cannot be built."""
        if not isinstance(self.layers[-1], Dense) or self.columns > 1:
            raise last.error(
                "is the last layer: it must be fully connected, linear, and in one column"
            )
        grouped = any(isinstance(layer, Conv) and layer.grouped for layer in self.layers)
        if not grouped:
            if self.norms:
                raise self.norms[0].error(
                    "normalises a column, but no convolution has columns of its own: such a "
                    "network is not supported"
                )
            self.layers = [
                replace(layer, across=False) if isinstance(layer, Lrn) else layer
                for layer in self.layers
            ]
        drops = [layer.p for layer in self.layers if isinstance(layer, Drop)]
        crops: TestCrops = "nine" if side == CIFAR_SIDE else "ten"
        try:
            config = AlexNetConfig(
                net="defined",
                classes=self.maps,
                side=side,
                crop=crop,
                test_crops=crops,
                dropout=drops[0] if drops else 0.0,
                layers=tuple(self.layers),
            )
        except ConfigError as error:
            raise DefinitionError(f"{last.file}: {error}") from error
        return Definition(config=config, rates=self.rates)

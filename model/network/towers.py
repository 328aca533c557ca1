"""The network split over two processes, one tower in each, as the paper split it over two GPUs.

Each process holds its half of the kernels of conv1–conv5, of the neurons of fc6 and fc7, and of
the inputs of fc8. Activations cross only before conv3, fc6 and fc7, where each tower gathers the
other's, and at fc8, whose two halves are summed; their gradients cross back (§3.2, Figure 2).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn
from torch.distributed import ProcessGroup
from torch.distributed._functional_collectives import all_gather_single

from model.network.alexnet import AlexNet
from model.network.config import TOWERS, AlexNetConfig, ConfigError
from model.network.layers import Conv, Dense, Drop, Layer, Lrn, Shape
from model.network.modules import build_module
from model.network.paper_layers import list_layers


@dataclass(frozen=True)
class TowerRank:
    """Which tower this process holds, 0 or 1, and the process group of both."""

    tower: int
    group: ProcessGroup


class Tower(AlexNet):
    """One tower of a network.

    Called like AlexNet, in both processes with the same images; returns the same logits in both,
    and this tower's half of fc7's features, float32 [N, 2048]. Raises ConfigError for a network
    that cannot be split into two towers.
    """

    def __init__(self, config: AlexNetConfig, place: TowerRank) -> None:
        check_splittable(config)
        self.place = place
        # Drawn first, so that a seed produces the same weights as in the whole network.
        whole = AlexNet(config).state_dict()
        super().__init__(config)
        self.load_state_dict(split_state_dict(whole, config, place.tower))

    def build_modules(self, layers: list[Layer], towers: int) -> None:
        """Add this tower's half of each layer, and the exchanges between them."""
        # The modules draw values that are replaced later; torch's generator must advance only
        # as far as it does for the whole network in one process.
        with torch.random.fork_rng(devices=()):
            super().build_modules(split_layers(layers, self.place), towers=1)

    def initialise(self) -> None:
        """Do nothing: a tower takes its part of the whole network's weights."""


def check_splittable(config: AlexNetConfig) -> None:
    """Raise ConfigError when the network cannot be split into two towers."""
    across = any(isinstance(layer, Lrn) and layer.across for layer in list_layers(config))
    if config.towers != TOWERS or across:
        reason = "its normalisation reaches across both towers" if across else "it is a one-GPU net"
        raise ConfigError(f"{config.net} does not split over two devices: {reason}; use --towers 1")


def split_layers(whole: Sequence[Layer], place: TowerRank) -> list[Layer]:
    """Return one tower's layers: half of each, and a GatherTowers before those that see both."""
    layers: list[Layer] = []
    for layer in whole:
        if isinstance(layer, Dense) and layer is whole[-1]:
            layers.append(SplitDense(layer.name, layer.neurons, place))
            continue
        if isinstance(layer, Dense) or (isinstance(layer, Conv) and not layer.grouped):
            # The first layer's input, the pixels, is in both processes already.
            layers += [GatherTowers(f"to_{layer.name}", place)] * any(
                isinstance(x, Conv) for x in layers
            )
        layers.append(halve_layer(layer, place.tower))
    return layers


def halve_layer(layer: Layer, tower: int) -> Layer:
    """Return one tower's half of a layer."""
    if isinstance(layer, Conv):
        return replace(layer, maps=layer.maps // TOWERS)
    if isinstance(layer, Dense):
        return replace(layer, neurons=layer.neurons // TOWERS)
    return replace(layer, tower=tower) if isinstance(layer, Drop) else layer


@dataclass(frozen=True)
class GatherTowers:
    """An exchange that puts both towers' maps or neurons into both processes."""

    name: str
    place: TowerRank

    def output_shape(self, shape: Shape) -> Shape:
        """Double the maps."""
        return shape._replace(maps=shape.maps * TOWERS)


class AllGather(nn.Module):
    """[N, C, …] in each process → [N, 2C, …] in both, GPU 1's first; gradients are summed back."""

    def __init__(self, group: ProcessGroup) -> None:
        super().__init__()
        self.group = group

    def forward(self, x: Tensor) -> Tensor:
        """Exchange halves. Maps travel channels last, as they are in memory."""
        flat = x.movedim(1, -1).contiguous()
        both = all_gather_single(flat, 0, self.group).chunk(TOWERS)
        return torch.cat(both, dim=-1).movedim(-1, 1)


@dataclass(frozen=True)
class SplitDense:
    """The last layer: each tower multiplies its own inputs, and the two products are added."""

    name: str
    neurons: int
    place: TowerRank

    def output_shape(self, shape: Shape) -> Shape:
        """Return its neurons."""
        return Shape(self.neurons, 1)


class RowParallelLinear(nn.Linear):
    """[N, 2048] in each process → the same [N, classes] in both."""

    def __init__(self, inputs: int, outputs: int, group: ProcessGroup) -> None:
        super().__init__(inputs, outputs)
        self.group = group

    def forward(self, x: Tensor) -> Tensor:
        """Multiply, add the other tower's product, add the bias once."""
        total: Tensor = _Add.apply(F.linear(x, self.weight), self.group)
        return total + self.bias.to(total.dtype)


@build_module.register
def build_gather(layer: GatherTowers, shape: Shape, towers: int) -> nn.Module:
    """Build the exchange."""
    return AllGather(layer.place.group)


@build_module.register
def build_split_dense(layer: SplitDense, shape: Shape, towers: int) -> nn.Module:
    """Build the last layer with this tower's columns of the weights and the whole bias."""
    return RowParallelLinear(shape.maps, layer.neurons, layer.place.group)


class _Add(torch.autograd.Function):
    """Add the two processes' tensors. The gradient of the sum is the same in both already."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, group: ProcessGroup) -> Tensor:
        total = x.clone()
        dist.all_reduce(total, group=group)
        return total

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        return grads[0], None


def split_state_dict(
    whole: Mapping[str, Tensor], config: AlexNetConfig, tower: int
) -> dict[str, Tensor]:
    """Return one tower's part of the whole network's tensors: weights, or their velocities."""
    return {
        name: value if dim is None else value.chunk(TOWERS, dim)[tower]
        for name, value in whole.items()
        for dim in [split_dimension(name, config)]
    }


def merge_state_dicts(
    parts: Sequence[Mapping[str, Tensor]], config: AlexNetConfig
) -> dict[str, Tensor]:
    """Merge both towers' parts into the whole network's tensors: undoes `split_state_dict`."""
    return {
        name: value if dim is None else torch.cat([part[name] for part in parts], dim)
        for name, value in parts[0].items()
        for dim in [split_dimension(name, config)]
    }


def split_dimension(name: str, config: AlexNetConfig) -> int | None:
    """Return the dimension along which a tensor is split; None if both towers hold all of it."""
    last = list_layers(config)[-1].name
    if not name.startswith(f"{last}."):
        return 0
    return 1 if name == f"{last}.weight" else None

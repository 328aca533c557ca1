"""The update rule of §5: v ← 0.9 v − 0.0005 ε w − ε g, then w ← w + v."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from training.config import Recipe


@dataclass(frozen=True)
class ParameterGroup:
    """Parameters that share a learning rate and a weight decay."""

    name: str
    parameters: list[Tensor]
    decay: float


def group_parameters(network: nn.Module, recipe: Recipe) -> list[ParameterGroup]:
    """The network's parameters by kind: conv1's apart, since the run of 2012 slowed it.

    With the paper's recipe all have the same rate and decay.
    """
    bias_decay = recipe.decay if recipe.bias_decay else 0.0
    conv_decay = recipe.decay if recipe.conv_decay is None else recipe.conv_decay
    decays = {
        "conv1": conv_decay,
        "conv1 bias": bias_decay,
        "conv": conv_decay,
        "dense": recipe.decay,
        "bias": bias_decay,
    }
    found: dict[str, list[Tensor]] = {name: [] for name in decays}
    for name, parameter in network.named_parameters():
        found[find_group(name)].append(parameter)
    return [ParameterGroup(name, found[name], decays[name]) for name in decays]


def find_group(name: str) -> str:
    """The group of a parameter, by its name."""
    layer, what = name.rsplit(".", 1)
    if layer == "conv1":
        return "conv1" if what == "weight" else "conv1 bias"
    if what == "bias":
        return "bias"
    return "conv" if layer.startswith("conv") else "dense"


class PaperSGD(torch.optim.SGD):
    """torch's SGD, its velocity kept in the paper's units when the learning rate changes.

    torch keeps u ← 0.9 u + g + 0.0005 w and steps w ← w − ε u. With v = −ε u that is the paper's
    rule as long as ε stays; when ε changes, the paper's v carries the old ε with it, so u is
    multiplied by old ε / new ε. A rate of zero stops a group where it is. One fused pass over the
    weights on CPU and CUDA.
    """

    def __init__(self, parts: Iterable[ParameterGroup], rate: float, momentum: float) -> None:
        held = [part for part in parts if part.parameters]
        values = [
            {"name": part.name, "params": part.parameters, "weight_decay": part.decay}
            for part in held
        ]
        fused = all(p.device.type in ("cpu", "cuda") for part in held for p in part.parameters)
        super().__init__(values, lr=rate, momentum=momentum, fused=fused)

    @property
    def rates(self) -> dict[str, float]:
        """The learning rate ε of every group."""
        return {str(group["name"]): float(group["lr"]) for group in self.param_groups}

    @torch.no_grad()
    def set_rates(self, rates: Mapping[str, float]) -> None:
        """Use other learning rates from the next step on."""
        for group in self.param_groups:
            old, new = float(group["lr"]), rates[group["name"]]
            if new == old:
                continue
            for parameter in group["params"]:
                velocity = self.state[parameter].get("momentum_buffer")
                if velocity is not None:
                    velocity.mul_(old / new if new else 0.0)
            group["lr"] = new

    def velocity(self, parameter: Tensor) -> Tensor | None:
        """Torch's u of a parameter; None before its first update."""
        found: Tensor | None = self.state[parameter].get("momentum_buffer")
        return found

    @torch.no_grad()
    def restore_velocity(self, parameter: Tensor, velocity: Tensor) -> None:
        """Take up a velocity of a checkpoint."""
        # Laid out in memory as the parameter is: the fused update walks both in step.
        self.state[parameter]["momentum_buffer"] = torch.empty_like(parameter).copy_(velocity)

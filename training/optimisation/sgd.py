"""The update rule of §5: v ← 0.9 v − 0.0005 ε w − ε g, then w ← w + v."""

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from training.optimisation.fused_update import load_update, update_rounded
from training.recipe.config import Recipe, RecipeError
from training.recipe.layer_values import LAYER_VALUES, parse_layer_values


@dataclass(frozen=True)
class ParameterGroup:
    """Parameters that share a learning rate, a weight decay and a momentum.

    momentum: None: that of the optimiser.
    """

    name: str
    parameters: list[Tensor]
    decay: float
    momentum: float | None = None


def group_parameters(network: nn.Module, recipe: Recipe) -> list[ParameterGroup]:
    """Group the parameters that learn: conv1's apart, since the run of 2012 slowed it, and those of
    the layers that the recipe gives a rate, a weight decay or a momentum of their own.

    With the paper's recipe all groups have the same rate and decay. Raises RecipeError if the
    network lacks a layer that the recipe names.
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
    own, layer_decays = recipe.own_layers(), parse_layer_values(recipe.layer_decays)
    for layer in own:
        kind = choose_group(f"{layer}.weight")
        decays |= {layer: layer_decays.get(layer, decays[kind]), f"{layer} bias": bias_decay}
    momenta = {
        name.replace(".bias", " bias"): momentum
        for name, momentum in parse_layer_values(recipe.layer_momenta).items()
    }
    parameters: dict[str, list[Tensor]] = {name: [] for name in decays}
    for name, parameter in network.named_parameters():
        if parameter.requires_grad:
            parameters[choose_group(name, own)].append(parameter)
    layers = {name.rsplit(".", 1)[0] for name, _ in network.named_parameters()}
    if unknown := sorted(set(own) - layers):
        flags = [f for f in LAYER_VALUES if names_layer(getattr(recipe, f), unknown)]
        raise RecipeError(
            f"{', '.join('--' + f.replace('_', '-') for f in flags)} names {', '.join(unknown)}, "
            f"which the network does not have; it has {', '.join(sorted(layers))}"
        )
    return [
        ParameterGroup(name, parameters[name], decays[name], momenta.get(name)) for name in decays
    ]


def names_layer(pairs: Iterable[str], layers: Collection[str]) -> bool:
    """Return whether one of LAYER=NUMBER is about one of these layers."""
    return any(name.removesuffix(".bias") in layers for name in parse_layer_values(pairs))


def choose_group(name: str, own: Collection[str] = ()) -> str:
    """Return the group of a parameter with this name, such as conv2.weight.

    own: layers with groups of their own.
    """
    layer, kind = name.rsplit(".", 1)
    if layer == "conv1" or layer in own:
        return layer if kind == "weight" else f"{layer} bias"
    if kind == "bias":
        return "bias"
    return "conv" if layer.startswith("conv") else "dense"


class PaperSGD(torch.optim.SGD):
    """torch's SGD, corrected to the paper's update rule when the learning rate changes.

    torch keeps u ← 0.9 u + g + 0.0005 w and steps w ← w − ε u. With v = −ε u, that is the paper's
    rule as long as ε is constant. When ε changes, the paper's v still contains the old ε, so u is
    multiplied by old ε / new ε: as part of the next step's momentum, which costs nothing when ε
    changes in every step. A rate of zero freezes a group. On CPU and CUDA the update is one fused
    pass over the weights; where layers compute with a copy of them, it writes that, too.
    """

    def __init__(self, groups: Iterable[ParameterGroup], rate: float, momentum: float) -> None:
        groups = [group for group in groups if group.parameters]
        values = [
            {"name": group.name, "params": group.parameters, "weight_decay": group.decay}
            for group in groups
        ]
        own = {group.name: group.momentum for group in groups}
        devices = {p.device.type for group in groups for p in group.parameters}
        fused = devices <= {"cpu", "cuda"}
        super().__init__(values, lr=rate, momentum=momentum, fused=fused)
        self.momenta = {name: momentum if one is None else one for name, one in own.items()}
        self.copies: dict[Tensor, Tensor] = {}
        self.reset_momenta()

    @property
    def rates(self) -> dict[str, float]:
        """The learning rate ε of every group, by name."""
        return {str(group["name"]): float(group["lr"]) for group in self.param_groups}

    @torch.no_grad()
    def set_rates(self, rates: Mapping[str, float]) -> None:
        """Set the learning rates of the groups, by name, for the next steps."""
        for group in self.param_groups:
            old, new = float(group["lr"]), rates[group["name"]]
            if new == old:
                continue
            velocities = [v for p in group["params"] if (v := self.velocity(p)) is not None]
            if old and new and velocities:
                group["momentum"] *= old / new
            else:
                for velocity in velocities:
                    velocity.zero_()
            group["lr"] = new

    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """Update the weights (§5)."""
        gradients = self.update_copied()
        loss: float | None = super().step(closure)
        for parameter, gradient in gradients.items():
            parameter.grad = gradient
        self.reset_momenta()
        return loss

    def keep_copies(self, copies: Mapping[Tensor, Tensor]) -> None:
        """Keep a bfloat16 copy of these parameters as they change; their gradients have its dtype.

        Raises CompilerError where the update cannot be compiled.
        """
        if copies:
            load_update()
        self.copies = dict(copies)

    def update_copied(self) -> dict[Tensor, Tensor]:
        """Update the parameters that have a copy; take away their gradients, and return them."""
        gradients: dict[Tensor, Tensor] = {}
        for group in self.param_groups if self.copies else []:
            for parameter in group["params"]:
                copy, gradient = self.copies.get(parameter), parameter.grad
                if copy is None or gradient is None or gradient.dtype != copy.dtype:
                    continue
                velocity = self.velocity(parameter)
                if velocity is None:
                    velocity = torch.zeros_like(parameter)
                    self.state[parameter]["momentum_buffer"] = velocity
                update_rounded(
                    parameter,
                    velocity,
                    copy,
                    rate=group["lr"],
                    momentum=group["momentum"],
                    decay=group["weight_decay"],
                )
                gradients[parameter], parameter.grad = gradient, None
        return gradients

    def reset_momenta(self) -> None:
        """Undo what `set_rates` did for one step."""
        for group in self.param_groups:
            group["momentum"] = self.momenta[str(group["name"])]

    def velocity(self, parameter: Tensor) -> Tensor | None:
        """Return torch's u of a parameter; None before its first update."""
        velocity: Tensor | None = self.state[parameter].get("momentum_buffer")
        return velocity

    @torch.no_grad()
    def restore_velocity(self, parameter: Tensor, velocity: Tensor) -> None:
        """Set a parameter's velocity to one saved in a checkpoint."""
        # With the parameter's memory layout, which the fused update assumes.
        self.state[parameter]["momentum_buffer"] = torch.empty_like(parameter).copy_(velocity)

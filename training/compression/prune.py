"""Prune a network: the smallest weights of each layer become zero, and stay zero in training.

Han, Pool, Tran and Dally, *Learning both Weights and Connections for Efficient Neural Networks*
(2015), and for the pace Zhu and Gupta, *To prune, or not to prune* (2017).
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from training.optimisation.state import TrainingState

PRUNING_SHARE = 0.5
"""Share of fine-tuning during which layers become sparser; afterwards the network recovers."""
PRUNING_ROUNDS = 16
"""How often the weights to keep are chosen anew in that time."""


@dataclass
class Pruning:
    """The weights that are pruned so far.

    densities: the share of weights that each layer keeps in the end, by parameter name.
    masks:     bool, of the parameters' shapes: true where a weight is kept.
    """

    densities: Mapping[str, float]
    masks: dict[str, Tensor] = field(default_factory=dict)
    rounds: int = 0

    def update(self, state: TrainingState, progress: float) -> None:
        """Prune as far as a fine-tuning requires of which `progress`, 0–1, is done.

        Call it after each step, since an update also moves the weights that are pruned.
        """
        rounds = int(min(1.0, progress / PRUNING_SHARE) * PRUNING_ROUNDS)
        if rounds > self.rounds:
            self.rounds = rounds
            self.choose_masks(state, rounds / PRUNING_ROUNDS)
        self.hold(state)

    @torch.no_grad()
    def choose_masks(self, state: TrainingState, share: float) -> None:
        """Choose the weights to keep after this share, 0–1, of the pruning."""
        for name, density in self.densities.items():
            parameter = state.network.get_parameter(name)
            self.masks[name] = choose_largest(parameter, compute_density(density, share))

    @torch.no_grad()
    def hold(self, state: TrainingState) -> None:
        """Set the pruned weights and their velocities to zero."""
        for name, mask in self.masks.items():
            parameter = state.network.get_parameter(name)
            parameter.mul_(mask)
            velocity = state.sgd.velocity(parameter)
            if velocity is not None:
                velocity.mul_(mask)


def compute_density(final: float, share: float) -> float:
    """Compute the density after this share of the pruning: fast at first, then ever more slowly."""
    return final + (1 - final) * (1 - share) ** 3


def choose_largest(weights: Tensor, density: float) -> Tensor:
    """Return a mask, bool, of the largest magnitudes: this share of them, and more only if equal.

    Zeros are never among them.
    """
    sizes = weights.detach().abs()
    pruned = sizes.numel() - round(density * sizes.numel())
    if pruned == 0:
        return sizes > 0
    # numpy's selection is several times as fast as torch's.
    flat = sizes.flatten().cpu().numpy()
    threshold = float(np.partition(flat, min(pruned, len(flat) - 1))[min(pruned, len(flat) - 1)])
    return (sizes >= threshold) & (sizes > 0)

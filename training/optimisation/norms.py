"""How large the gradients and the updates of each layer are."""

import math
from collections import defaultdict
from collections.abc import Mapping
from typing import NamedTuple

import torch

from model.network.towers import split_dimension
from training.optimisation.state import TrainingState


class Norms(NamedTuple):
    """Euclidean norms by layer, of weights and biases together.

    gradients: of the loss's gradient. updates: of what the last step added.
    """

    gradients: Mapping[str, float]
    updates: Mapping[str, float]


def measure_norms(state: TrainingState) -> Norms:
    """Measure the gradients and updates of the step just taken, of the whole network.

    Call it in all processes after the same step; all get the same.
    """
    rates = {id(p): float(g["lr"]) for g in state.sgd.param_groups for p in g["params"]}
    squares: dict[str, list[float]] = defaultdict(lambda: [0.0, 0.0])
    for name, parameter in state.network.named_parameters():
        velocity, sums = state.sgd.velocity(parameter), squares[name.rsplit(".", 1)[0]]
        if parameter.grad is None or velocity is None:
            continue
        # What both towers hold is counted by each.
        held_by = state.mesh.towers if split_dimension(name, state.network.config) is None else 1
        # The gradient may have fewer bits than its norm needs.
        norm = torch.linalg.vector_norm(parameter.grad, dtype=velocity.dtype)
        sums[0] += float(norm) ** 2 / held_by
        sums[1] += (rates.get(id(parameter), 0.0) * float(velocity.norm())) ** 2 / held_by
    layers = list(squares)
    totals = state.mesh.all_reduce_sum(*(value for layer in layers for value in squares[layer]))
    norms = [math.sqrt(total / state.mesh.replicas) for total in totals]
    return Norms(
        dict(zip(layers, norms[::2], strict=True)), dict(zip(layers, norms[1::2], strict=True))
    )

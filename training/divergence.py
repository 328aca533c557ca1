"""A loss that is no number, or grows beyond all bounds: at which step, and which layer first."""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from model.alexnet import AlexNet
from training.data import Batch
from training.distributed.mesh import Mesh

if TYPE_CHECKING:
    from training.state import TrainingState

RECENT = 20
"""Steps whose mean loss is looked at."""
MAX_LOSS_RATIO = 20.0
"""Times the loss of guessing, ln(classes), from which on a run is given up."""


class DivergedError(ArithmeticError):
    """The loss is no longer a number, or far above that of guessing."""


def check_loss(
    state: "TrainingState", batch: Batch, keys: Tensor, bf16: bool, step: int, epoch: int
) -> None:
    """Raise DivergedError, in all processes alike, when the last losses are past hope."""
    loss, recent = state.recent_losses[-1], state.recent_losses
    bound = MAX_LOSS_RATIO * math.log(max(2, state.network.config.classes))
    if math.isfinite(loss) and (len(recent) < RECENT or sum(recent) / len(recent) < bound):
        return
    where = find_bad_layer(state, batch, keys, bf16)
    raise DivergedError(
        f"the loss became {loss:.4g} at step {step} of epoch {epoch}; {where}. A lower --rate or "
        "the preset `small` may help"
    )


def check_weights(state: "TrainingState") -> None:
    """Raise DivergedError when a weight is no finite number, so that no such file is written.

    Called by all processes, and raised in all alike.
    """
    finite = {name: torch.isfinite(p).all() for name, p in state.network.named_parameters()}
    names = list(finite)
    own = next((number for number, name in enumerate(names) if not finite[name]), len(names))
    first = min(earliest(state.mesh, own))
    if first < len(names):
        raise DivergedError(
            f"{names[first]} is no longer finite after step {state.progress.step} of epoch "
            f"{len(state.history) + 1}; a lower --rate or the preset `small` may help"
        )


@torch.no_grad()
def find_bad_layer(state: "TrainingState", batch: Batch, keys: Tensor, bf16: bool) -> str:
    """Say which layer's outputs are the first that are not finite, else which are the largest.

    Runs the batch forward again, with the weights that the loss came from: after the update all
    layers would be at fault.
    """
    device, sizes = state.device, list[float]()
    with (
        record_output_sizes(state.network, sizes),
        torch.autocast(device.type, torch.bfloat16, enabled=bf16),
    ):
        x = batch.x.to(device, next(state.network.parameters()).dtype)
        state.network(x, keys.to(device))
    names = [name for name, _ in state.network.named_children()]
    bad = [number for number, size in enumerate(sizes) if not math.isfinite(size)]
    first = min(earliest(state.mesh, bad[0] if bad else len(names)))
    if first < len(names):
        return f"the first layer whose outputs are not finite is {names[first]}"
    largest = max(range(len(sizes)), key=sizes.__getitem__)
    return f"the largest outputs are those of {names[largest]}, {sizes[largest]:.3g} on average"


def earliest(mesh: Mesh, own: int) -> Iterator[int]:
    """Every process's number of its first bad layer."""
    places = mesh.replicas * mesh.towers
    here = mesh.replica * mesh.towers + mesh.tower
    values = mesh.all_reduce_sum(*(own * (place == here) for place in range(places)))
    return (round(value) for value in values)


@contextmanager
def record_output_sizes(network: AlexNet, sizes: list[float]) -> Iterator[None]:
    """Keep the root mean square of every layer's outputs, in order."""

    def keep(_module: object, _inputs: object, out: Tensor) -> None:
        # In float64, so that no square of a finite number overflows.
        norm = torch.linalg.vector_norm(out.detach().cpu(), dtype=torch.float64)
        sizes.append(float(norm) / math.sqrt(out.numel()))

    hooks = [module.register_forward_hook(keep) for module in network.children()]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()

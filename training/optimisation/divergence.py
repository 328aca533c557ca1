"""Stop a run whose loss or weights are no longer finite, or whose loss grows without bound."""

import math
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from model.network.alexnet import AlexNet
from training.batches.batches import Batch
from training.distributed.mesh import Mesh
from training.optimisation.precision import Precision, autocast
from training.optimisation.state import RECENT_LOSSES, TrainingState

MAX_LOSS_RATIO = 20.0
"""A run has diverged when the mean of its recent losses exceeds ln(classes), the loss of
guessing, by this factor."""
MAX_SKIPPED = 40
"""Steps skipped in a row with which a run in float16 has diverged: from 65,536 the loss's scale is
then below a ten-millionth."""


class DivergedError(ArithmeticError):
    """The loss or a weight is not finite, or the loss is far above that of guessing."""


def check_loss(
    state: TrainingState, batch: Batch, keys: Tensor, precision: Precision, step: int, epoch: int
) -> None:
    """Raise DivergedError if the recent losses show that the run has diverged.

    Call it in all processes after the same step, before the weights are updated; it raises in all
    of them or in none. keys: int64 [B], the batch's dropout keys.
    """
    loss, recent = state.recent_losses[-1], state.recent_losses
    bound = MAX_LOSS_RATIO * math.log(max(2, state.network.config.classes))
    if math.isfinite(loss) and (len(recent) < RECENT_LOSSES or sum(recent) / len(recent) < bound):
        return
    layer = describe_bad_layer(state, batch, keys, precision)
    raise DivergedError(f"the loss became {loss:.4g} at step {step} of epoch {epoch}; {layer}.")


def check_skipped(
    state: TrainingState, batch: Batch, keys: Tensor, precision: Precision, step: int, epoch: int
) -> None:
    """Raise DivergedError if so many steps in a row were skipped that no scale would help.

    Call it in all processes after they have skipped a step; it raises in all of them or in none.
    """
    if state.loss_scale.skipped < MAX_SKIPPED:
        return
    layer = describe_bad_layer(state, batch, keys, precision)
    raise DivergedError(
        f"{MAX_SKIPPED} steps up to step {step} of epoch {epoch} were skipped, since float16 could "
        f"not hold their gradients or outputs; {layer}. --precision f32 holds larger ones."
    )


def check_measured(steps: int, epoch: int) -> None:
    """Raise DivergedError if of all steps of an epoch none had a finite loss."""
    if not steps:
        raise DivergedError(f"no step of epoch {epoch} had a finite loss in float16.")


def check_weights(state: TrainingState) -> None:
    """Raise DivergedError if a weight is not finite, so that no such file is written.

    Call it in all processes; it raises in all of them or in none.
    """
    finite = {name: torch.isfinite(p).all() for name, p in state.network.named_parameters()}
    names = list(finite)
    own = next((number for number, name in enumerate(names) if not finite[name]), len(names))
    first = min(gather_numbers(state.mesh, own))
    if first < len(names):
        raise DivergedError(
            f"{names[first]} is no longer finite after step {state.progress.step} of epoch "
            f"{len(state.history) + 1}."
        )


@torch.no_grad()
def describe_bad_layer(
    state: TrainingState, batch: Batch, keys: Tensor, precision: Precision
) -> str:
    """Name the first layer whose outputs are not finite, or else the one with the largest.

    Repeats the forward pass with the weights that the loss was computed with: after an update
    every layer would be affected.
    """
    device, sizes = state.device, list[float]()
    with record_output_sizes(state.network, sizes), autocast(device, precision):
        x = batch.x.to(device, next(state.network.parameters()).dtype)
        state.network(x, keys.to(device))
    names = [name for name, _ in state.network.named_children()]
    bad = [number for number, size in enumerate(sizes) if not math.isfinite(size)]
    first = min(gather_numbers(state.mesh, bad[0] if bad else len(names)))
    if first < len(names):
        return f"the first layer whose outputs are not finite is {names[first]}"
    largest = max(range(len(sizes)), key=sizes.__getitem__)
    return f"the largest outputs are those of {names[largest]}, {sizes[largest]:.3g} on average"


def gather_numbers(mesh: Mesh, own: int) -> Iterator[int]:
    """Collect one number from each process, in every process."""
    count = mesh.replicas * mesh.towers
    rank = mesh.replica * mesh.towers + mesh.tower
    # A sum in which each process fills its own place.
    values = mesh.all_reduce_sum(*(own * (place == rank) for place in range(count)))
    return (round(value) for value in values)


@contextmanager
def record_output_sizes(network: AlexNet, sizes: list[float]) -> Iterator[None]:
    """Append the root mean square of every layer's outputs to `sizes`, in order."""

    def record(_module: object, _inputs: object, out: Tensor) -> None:
        # In float64, so that no square of a finite number overflows.
        norm = torch.linalg.vector_norm(out.detach().cpu(), dtype=torch.float64)
        sizes.append(float(norm) / math.sqrt(out.numel()))

    hooks = [module.register_forward_hook(record) for module in network.children()]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()

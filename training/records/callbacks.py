"""What the loop calls between steps: to show progress, save checkpoints and stop on a signal."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

from training.distributed.mesh import Mesh
from training.distributed.signals import STOP_SIGNALS
from training.optimisation.norms import Norms
from training.optimisation.state import TrainingState


class StoppedError(Exception):
    """A signal stopped the run, after a checkpoint was saved."""

    def __init__(self, signal: int) -> None:
        super().__init__(f"stopped by signal {signal}")
        self.signal = signal


@dataclass(frozen=True, kw_only=True)
class Callbacks:
    """Functions that the loop calls. The defaults do nothing."""

    on_step: Callable[[int, int, float], None] = lambda *_: None
    """Called after each step with its number, the number of steps in the epoch, and its loss."""
    on_epoch: Callable[[TrainingState], None] = lambda _: None
    """Called after each epoch, in all processes."""
    is_finished: Callable[[TrainingState], bool] = lambda _: False
    """Whether the run ends before its last epoch; asked between epochs, in all processes, whose
    answers must be the same."""
    checkpoint_due: Callable[[], bool] = lambda: False
    """Whether to save a checkpoint now; asked after each step, in rank 0 only."""
    stop_signal: Callable[[], int] = lambda: 0
    """The number of the signal that asked this process to stop, or 0."""
    save_checkpoint: Callable[[TrainingState], None] = lambda _: None
    """Saves a checkpoint; called in all processes after the same step."""
    report_due: Callable[[], bool] = lambda: False
    """Whether to report on the step now; asked after each step, in rank 0 only."""
    on_report: Callable[[TrainingState, int, int, Norms], None] = lambda *_: None
    """Called after a step to report on, in all processes, with the epoch's number of steps and of
    images in a batch, and the norms of the layers' gradients and updates."""


class StepStatus(NamedTuple):
    """What all processes know after a step.

    loss: the batch's mean loss. wrong: its images whose class was not the most probable. stop: the
    signal to stop on if any process received one, else 0. save: whether to save a checkpoint.
    report: whether to report on the step. overflow: whether a gradient of any process is not
    finite, for which all skip the step.
    """

    loss: float
    wrong: float
    stop: int
    save: bool
    report: bool
    overflow: bool


def all_reduce_status(
    mesh: Mesh,
    callbacks: Callbacks,
    loss: float = 0.0,
    wrong: int = 0,
    *,
    overflow: bool = False,
    in_step: bool = False,
) -> StepStatus:
    """Combine what every process knows after a step, in one all-reduce.

    loss: this process's share of the batch's mean loss. wrong: of its images. overflow: whether one
    of its gradients is not finite, in float16. in_step: whether this is a step of training, which
    may be reported on.
    """
    due, received = mesh.is_main and callbacks.checkpoint_due(), callbacks.stop_signal()
    report = in_step and mesh.is_main and callbacks.report_due()
    flags = (received == number for number in STOP_SIGNALS)
    total, errors, save, said, overflows, *counts = mesh.all_reduce_sum(
        loss, wrong, due, report, overflow, *flags
    )
    stop = next((int(n) for n, count in zip(STOP_SIGNALS, counts, strict=True) if count), 0)
    return StepStatus(
        total / mesh.towers, errors / mesh.towers, stop, bool(save), bool(said), bool(overflows)
    )


def save_and_stop(state: TrainingState, stop: int, callbacks: Callbacks) -> None:
    """Save a checkpoint; raise StoppedError if `stop` is a signal."""
    callbacks.save_checkpoint(state)
    if stop:
        # A barrier: a process that ended before the file is written would end the others, too.
        state.mesh.all_reduce_sum(0.0)
        raise StoppedError(stop)

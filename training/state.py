"""A run between two steps: the network, its velocities, its records, and who is told of them."""

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import nn

from model.alexnet import AlexNet, AlexNetConfig
from storage.runs import Epoch
from training.config import Recipe
from training.distributed.mesh import Mesh
from training.distributed.signals import STOP_SIGNALS
from training.divergence import RECENT
from training.sgd import PaperSGD, group_parameters


class StoppedError(Exception):
    """The run was told to stop, and has saved where it is."""

    def __init__(self, signal: int) -> None:
        super().__init__(f"stopped by signal {signal}")
        self.signal = signal


@dataclass
class EpochProgress:
    """How far the current epoch is."""

    step: int = 0
    loss: float = 0.0
    wait: float = 0.0
    seconds: float = 0.0


@dataclass
class TrainingState:
    """A run between two steps. `forward` is the network as it is called in training."""

    network: AlexNet
    forward: nn.Module
    sgd: PaperSGD
    mesh: Mesh
    history: list[Epoch[float]] = field(default_factory=list)
    progress: EpochProgress = field(default_factory=EpochProgress)
    recent_losses: deque[float] = field(default_factory=lambda: deque(maxlen=RECENT))

    @property
    def device(self) -> torch.device:
        """Where the network is."""
        return next(self.network.parameters()).device


@dataclass(frozen=True, kw_only=True)
class Callbacks:
    """Who is told, and who says when to save and stop.

    steps:  after each step: its number, of how many, its loss.
    epochs: after each epoch.
    due:    whether a checkpoint is due; asked in rank 0 after each step.
    stop:   the signal that asks this process to stop, or 0.
    save:   write a checkpoint; called in all processes at the same step.
    """

    on_step: Callable[[int, int, float], None] = lambda *_: None
    on_epoch: Callable[[TrainingState], None] = lambda _: None
    checkpoint_due: Callable[[], bool] = lambda: False
    stop_signal: Callable[[], int] = lambda: 0
    save_checkpoint: Callable[[TrainingState], None] = lambda _: None


def init_state(
    config: AlexNetConfig,
    recipe: Recipe,
    device: torch.device,
    mesh: Mesh | None = None,
    dtype: torch.dtype = torch.float32,
) -> TrainingState:
    """Draw the initial weights."""
    mesh = mesh or Mesh()
    torch.manual_seed(recipe.seed)
    network = mesh.build_network(config)
    network = network.to(device=device, dtype=dtype, memory_format=torch.channels_last)  # type: ignore[call-overload]
    sgd = PaperSGD(group_parameters(network, recipe), recipe.rate, recipe.momentum)
    return TrainingState(network, mesh.wrap_data_parallel(network), sgd, mesh)


def all_reduce_status(mesh: Mesh, loss: float, reports: Callbacks) -> tuple[float, int, bool]:
    """The batch's mean loss, the signal to stop if any process got one, whether to save."""
    due, stop = mesh.is_main and reports.checkpoint_due(), reports.stop_signal()
    asked = (stop == number for number in STOP_SIGNALS)
    total, saves, *counts = mesh.all_reduce_sum(loss, due, *asked)
    stops = [int(number) for number, count in zip(STOP_SIGNALS, counts, strict=True) if count]
    return total / mesh.towers, stops[0] if stops else 0, bool(saves)


def save_and_stop(state: TrainingState, stop: int, reports: Callbacks) -> None:
    """Write a checkpoint; raise StoppedError when a signal asked for it."""
    reports.save_checkpoint(state)
    if stop:
        # Nobody ends before the file is written: who misses a process ends, too.
        state.mesh.all_reduce_sum(0.0)
        raise StoppedError(stop)

"""A run between two steps: the network, its velocities, its records, and who is told of them."""

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import nn

from model.alexnet import AlexNet, AlexNetConfig
from training.config import Recipe
from training.distributed.mesh import Mesh
from training.distributed.signals import STOPPING
from training.divergence import RECENT
from training.sgd import PaperSGD, groups


class StoppedError(Exception):
    """The run was told to stop, and has saved where it is."""

    def __init__(self, signal: int) -> None:
        super().__init__(f"stopped by signal {signal}")
        self.signal = signal


@dataclass(frozen=True, kw_only=True)
class Epoch:
    """What one pass over the training set gave."""

    epoch: int
    """Counted from 1."""
    rate: float
    """Its learning rate."""
    loss: float
    """Mean cross-entropy of its training batches, dropout and augmentation on."""
    top1_error: float
    """Of the validation images' centre crops, 0–1."""
    top5_error: float
    """The same for five guesses."""
    images_per_second: float
    """Training speed, validation left out."""
    data_wait: float
    """Seconds the loop waited for batches."""
    seconds: float
    """In all, validation included."""
    memory: float = 0.0
    """Most memory that this process has held so far, in GiB; a GPU's where it trains on one."""


@dataclass
class Partial:
    """How far the current epoch is."""

    step: int = 0
    loss: float = 0.0
    wait: float = 0.0
    seconds: float = 0.0


@dataclass
class State:
    """A run between two steps. `forward` is the network as it is called in training."""

    network: AlexNet
    forward: nn.Module
    sgd: PaperSGD
    mesh: Mesh
    history: list[Epoch] = field(default_factory=list)
    partial: Partial = field(default_factory=Partial)
    recent: deque[float] = field(default_factory=lambda: deque(maxlen=RECENT))

    @property
    def device(self) -> torch.device:
        """Where the network is."""
        return next(self.network.parameters()).device


@dataclass(frozen=True, kw_only=True)
class Reports:
    """Who is told, and who says when to save and stop.

    steps:  after each step: its number, of how many, its loss.
    epochs: after each epoch.
    due:    whether a checkpoint is due; asked in rank 0 after each step.
    stop:   the signal that asks this process to stop, or 0.
    save:   write a checkpoint; called in all processes at the same step.
    """

    steps: Callable[[int, int, float], None] = lambda *_: None
    epochs: Callable[[State], None] = lambda _: None
    due: Callable[[], bool] = lambda: False
    stop: Callable[[], int] = lambda: 0
    save: Callable[[State], None] = lambda _: None


def start(
    config: AlexNetConfig,
    recipe: Recipe,
    device: torch.device,
    mesh: Mesh | None = None,
    dtype: torch.dtype = torch.float32,
) -> State:
    """Draw the initial weights."""
    mesh = mesh or Mesh()
    torch.manual_seed(recipe.seed)
    network = mesh.network(config)
    network = network.to(device=device, dtype=dtype, memory_format=torch.channels_last)  # type: ignore[call-overload]
    sgd = PaperSGD(groups(network, recipe), recipe.rate, recipe.momentum)
    return State(network, mesh.spread(network), sgd, mesh)


def agree(mesh: Mesh, loss: float, reports: Reports) -> tuple[float, int, bool]:
    """The batch's mean loss, the signal to stop if any process got one, whether to save."""
    due, stop = mesh.first and reports.due(), reports.stop()
    asked = (stop == number for number in STOPPING)
    total, saves, *counts = mesh.everywhere(loss, due, *asked)
    stops = [int(number) for number, count in zip(STOPPING, counts, strict=True) if count]
    return total / mesh.towers, stops[0] if stops else 0, bool(saves)


def save_and_stop(state: State, stop: int, reports: Reports) -> None:
    """Write a checkpoint; raise StoppedError when a signal asked for it."""
    reports.save(state)
    if stop:
        # Nobody ends before the file is written: who misses a process ends, too.
        state.mesh.everywhere(0.0)
        raise StoppedError(stop)

"""A run between two steps: the network, the optimiser with its velocities, and the progress."""

from collections import deque
from dataclasses import dataclass, field

import torch
from torch import nn

from model.network.alexnet import AlexNet
from model.network.config import AlexNetConfig
from storage.runs import Epoch
from training.distributed.mesh import Mesh
from training.optimisation.precision import LossScale
from training.optimisation.sgd import PaperSGD, group_parameters
from training.recipe.config import Recipe

RECENT_LOSSES = 20
"""Steps whose mean loss is tested for divergence (training/optimisation/divergence.py)."""


@dataclass
class EpochProgress:
    """How much of the current epoch is done; resuming continues after `step`."""

    step: int = 0
    """Steps done."""
    loss: float = 0.0
    """Sum of their losses."""
    wait: float = 0.0
    """Seconds spent waiting for batches."""
    seconds: float = 0.0
    """Seconds spent training."""
    wrong: float = 0.0
    """Images whose class was not the most probable one."""
    skipped: int = 0
    """Steps without an update, since float16 could not hold their gradients."""
    unmeasured: int = 0
    """Those of them whose loss was not finite either; the others count in the epoch's mean."""


@dataclass
class TrainingState:
    """Everything that changes during a run; training/records/checkpoints.py saves it."""

    network: AlexNet
    """This process's part of the network: all of it, or one tower."""
    forward: nn.Module
    """The network as training calls it: possibly compiled, and averaging gradients."""
    sgd: PaperSGD
    mesh: Mesh
    history: list[Epoch[float]] = field(default_factory=list)
    """The finished epochs."""
    progress: EpochProgress = field(default_factory=EpochProgress)
    epoch_recipe: Recipe | None = None
    """The recipe that the current epoch's batches follow, in a run resumed within an epoch; None:
    the run's. Another batch size or seed takes effect with the next epoch."""
    recent_losses: deque[float] = field(default_factory=lambda: deque(maxlen=RECENT_LOSSES))

    loss_scale: LossScale = field(default_factory=LossScale)
    """Used in float16 only."""

    @property
    def device(self) -> torch.device:
        """The device that holds the network."""
        return next(self.network.parameters()).device

    def planned_epochs(self, recipe: Recipe) -> list[int]:
        """Return how many epochs the run was to have when each of its epochs was trained."""
        return [epoch.planned or recipe.epochs for epoch in self.history]


def init_state(
    config: AlexNetConfig,
    recipe: Recipe,
    device: torch.device,
    mesh: Mesh | None = None,
    dtype: torch.dtype = torch.float32,
) -> TrainingState:
    """Build the network and its optimiser, drawing the initial weights from the recipe's seed."""
    mesh = mesh or Mesh()
    torch.manual_seed(recipe.seed)
    network = mesh.build_network(config)
    if recipe.freeze_conv:
        freeze_convolutions(network)
    network = network.to(device=device, dtype=dtype, memory_format=torch.channels_last)  # type: ignore[call-overload]
    sgd = PaperSGD(group_parameters(network, recipe), recipe.rate, recipe.momentum)
    return TrainingState(network, mesh.wrap_data_parallel(network), sgd, mesh)


def freeze_convolutions(network: nn.Module) -> None:
    """Exclude all layers but the fully connected ones from gradients and updates."""
    network.requires_grad_(False)
    for module in network.modules():
        if isinstance(module, nn.Linear):
            module.requires_grad_(True)

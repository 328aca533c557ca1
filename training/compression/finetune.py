"""Fine-tune a network while it is pruned, and measure what compression costs it."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
from rich.console import Console
from torch import Tensor

from model.network.config import AlexNetConfig
from model.network.layers import Conv, Dense, Drop, Local
from model.network.paper_layers import list_layers
from model.weights.checkpoint import Weights
from training.compression.prune import Pruning
from training.optimisation.device import compile_network
from training.optimisation.loop import train_network
from training.optimisation.state import TrainingState, init_state
from training.optimisation.validate import measure_ten_crops, validate
from training.recipe.config import PAPER, PRESETS, Recipe
from training.records.callbacks import Callbacks
from training.records.reporting import format_epoch, report_run
from training.records.run_folder import RunSpec

RATE_SHARE = 0.1
"""Fine-tuning's initial learning rate, as a share of the recipe's."""


@dataclass(frozen=True, kw_only=True)
class Errors:
    """Error rates on the validation images, 0–1."""

    top1: float
    top5: float
    ten_crop_top1: float
    ten_crop_top5: float


def reduce_dropout(config: AlexNetConfig, density: float) -> float:
    """Return the dropout to train a pruned network with: less, since it has fewer connections.

    density: the share of weights that the fully connected layers keep. After Han, Pool, Tran and
    Dally (2015), §3.2: the rate falls with the root of that share.
    """
    return config.dropout * math.sqrt(density)


def scale_after_dropout(config: AlexNetConfig, dropout: float) -> dict[str, float]:
    """Return what to multiply weights by, by name, so that another dropout changes no output.

    The paper multiplies the neurons by 1 − p at test (§4.2); the weights of the layer after them
    make up for another p.
    """
    factors: dict[str, float] = {}
    kept = 1.0
    for layer in list_layers(config):
        if isinstance(layer, Drop) and not layer.inverted:
            kept = (1 - layer.p) / (1 - dropout)
        elif isinstance(layer, Conv | Local | Dense):
            factors[f"{layer.name}.weight"], kept = kept, 1.0
    return factors


def choose_recipe(preset: str, epochs: int, rate: float | None) -> Recipe:
    """Return the recipe of a preset, for a few epochs at a low rate that falls to zero.

    rate: the initial learning rate; None: a tenth of the preset's.
    """
    trained = PRESETS.get(preset, PAPER)
    return replace(
        trained,
        epochs=epochs,
        rate=rate or RATE_SHARE * trained.rate,
        bias_rate=None,
        schedule="cosine",
        warmup=0,
        slow_conv1_after=None,
        freeze_conv1_after=None,
        hold_out=0.0,
    )


class FineTuning:
    """A network with the photographs, the recipe and the device that it is fine-tuned with.

    dropout: the probability to fine-tune with. What `load` takes and `read` returns are tensors of
    the weights' own network, whatever it is.
    """

    def __init__(
        self,
        weights: Weights,
        spec: RunSpec,
        device: torch.device,
        console: Console,
        dropout: float,
    ) -> None:
        self.spec, self.console = spec, console
        self.factors = scale_after_dropout(weights.config, dropout)
        self.state = init_state(replace(weights.config, dropout=dropout), spec.recipe, device)
        self.load(weights.state)

    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """Set the network's tensors."""
        scaled = {name: tensor * self.factors.get(name, 1) for name, tensor in tensors.items()}
        self.state.network.load_state_dict(scaled)

    def read(self) -> dict[str, Tensor]:
        """Return the network's tensors on the CPU."""
        tensors = self.state.mesh.gather(self.state.network.state_dict(), self.state.network.config)
        return {
            name: (tensor / self.factors.get(name, 1)).contiguous(
                memory_format=torch.contiguous_format
            )
            for name, tensor in tensors.items()
        }

    def measure(self) -> Errors:
        """Measure the errors on the validation images, of the centre crop and of ten crops."""
        state, spec = self.state, self.spec
        top1, top5, _ = validate(state, spec.data, spec.recipe, spec.precision, Callbacks())
        self.console.print(f"Centre crop: validation error top-1 {top1:.2%}, top-5 {top5:.2%}.")
        ten1, ten5 = measure_ten_crops(state, spec, spec.precision, self.console, Callbacks())
        return Errors(top1=top1, top5=top5, ten_crop_top1=ten1, ten_crop_top5=ten5)

    def train_and_prune(self, densities: Mapping[str, float]) -> None:
        """Train by the recipe; the layers become sparser in the first half, and stay so.

        densities: the share of weights to keep in the end, by parameter name. Raises DivergedError.
        """
        state, spec = self.state, self.spec
        images = len(spec.data.train) * spec.recipe.epochs
        compile_network(state, "auto", images, spec.precision)
        pruning = Pruning(densities)
        with report_run(None, spec, self.console, lambda: 0, math.inf) as shown:

            def on_step(step: int, steps: int, loss: float) -> None:
                done = len(state.history) + step / steps
                pruning.update(state, done / spec.recipe.epochs)
                shown.on_step(step, steps, loss)

            def on_epoch(state: TrainingState) -> None:
                shown.on_epoch(state)
                self.console.print(format_epoch(state.history[-1], spec.recipe.epochs))

            callbacks = replace(shown, on_step=on_step, on_epoch=on_epoch)
            train_network(state, spec.data, spec.recipe, spec.precision, callbacks)

"""Fine-tune a network while it is pruned, and measure what compression costs it."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
from rich.console import Console
from torch import Tensor

from model.checkpoint import Weights
from training.callbacks import Callbacks
from training.compression.prune import Pruning
from training.config import PAPER, PRESETS, Recipe
from training.device import compile_network
from training.loop import train_network
from training.reporting import format_epoch, report_run
from training.run_folder import RunSpec
from training.state import TrainingState, init_state
from training.validate import measure_ten_crops, validate

RATE_SHARE = 0.1
"""Fine-tuning's initial learning rate, as a share of the recipe's."""


@dataclass(frozen=True, kw_only=True)
class Errors:
    """Error rates on the validation images, 0–1."""

    top1: float
    top5: float
    ten_crop_top1: float
    ten_crop_top5: float


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
    )


class FineTuning:
    """A network with the photographs, the recipe and the device that it is fine-tuned with."""

    def __init__(
        self, weights: Weights, spec: RunSpec, device: torch.device, console: Console
    ) -> None:
        self.spec, self.console = spec, console
        self.bf16 = spec.precision == "bf16"
        self.state = init_state(weights.config, spec.recipe, device)
        self.load(weights.state)

    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """Set the network's tensors."""
        self.state.network.load_state_dict(dict(tensors))

    def read(self) -> dict[str, Tensor]:
        """Return the network's tensors on the CPU."""
        tensors = self.state.mesh.gather(self.state.network.state_dict(), self.state.network.config)
        return {k: v.contiguous(memory_format=torch.contiguous_format) for k, v in tensors.items()}

    def measure(self) -> Errors:
        """Measure the errors on the validation images, of the centre crop and of ten crops."""
        state, spec = self.state, self.spec
        top1, top5 = validate(state, spec.data, spec.recipe, self.bf16, Callbacks())
        self.console.print(f"Centre crop: validation error top-1 {top1:.2%}, top-5 {top5:.2%}.")
        ten1, ten5 = measure_ten_crops(state, spec, self.bf16, self.console, Callbacks())
        return Errors(top1=top1, top5=top5, ten_crop_top1=ten1, ten_crop_top5=ten5)

    def prune(self, densities: Mapping[str, float]) -> None:
        """Prune all at once, without training.

        densities: the share of weights to keep, by parameter name.
        """
        Pruning(densities).update(self.state, 1.0)

    def train_and_prune(self, densities: Mapping[str, float]) -> None:
        """Train by the recipe; the layers become sparser in the first half, and stay so.

        densities: the share of weights to keep in the end, by parameter name. Raises DivergedError.
        """
        state, spec = self.state, self.spec
        compile_network(state, "auto", len(spec.data.train) * spec.recipe.epochs)
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
            train_network(state, spec.data, spec.recipe, self.bf16, callbacks)

"""The recipe of §4 and §5 as one frozen dataclass, its presets, and what a run is told."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Annotated, Literal

import tyro

from model.alexnet import AlexNetConfig

SMALL_BELOW = 100_000
"""Training sets of fewer images get the small-data preset when none is named."""


class RecipeError(ValueError):
    """A value that no run can be made with."""


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """How weights are learned. The defaults are the paper's."""

    epochs: int = 90
    """At most so many passes over the training set (§5: "roughly 90 cycles")."""
    batch: int = 128
    """Images a step (§5)."""
    rate: float = 0.01
    """Learning rate ε at the start, one for all layers (§5)."""
    momentum: float = 0.9
    """Of the update rule (§5)."""
    decay: float = 0.0005
    """Weight decay of the update rule (§5)."""
    drops: int = 3
    """How often the learning rate is divided by ten before the end (§5)."""
    patience: int = 8
    """Epochs without a lower validation error after which it drops (§5 says "stopped
    improving"; the paper does not give a number)."""
    colour_noise: float = 0.1
    """Standard deviation of the α of the PCA colour augmentation (§4.1)."""
    dropout: float = 0.5
    """Probability that a neuron of fc6 or fc7 is set to zero (§4.2)."""
    init: Literal["paper", "he"] = "paper"
    """Initial weights: N(0, 0.01²) and the paper's biases (§5), or He's and zeros."""
    input_scale: float = 1.0
    """The mean-free pixels, in grey levels of 0-255, are divided by this (§2: not at all)."""
    seed: int = 0
    """Of the initial weights, the order of images, crops, mirrors, colours and dropout."""

    def __post_init__(self) -> None:
        checks = {
            "epochs": self.epochs >= 1,
            "batch": self.batch >= 1,
            "rate": 0 < self.rate < float("inf"),
            "momentum": 0 <= self.momentum < 1,
            "decay": 0 <= self.decay < float("inf"),
            "drops": self.drops >= 0,
            "patience": self.patience >= 1,
            "colour_noise": 0 <= self.colour_noise < float("inf"),
            "dropout": 0 <= self.dropout < 1,
            "input_scale": 0 < self.input_scale < float("inf"),
            "seed": 0 <= self.seed < 2**63,
        }
        for name, good in checks.items():
            if not good:
                flag = name.replace("_", "-")
                raise RecipeError(f"--{flag} cannot be {getattr(self, name)}")

    def network(self, classes: int) -> AlexNetConfig:
        """Give the configuration of the network that this recipe trains."""
        return AlexNetConfig(
            classes=classes,
            dropout=self.dropout,
            init=self.init,
            input_scale=self.input_scale,
        )


PAPER = Recipe()
# DEVIATION: the small-data preset divides the mean-free pixels by 60, their standard deviation,
# because with raw pixels He's initial weights diverge within ten steps.
SMALL = replace(PAPER, init="he", input_scale=60.0)
# DEVIATION: the demo preset takes batches of 16, the learning rate in proportion, no dropout and
# six epochs, because its few hundred crops would give too few steps of 128 in the minutes that a
# first try may last, and dropout takes about twice the steps to converge (§4.2).
DEMO = replace(SMALL, batch=16, rate=0.01 * 16 / 128, dropout=0.0, epochs=6)
PRESETS = {"paper": PAPER, "small": SMALL, "demo": DEMO}
Preset = Literal["auto", "paper", "small", "demo"]


@dataclass(frozen=True, kw_only=True)
class Job:
    """Train the network of the paper on a folder of photographs.

    The folder holds train/<class>/* and val/<class>/*. What is made lies in the folder named by
    ALEXNET_HOME (default: var): the run's records under runs/, and weights.safetensors, which
    `flask index build` and the application use.
    """

    data: str | None = None
    """The folder, or "imagenette", which is fetched. Default: the folder that ALEXNET_DATA
    names, else the demo photographs."""
    preset: Preset = "auto"
    """Recipe to start from. auto: demo for the demo photographs, small below 100,000 training
    images, else the paper's."""
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    """Where the network is trained."""
    precision: Literal["auto", "f32", "bf16"] = "auto"
    """Of the layers' arithmetic; weights, update and softmax stay float32. auto: bf16 where the
    processor has it."""
    if_needed: bool = False
    """Do nothing when this folder was trained on with this recipe; go on with a run of the same
    that was cut off."""
    resume: str | None = None
    """The folder of a run that was cut off, to go on with from its last checkpoint."""
    accept: tuple[str, ...] = ()
    """With --resume: the values that may differ from what the run was told, by name."""
    recipe: Annotated[Recipe, tyro.conf.arg(name="")] = field(default_factory=Recipe)
    """The numbers; each flag overrides the preset's."""


def parse(arguments: Sequence[str], default: Job | None = None) -> Job:
    """Read the command line, taking what it does not say from `default`."""
    return tyro.cli(Job, args=list(arguments), default=default or Job())


def choose_preset(job: Job, images: int, *, demo: bool) -> tuple[str, str]:
    """Name the preset for a training set of so many images, and say why."""
    if job.preset != "auto":
        return job.preset, "as named"
    if demo:
        return "demo", "these are the demo photographs"
    if images < SMALL_BELOW:
        return "small", f"{images:,} training images are fewer than {SMALL_BELOW:,}"
    return "paper", f"{images:,} training images"


def choose_data(job: Job, environ: Mapping[str, str] = os.environ) -> tuple[str | None, str]:
    """Name the folder to train on (None: the demo photographs), and say who named it."""
    if job.data is not None:
        return job.data, "named by --data"
    if environ.get("ALEXNET_DATA"):
        return environ["ALEXNET_DATA"], "named by ALEXNET_DATA"
    return None, "no --data and no ALEXNET_DATA: the demo photographs"

"""What a run is told on the command line: the recipe, and where and how it is computed."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Literal

import tyro

from model.variants import VARIANTS
from training.config import Preset, Recipe, RecipeError

SMALL_BELOW = 100_000
"""Training sets of fewer images get the small-data preset when none is named."""
GIGABYTE = 10**9


@dataclass(frozen=True, kw_only=True)
class Options:
    """Train the network of the paper on a folder of photographs.

    The folder holds train/<class>/* and val/<class>/*. What is made lies in the folder named by
    ALEXNET_HOME (default: var): the run's records under runs/, and weights.safetensors, which
    `flask index build` and the application use.
    """

    data: str | None = None
    """The folder; or one with train-*.tar and val-*.tar (webdataset's shards), or a URL of such
    shards, {split} standing for train and val; or "imagenette", which is fetched. Default: the
    folder that ALEXNET_DATA names, else the demo photographs."""
    preset: Preset = "auto"
    """Recipe to start from. auto: demo for the demo photographs, cifar for variants of that
    name, small below 100,000 training images, else the paper's."""
    initial_weights: Annotated[str | None, tyro.conf.arg(name="from")] = None
    """Weights file to start from: fc8 is drawn anew for the new classes, the rest kept (the
    22,000-class row of Table 2)."""
    towers: int | None = None
    """Processes that the network is split over, 1 or 2. Default: 2 on a machine with two or more
    GPUs, for networks that have two towers; else 1."""
    replicas: int = 1
    """Copies of the network that share each batch; started here, or by torchrun."""
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    """Where the network is trained."""
    precision: Literal["auto", "f32", "bf16"] = "auto"
    """Of the layers' arithmetic; weights, update and softmax stay float32. auto: bf16 where the
    processor has it."""
    compile: Literal["auto", "on", "off"] = "auto"
    """Compile with torch.compile, on a CPU the response normalisation only. auto: where a
    compiler is found and the run is long enough to win the time back."""
    deterministic: bool = False
    """Have a GPU give the same numbers each time, too; the CPU does."""
    prepared_gigabytes: float = 50.0
    """Photographs are kept decoded if they take less, as JPEG otherwise."""
    checkpoint_seconds: float = 300.0
    """Time between two checkpoints, half a gigabyte each. A signal makes one at once."""
    if_needed: bool = False
    """Do nothing when this folder was trained on with this recipe; go on with a run of the same
    that was cut off."""
    resume: str | None = None
    """The folder of a run that was cut off, to go on with from its last checkpoint."""
    accept: tuple[str, ...] = ()
    """With --resume: the values that may differ from what the run was told, by name."""
    recipe: Annotated[Recipe, tyro.conf.arg(name="")] = field(default_factory=Recipe)
    """The numbers; each flag overrides the preset's."""

    def check_ranges(self) -> None:
        """Raise RecipeError for a value out of range."""
        checks = {
            "towers": self.towers in (None, 1, 2),
            "replicas": self.replicas >= 1,
            "prepared_gigabytes": 0 <= self.prepared_gigabytes < float("inf"),
            "checkpoint_seconds": self.checkpoint_seconds >= 0,
        }
        for name, good in checks.items():
            if not good:
                why = "; the network has two towers: 1 or 2" if name == "towers" else ""
                flag, value = name.replace("_", "-"), getattr(self, name)
                raise RecipeError(f"--{flag} cannot be {value}{why}")


def parse_flags(arguments: Sequence[str], default: Options | None = None) -> Options:
    """Read the command line, taking what it does not say from `default`.

    Raises RecipeError for a value out of range.
    """
    job = tyro.cli(Options, args=list(arguments), default=default or Options())
    # Not as Job is made: tyro would answer for it, in a box of several lines.
    job.check_ranges()
    return job


def choose_preset(job: Options, images: int, *, demo: bool) -> tuple[str, str]:
    """Name the preset for a training set of so many images, and say why."""
    if job.preset != "auto":
        return job.preset, "as named"
    if VARIANTS[job.recipe.variant].config.net == "cifar":
        return "cifar", "the network is one for CIFAR-10"
    if demo:
        return "demo", "these are the demo photographs"
    if images < SMALL_BELOW:
        return "small", f"{images:,} training images are fewer than {SMALL_BELOW:,}"
    return "paper", f"{images:,} training images"


def choose_data_source(
    job: Options, environ: Mapping[str, str] = os.environ
) -> tuple[str | None, str]:
    """Name the folder to train on (None: the demo photographs), and say who named it."""
    if job.data is not None:
        return job.data, "named by --data"
    if environ.get("ALEXNET_DATA"):
        return environ["ALEXNET_DATA"], "named by ALEXNET_DATA"
    return None, "no --data and no ALEXNET_DATA: the demo photographs"

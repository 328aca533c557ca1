"""One folder a run: what it was told, its epochs, its checkpoint and its weights."""

import json
import subprocess
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from model.checkpoint import Provenance, Weights, save
from storage.files import switch_link, write_atomically
from storage.home import Home
from training.config import Recipe, RecipeError
from training.dataset.prepare import Prepared
from training.state import Epoch, TrainingState


class RunError(ValueError):
    """A run's folder that cannot be gone on with."""


@dataclass(frozen=True)
class Run:
    """A run's folder.

    run.json holds what it was told and whether it is finished; environment.json the machine and
    the versions; epochs.jsonl a line an epoch; conv1/ its kernels after each; tensorboard/ the
    same numbers for TensorBoard; checkpoint.safetensors weights and velocities after the last
    step saved; best.safetensors the weights of the lowest validation error so far;
    weights.safetensors the result.
    """

    folder: Path

    @property
    def weights(self) -> Path:
        """What the run is for."""
        return self.folder / "weights.safetensors"

    @property
    def best(self) -> Path:
        """The weights of the epoch with the lowest validation error."""
        return self.folder / "best.safetensors"

    @property
    def checkpoint(self) -> Path:
        """What it can be resumed from."""
        return self.folder / "checkpoint.safetensors"

    @property
    def epochs(self) -> Path:
        """Its epochs, a line each."""
        return self.folder / "epochs.jsonl"

    def described(self) -> dict[str, Any]:
        """The content of run.json; empty when there is none that can be read."""
        try:
            found = json.loads((self.folder / "run.json").read_text())
        except (OSError, ValueError):
            return {}
        return found if isinstance(found, dict) else {}

    def describe(self, **values: Any) -> None:
        """Add to run.json, atomically."""
        text = json.dumps(self.described() | values, indent=2) + "\n"
        write_atomically(self.folder / "run.json", text)


@dataclass(frozen=True)
class RunSpec:
    """What makes two runs the same: the data's content, the recipe, the weights begun from."""

    data: Prepared
    recipe: Recipe
    initial_weights: str | None = None
    """The identity of the weights begun from."""
    precision: Literal["f32", "bf16"] = "f32"
    """Of the layers' arithmetic."""

    def to_json(self) -> dict[str, Any]:
        """As run.json holds it."""
        return {
            "data": str(self.data.root),
            "content": self.data.key,
            "recipe": json.loads(json.dumps(asdict(self.recipe))),
            "from": self.initial_weights,
            "precision": self.precision,
        }


def new_run(home: Home, told: RunSpec, preset: str) -> Run:
    """Begin a folder under runs/, named by time, preset and data."""
    stamp = f"{datetime.now(UTC):%Y%m%d-%H%M%S}-{preset}-{Path(str(told.data.root)).name}"
    for number in range(1, 1000):
        folder = home.runs / (stamp if number == 1 else f"{stamp}-{number}")
        try:
            folder.mkdir(parents=True)
        except FileExistsError:
            continue
        run = Run(folder)
        run.describe(**told.to_json(), preset=preset, finished=False, commit=commit())
        return run
    raise RunError(f"{home.runs} holds too many runs named {stamp}")


def runs_of(home: Home, told: RunSpec) -> Iterator[Run]:
    """The runs found on disk that were told the same, newest first.

    Their precision may differ: it is the machine's, unless somebody chose one.
    """
    same = {k: v for k, v in told.to_json().items() if k != "precision"}
    for folder in sorted(home.runs.glob("*"), reverse=True):
        run = Run(folder)
        if run.described().items() >= same.items():
            yield run


def recipe_of(run: Run) -> Recipe:
    """The recipe a run was told; RunError when the folder is not a run's."""
    try:
        return Recipe(**run.described()["recipe"])
    except (KeyError, TypeError, RecipeError) as error:
        raise RunError(f"{run.folder} is not the folder of a run: no run.json to read") from error


def add_epoch(run: Run, epoch: Epoch) -> None:
    """Append an epoch's line."""
    with run.epochs.open("a") as file:
        file.write(json.dumps(asdict(epoch)) + "\n")


def keep_epochs(run: Run, history: list[Epoch]) -> None:
    """Write the epochs' lines anew: as many as the checkpoint knows."""
    write_atomically(run.epochs, "".join(json.dumps(asdict(epoch)) + "\n" for epoch in history))


def weights_of(
    state: TrainingState, told: RunSpec, run: Run, tensors: dict[str, Tensor]
) -> Weights:
    """The weights file's content after the last epoch."""
    last, described = state.history[-1], run.described()
    provenance = Provenance(
        data=str(told.data.root),
        images=len(told.data.train),
        epochs=len(state.history),
        preset=str(described.get("preset", "")),
        top1_error=last.top1_error,
        top5_error=last.top5_error,
        commit=str(described.get("commit", "unknown")),
        created=f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}",
    )
    return Weights(
        config=state.network.config,
        classes=told.data.names,
        mean=told.data.mean,
        pca=told.data.pca,
        provenance=provenance,
        state={k: v.contiguous(memory_format=torch.contiguous_format) for k, v in tensors.items()},
    )


def keep_best(run: Run | None, state: TrainingState, told: RunSpec) -> None:
    """Write the weights when the last epoch's validation error is the lowest; all processes."""
    errors = [epoch.top1_error for epoch in state.history]
    if errors[-1] > min(errors[:-1], default=1.0):
        return
    tensors = state.mesh.gather(state.network.state_dict(), state.network.config)
    if run is not None:
        save(weights_of(state, told, run, tensors), run.best)


def finish(
    run: Run,
    home: Home,
    state: TrainingState,
    told: RunSpec,
    tensors: dict[str, Tensor],
    ten: tuple[float, float],
) -> Weights:
    """Write the weights file, make it the current one, and say in run.json that it is done.

    tensors: the whole network's. ten: top-1 and top-5 error with ten crops, 0–1.
    """
    made = weights_of(state, told, run, tensors)
    provenance = replace(made.provenance, ten_crop_top1_error=ten[0], ten_crop_top5_error=ten[1])
    weights = replace(made, provenance=provenance)
    save(weights, run.weights)
    switch_link(home.weights, run.weights)
    run.describe(finished=True, weights=weights.identity, ten_crops=ten)
    run.checkpoint.unlink(missing_ok=True)
    return weights


def commit() -> str:
    """This project's commit, with a + when files were changed; "unknown" outside a checkout."""
    root = Path(__file__).resolve().parents[1]
    command = ["git", "-C", str(root), "describe", "--always", "--dirty=+", "--abbrev=12"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=10)
    except (OSError, subprocess.SubprocessError):
        return "unknown"
    return done.stdout.strip()

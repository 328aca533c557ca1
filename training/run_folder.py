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

from model.checkpoint import Provenance, Weights, save_weights
from storage.files import switch_link
from storage.home import Home
from storage.runs import RunFolder
from training.config import Recipe, RecipeError
from training.dataset.prepare import Prepared
from training.state import TrainingState


class RunError(ValueError):
    """A run's folder that cannot be gone on with."""


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


def new_run(home: Home, spec: RunSpec, preset: str) -> RunFolder:
    """Begin a folder under runs/, named by time, preset and data."""
    stamp = f"{datetime.now(UTC):%Y%m%d-%H%M%S}-{preset}-{Path(str(spec.data.root)).name}"
    for number in range(1, 1000):
        folder = home.runs / (stamp if number == 1 else f"{stamp}-{number}")
        try:
            folder.mkdir(parents=True)
        except FileExistsError:
            continue
        run = RunFolder(folder)
        run.update_description(**spec.to_json(), preset=preset, finished=False, commit=commit())
        return run
    raise RunError(f"{home.runs} holds too many runs named {stamp}")


def find_runs(home: Home, spec: RunSpec) -> Iterator[RunFolder]:
    """The runs found on disk that were told the same, newest first.

    Their precision may differ: it is the machine's, unless somebody chose one.
    """
    same = {k: v for k, v in spec.to_json().items() if k != "precision"}
    for folder in sorted(home.runs.glob("*"), reverse=True):
        run = RunFolder(folder)
        if run.read_description().items() >= same.items():
            yield run


def read_recipe(run: RunFolder) -> Recipe:
    """The recipe a run was told; RunError when the folder is not a run's."""
    try:
        return Recipe(**run.read_description()["recipe"])
    except (KeyError, TypeError, RecipeError) as error:
        raise RunError(f"{run.path} is not the folder of a run: no run.json to read") from error


def weights_of(
    state: TrainingState, spec: RunSpec, run: RunFolder, tensors: dict[str, Tensor]
) -> Weights:
    """The weights file's content after the last epoch."""
    last, described = state.history[-1], run.read_description()
    provenance = Provenance(
        data=str(spec.data.root),
        images=len(spec.data.train),
        epochs=len(state.history),
        preset=str(described.get("preset", "")),
        top1_error=last.top1_error,
        top5_error=last.top5_error,
        commit=str(described.get("commit", "unknown")),
        created=f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}",
    )
    return Weights(
        config=state.network.config,
        classes=spec.data.names,
        mean=spec.data.mean,
        pca=spec.data.pca,
        provenance=provenance,
        state={k: v.contiguous(memory_format=torch.contiguous_format) for k, v in tensors.items()},
    )


def keep_best(run: RunFolder | None, state: TrainingState, spec: RunSpec) -> None:
    """Write the weights when the last epoch's validation error is the lowest; all processes."""
    errors = [epoch.top1_error for epoch in state.history]
    if errors[-1] > min(errors[:-1], default=1.0):
        return
    tensors = state.mesh.gather(state.network.state_dict(), state.network.config)
    if run is not None:
        save_weights(weights_of(state, spec, run, tensors), run.best)


def finish(
    run: RunFolder,
    home: Home,
    state: TrainingState,
    spec: RunSpec,
    tensors: dict[str, Tensor],
    ten: tuple[float, float],
) -> Weights:
    """Write the weights file, make it the current one, and say in run.json that it is done.

    tensors: the whole network's. ten: top-1 and top-5 error with ten crops, 0–1.
    """
    made = weights_of(state, spec, run, tensors)
    provenance = replace(made.provenance, ten_crop_top1_error=ten[0], ten_crop_top5_error=ten[1])
    weights = replace(made, provenance=provenance)
    save_weights(weights, run.weights)
    switch_link(home.weights, run.weights)
    run.update_description(finished=True, weights=weights.identity, ten_crops=ten)
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

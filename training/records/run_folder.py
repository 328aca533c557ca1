"""A run: what defines it, its folder under runs/, and the weights files that it writes."""

import json
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import torch
from torch import Tensor

from model.weights.checkpoint import Weights, save_weights
from model.weights.header import Provenance
from storage.files import lock_file, remove_leftovers, switch_link
from storage.home import Home
from storage.runs import RunFolder
from training.dataset.prepare import PreparedDataset
from training.dataset.shards import is_url
from training.optimisation.precision import Precision
from training.optimisation.state import TrainingState
from training.recipe.config import PAPER, Recipe, RecipeError

MAX_NAME_BYTES = 120
"""Of the dataset's name in that of a run's folder; file systems allow 255 for all of it."""


class RunError(ValueError):
    """A run that cannot be started or resumed."""


@dataclass(frozen=True)
class RunSpec:
    """What defines a run: its data, recipe, initial weights and precision.

    Runs with the same specification give the same weights.
    """

    data: PreparedDataset
    recipe: Recipe
    initial_weights: str | None = None
    """The identity of the weights that --from names."""
    precision: Precision = "f32"
    """Of the layers' arithmetic."""

    def to_json(self) -> dict[str, Any]:
        """Return the specification as run.json and a checkpoint's header hold it."""
        return {
            "data": hide_query(self.data.root),
            "content": self.data.key,
            "classes": [name.folder for name in self.data.class_names],
            "recipe": recipe_to_json(self.recipe),
            "from": self.initial_weights,
            "precision": self.precision,
        }


def create_run(home: Home, spec: RunSpec, preset: str) -> RunFolder:
    """Create a folder under runs/, named after the time, the preset and the dataset."""
    name = shorten_name(Path(hide_query(spec.data.root)).name)
    stamp = f"{datetime.now(UTC):%Y%m%d-%H%M%S}-{preset}-{name}"
    for number in range(1, 1000):
        folder = home.runs / (stamp if number == 1 else f"{stamp}-{number}")
        try:
            folder.mkdir(parents=True)
        except FileExistsError:
            continue
        run = RunFolder(folder)
        run.update_description(
            **spec.to_json(), preset=preset, finished=False, commit=read_commit()
        )
        return run
    raise RunError(f"{home.runs} holds too many runs named {stamp}")


def hide_query(root: Path | str) -> str:
    """Return a folder, or a URL without user, query and fragment, which may hold secrets.

    A flag in front of the URL, as in --data=URL, stays.
    """
    if isinstance(root, Path) or not is_url(root):
        return str(root)
    if root.startswith("--"):
        flag, _, url = root.partition("=")
        return f"{flag}={hide_query(url)}"
    parts = urlsplit(root)
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))


def shorten_name(name: str) -> str:
    """Cut a name so that the folder named after it can be written."""
    return name.encode()[:MAX_NAME_BYTES].decode(errors="ignore")


def recipe_to_json(recipe: Recipe) -> dict[str, Any]:
    """Return a recipe's values as JSON gives them back."""
    values: dict[str, Any] = json.loads(json.dumps(asdict(recipe)))
    return values


def complete_recipe(values: dict[str, Any]) -> dict[str, Any]:
    """Return a stored recipe with what it did not have yet: that was as the paper has it."""
    return recipe_to_json(PAPER) | values


def find_runs(home: Home, spec: RunSpec) -> Iterator[RunFolder]:
    """Find the runs of this specification under runs/, newest first.

    Their precision may differ: by default it depends on the machine. So may the place of the
    photographs; their content, which has their classes, may not.
    """
    apart = {"precision", "data", "classes"}
    same = {k: v for k, v in spec.to_json().items() if k not in apart}
    for folder in sorted(home.runs.glob("*"), reverse=True):
        run = RunFolder(folder)
        described = run.read_description()
        if isinstance(recipe := described.get("recipe"), dict):
            described = described | {"recipe": complete_recipe(recipe)}
        if described.items() >= same.items():
            yield run


def read_recipe(run: RunFolder) -> Recipe:
    """Read a run's recipe from run.json; raise RunError if the folder is not a run's."""
    try:
        return Recipe(**run.read_description()["recipe"])
    except (KeyError, TypeError, RecipeError) as error:
        raise RunError(f"{run.path} is not the folder of a run: no readable run.json") from error


def make_weights(
    state: TrainingState, spec: RunSpec, run: RunFolder, tensors: dict[str, Tensor]
) -> Weights:
    """Make a weights file's content after the last epoch, from the whole network's tensors."""
    last, described = state.history[-1], run.read_description()
    provenance = Provenance(
        data=hide_query(spec.data.root),
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
        classes=spec.data.class_names,
        mean=spec.data.mean,
        pca=spec.data.pca,
        provenance=provenance,
        state={k: v.contiguous(memory_format=torch.contiguous_format) for k, v in tensors.items()},
    )


def save_best_weights(run: RunFolder | None, state: TrainingState, spec: RunSpec) -> None:
    """Write the weights if the last epoch has the lowest validation error.

    Call it in all processes; rank 0 writes, and `run` is None in the others.
    """
    errors = [epoch.top1_error for epoch in state.history]
    if errors[-1] > min(errors[:-1], default=1.0):
        return
    tensors = state.mesh.gather(state.network.state_dict(), state.network.config)
    if run is not None:
        save_weights(make_weights(state, spec, run, tensors), run.best)


def finish_run(
    run: RunFolder,
    home: Home,
    state: TrainingState,
    spec: RunSpec,
    tensors: dict[str, Tensor],
    ten_crop_errors: tuple[float, float] | None,
) -> Weights:
    """Write the weights file, select it for the next index, and mark the run as finished.

    tensors: the whole network's weights. ten_crop_errors: top-1 and top-5, 0–1; None if they were
    not measured.
    """
    weights = make_weights(state, spec, run, tensors)
    top1, top5 = ten_crop_errors or (None, None)
    provenance = replace(weights.provenance, ten_crop_top1_error=top1, ten_crop_top5_error=top5)
    weights = replace(weights, provenance=provenance)
    save_weights(weights, run.weights)
    switch_link(home.weights, run.weights)
    run.update_description(
        finished=True, ended="finished", weights=weights.identity, ten_crops=ten_crop_errors
    )
    run.previous_checkpoint.unlink(missing_ok=True)
    remove_leftovers(run.path)
    return weights


@contextmanager
def lock_run(run: RunFolder) -> Iterator[None]:
    """Hold a run's lock, which one process at a time can. Raises RunError if another does."""
    try:
        with lock_file(run.lock, wait=False):
            yield
    except BlockingIOError as error:
        raise RunError(
            f"{run.path} is being trained by another process; wait for it, or stop it first"
        ) from error


def read_commit() -> str:
    """Return this project's commit, with a + if files are changed; "unknown" outside a clone."""
    root = Path(__file__).resolve().parents[2]
    command = ["git", "-C", str(root), "describe", "--always", "--dirty=+", "--abbrev=12"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=10)
    except (OSError, subprocess.SubprocessError):
        return "unknown"
    return done.stdout.strip()

"""One folder a run: what it was told, its epochs, its checkpoint and its weights."""

import json
import subprocess
from collections.abc import Collection, Iterator
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

from model.checkpoint import (
    Provenance,
    Weights,
    WeightsError,
    read_tensors,
    save,
    write_tensors,
)
from model.home import Home, point, sync
from training.config import Recipe
from training.loop import Epoch, State
from training.prepare import Prepared

VELOCITY = "velocity."


class RunError(ValueError):
    """A run's folder that cannot be gone on with."""


@dataclass(frozen=True)
class Run:
    """A run's folder.

    run.json holds what it was told and whether it is finished; epochs.jsonl a line an epoch;
    checkpoint.safetensors weights and velocities after the last epoch; weights.safetensors the
    result.
    """

    folder: Path

    @property
    def weights(self) -> Path:
        """What the run is for."""
        return self.folder / "weights.safetensors"

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
        write_text(self.folder / "run.json", text)


def new_run(home: Home, data: Prepared, recipe: Recipe, preset: str) -> Run:
    """Begin a folder under runs/, named by time, preset and data."""
    stamp = f"{datetime.now(UTC):%Y%m%d-%H%M%S}-{preset}-{data.root.name}"
    for number in range(1, 1000):
        folder = home.runs / (stamp if number == 1 else f"{stamp}-{number}")
        try:
            folder.mkdir(parents=True)
        except FileExistsError:
            continue
        run = Run(folder)
        run.describe(**told(data, recipe), preset=preset, finished=False, commit=commit())
        return run
    raise RunError(f"{home.runs} holds too many runs named {stamp}")


def told(data: Prepared, recipe: Recipe) -> dict[str, Any]:
    """What makes two runs the same: the content of the data, and the recipe."""
    return {"data": str(data.root), "content": data.key, "recipe": asdict(recipe)}


def runs_of(home: Home, data: Prepared, recipe: Recipe) -> Iterator[Run]:
    """The runs found on disk that were told the same, newest first."""
    for folder in sorted(home.runs.glob("*"), reverse=True):
        run = Run(folder)
        if run.described().items() >= told(data, recipe).items():
            yield run


def save_checkpoint(run: Run, state: State, data: Prepared, recipe: Recipe) -> None:
    """Write weights, velocities and history, whole or not at all."""
    names = [name for name, _ in state.network.named_parameters()]
    velocities = zip(names, state.sgd.velocities(), strict=True)
    tensors = state.network.state_dict() | {VELOCITY + n: v for n, v in velocities}
    header = {
        "told": json.dumps(told(data, recipe)),
        "history": json.dumps([asdict(epoch) for epoch in state.history]),
        "rate": repr(state.sgd.rate),
    }
    write_tensors(tensors, run.checkpoint, header)


def recipe_of(run: Run) -> Recipe:
    """The recipe a run was told; RunError when the folder is not a run's."""
    try:
        return Recipe(**run.described()["recipe"])
    except (KeyError, TypeError) as error:
        raise RunError(f"{run.folder} is not the folder of a run: no run.json to read") from error


def load_checkpoint(
    run: Run, state: State, data: Prepared, recipe: Recipe, accept: Collection[str] = ()
) -> None:
    """Take up a checkpoint into a fresh state.

    Raises RunError when there is none, it is damaged, or it was told other things than now; what
    `accept` names may differ, and is written into run.json.
    """
    try:
        header, tensors = read_tensors(run.checkpoint)
        then, history = json.loads(header["told"]), json.loads(header["history"])
        state.history[:] = [Epoch(**values) for values in history]
        refuse_changes(then, told(data, recipe), run, accept)
        velocities = {k: tensors.pop(k) for k in list(tensors) if k.startswith(VELOCITY)}
        state.network.load_state_dict(tensors)
        state.sgd.set_rate(float(header["rate"]))
        names = [VELOCITY + name for name, _ in state.network.named_parameters()]
        state.sgd.restore(velocities[name] for name in names)
    except (WeightsError, KeyError, TypeError, RuntimeError, json.JSONDecodeError) as error:
        raise RunError(f"{run.folder} cannot be resumed: {error}") from error
    run.describe(**told(data, recipe))
    keep_epochs(run, state.history)


def refuse_changes(
    then: dict[str, Any], now: dict[str, Any], run: Run, accept: Collection[str]
) -> None:
    """Raise RunError naming what a run was told differently and nobody accepted."""
    old, new = then | then["recipe"], now | now["recipe"]
    changed = [k for k in new if k not in {"recipe", *accept} and old.get(k) != new[k]]
    if changed:
        said = "; ".join(f"{k} was {old.get(k)}, is {new[k]}" for k in changed)
        raise RunError(
            f"{run.folder} cannot be resumed with other values: {said}; "
            f"to go on all the same: --accept {' '.join(changed)}"
        )


def add_epoch(run: Run, epoch: Epoch) -> None:
    """Append an epoch's line."""
    with run.epochs.open("a") as file:
        file.write(json.dumps(asdict(epoch)) + "\n")


def keep_epochs(run: Run, history: list[Epoch]) -> None:
    """Write the epochs' lines anew: as many as the checkpoint knows."""
    write_text(run.epochs, "".join(json.dumps(asdict(epoch)) + "\n" for epoch in history))


def finish(
    run: Run, home: Home, state: State, data: Prepared, ten: tuple[float, float] | None
) -> Weights:
    """Write the weights file, make it the current one, and say in run.json that it is done."""
    last = state.history[-1]
    weights = Weights(
        config=state.network.config,
        classes=data.names,
        mean=data.mean,
        pca=data.pca,
        provenance=Provenance(
            data=str(data.root),
            images=len(data.train.classes),
            epochs=len(state.history),
            preset=str(run.described().get("preset", "")),
            top1_error=last.top1_error,
            top5_error=last.top5_error,
            ten_crop_top1_error=ten[0] if ten else None,
            ten_crop_top5_error=ten[1] if ten else None,
            commit=str(run.described().get("commit", "unknown")),
            created=f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}",
        ),
        state={
            k: v.cpu().contiguous(memory_format=torch.contiguous_format)
            for k, v in state.network.state_dict().items()
        },
    )
    save(weights, run.weights)
    point(home.weights, run.weights)
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


def write_text(path: Path, text: str) -> None:
    """Write a file beside its place, then rename it into place."""
    part = path.with_name(f".{path.name}.part")
    try:
        part.write_text(text)
        sync(part)
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)

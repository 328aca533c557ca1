"""A run's checkpoints: written atomically, resumed bit for bit by any number of processes.

The last two are kept, and one at each drop of the learning rate. Each holds a checksum, so that a
damaged one is recognised and the one before it is used.
"""

import hashlib
import json
import math
import shutil
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

from torch import Tensor

from model.weights.checkpoint import read_tensors, write_tensors
from model.weights.header import WeightsError, open_safetensors
from storage.files import link_file
from storage.runs import Epoch, RunFolder
from training.optimisation.divergence import check_weights
from training.optimisation.precision import LossScale
from training.optimisation.state import EpochProgress, TrainingState
from training.recipe.config import Recipe, RecipeError
from training.recipe.schedule import count_drops
from training.records.run_folder import RunError, RunSpec, complete_recipe, recipe_to_json

VELOCITY_PREFIX = "velocity."
"""Prefix of the velocities' names; the weights have their own."""
CHECKSUM = "checksum"
"""Entry of the header: the SHA-256 of the other entries and of the tensors. Older checkpoints lack
it."""
SOUND_LOSS = 1.5
"""A checkpoint is from before a divergence if the mean of its recent losses is at most this many
times ln(classes), the loss of guessing …"""
SOUND_GROWTH, SOUND_MARGIN = 2.0, 1.0
"""… and at most so many times the lowest loss of its epochs, plus this."""


class DamagedError(ValueError):
    """A checkpoint that cannot be used; the message says why."""


@dataclass(frozen=True)
class Checkpoint:
    """What a checkpoint file holds: its header's entries, and its tensors by name."""

    path: Path
    header: Mapping[str, str]
    tensors: dict[str, Tensor]


@dataclass(frozen=True, kw_only=True)
class Position:
    """A place in a run: so many whole epochs, and so many steps of the next."""

    epochs: int
    step: int

    def __str__(self) -> str:
        return f"epoch {self.epochs}, step {self.step}"


def save_checkpoint(run: RunFolder | None, state: TrainingState, spec: RunSpec) -> None:
    """Write weights, velocities and history, whole or not at all; keep the last checkpoint.

    Call it in all processes; rank 0 writes, and `run` is None in the others. Raises
    DivergedError, leaving the previous checkpoint, if the weights are not finite, and OSError if
    the file cannot be written.
    """
    check_weights(state)
    config, mesh = state.network.config, state.mesh
    weights = mesh.gather(state.network.state_dict(), config)
    velocities = {
        name: velocity
        for name, parameter in state.network.named_parameters()
        if (velocity := state.sgd.velocity(parameter)) is not None
    }
    velocities = mesh.gather(velocities, config)
    if run is None:
        return
    header = {
        "told": json.dumps(spec.to_json()),
        "history": json.dumps([asdict(epoch) for epoch in state.history]),
        "partial": json.dumps(asdict(state.progress)),
        "recent": json.dumps(list(state.recent_losses)),
        "rates": json.dumps(state.sgd.rates),
        "loss_scale": json.dumps(asdict(state.loss_scale)),
        "epoch_recipe": json.dumps(recipe_to_json(state.epoch_recipe or spec.recipe)),
    }
    tensors = weights | {VELOCITY_PREFIX + name: velocity for name, velocity in velocities.items()}
    header[CHECKSUM] = compute_checksum(header, tensors)
    try:
        write_tensors(tensors, run.checkpoint, header, keep_as=run.previous_checkpoint)
    except OSError as error:
        need = sum(tensor.nbytes for tensor in tensors.values())
        free = shutil.disk_usage(run.path).free
        raise OSError(
            f"{error}; a checkpoint needs {need / 1e9:.2f} GB, and {free / 1e9:.2f} GB are free. "
            "The last one is kept: make room, then python training/run.py --resume "
            f"{run.path}"
        ) from error


def keep_drop_checkpoint(run: RunFolder, state: TrainingState) -> None:
    """Give the last checkpoint a second name, which says after which epoch the rate dropped."""
    link_file(run.checkpoint, run.drop_checkpoint(len(state.history)))


def has_dropped(state: TrainingState, recipe: Recipe) -> bool:
    """Return whether the learning rate drops after the last epoch."""
    errors = [epoch.top1_error for epoch in state.history]
    planned = state.planned_epochs(recipe)
    now, before = (count_drops(errors[:n], recipe, planned[:n])[0] for n in (None, -1))
    return now > before


def compute_checksum(header: Mapping[str, str], tensors: Mapping[str, Tensor]) -> str:
    """Compute the SHA-256, in hex, of a checkpoint's header, without its checksum, and tensors."""
    entries = {name: text for name, text in header.items() if name != CHECKSUM}
    digest = hashlib.sha256(json.dumps(entries, sort_keys=True).encode())
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}".encode())
        digest.update(tensor.contiguous().numpy().data)
    return digest.hexdigest()


def load_checkpoint(
    run: RunFolder, state: TrainingState, spec: RunSpec, accept: Collection[str] = ()
) -> list[str]:
    """Load the newest usable checkpoint into a fresh state, whatever processes wrote it.

    Of a run that has diverged, it is the newest from before the trouble. accept: names of the
    values of the specification that may differ.

    Returns a sentence about each newer checkpoint that was passed over. Raises RunError if no
    checkpoint can be used, or the run belongs to another specification.
    """
    checkpoint, passed_over = find_checkpoint(run)
    try:
        header, tensors = checkpoint.header, checkpoint.tensors
        told = json.loads(header["told"])
        check_same_spec(read_spec(run, told), spec.to_json(), run, accept)
        state.history[:] = [
            Epoch(**{"memory": 0.0} | values) for values in json.loads(header["history"])
        ]
        state.progress = EpochProgress(**json.loads(header["partial"]))
        if state.progress.step:
            recipe = json.loads(header.get("epoch_recipe", "null")) or told["recipe"]
            state.epoch_recipe = Recipe(**complete_recipe(recipe))
        state.recent_losses.extend(json.loads(header["recent"]))
        state.loss_scale = LossScale(**json.loads(header.get("loss_scale", "{}")))
        velocities = {
            name.removeprefix(VELOCITY_PREFIX): tensors.pop(name)
            for name in list(tensors)
            if name.startswith(VELOCITY_PREFIX)
        }
        config, mesh = state.network.config, state.mesh
        state.network.load_state_dict(mesh.split(tensors, config))
        state.sgd.set_rates(json.loads(header["rates"]))
        parameters = dict(state.network.named_parameters())
        for name, velocity in mesh.split(velocities, config).items():
            state.sgd.restore_velocity(parameters[name], velocity)
    except (KeyError, TypeError, RuntimeError, RecipeError, json.JSONDecodeError) as error:
        raise RunError(f"{run.path} cannot be resumed: {checkpoint.path}: {error}") from error
    return passed_over


def find_checkpoint(run: RunFolder) -> tuple[Checkpoint, list[str]]:
    """Read the newest usable checkpoint; return it with what is wrong with each newer one.

    Raises RunError if there is none.
    """
    passed_over: list[str] = []
    diverged = run.read_description().get("ended") == "diverged"
    for path in run.list_checkpoints():
        try:
            if diverged and not is_sound(read_header(path)):
                passed_over.append(f"{path} is from after the trouble began")
                continue
            checkpoint = read_checkpoint(path)
        except DamagedError as error:
            passed_over.append(str(error))
            continue
        return checkpoint, passed_over
    reason = "; ".join(passed_over) or "it has no checkpoint"
    raise RunError(f"{run.path} cannot be resumed: {reason}")


def read_checkpoint(path: Path) -> Checkpoint:
    """Read a checkpoint and compare its checksum. Raises DamagedError."""
    try:
        header, tensors = read_tensors(path)
    except WeightsError as error:
        raise DamagedError(f"{path} is damaged: {error}") from error
    if header.get(CHECKSUM, "") not in ("", compute_checksum(header, tensors)):
        raise DamagedError(f"{path} is damaged: its content is not what was written")
    return Checkpoint(path, header, tensors)


def read_header(path: Path) -> Mapping[str, str]:
    """Read only a checkpoint's header. Raises DamagedError."""
    try:
        with open_safetensors(path) as file:
            header: dict[str, str] = file.metadata() or {}
    except WeightsError as error:
        raise DamagedError(f"{path} is damaged: {error}") from error
    return header


def is_sound(header: Mapping[str, str]) -> bool:
    """Return whether a checkpoint is from before the run began to diverge, by its losses."""
    try:
        recent = json.loads(header["recent"])
        losses = [float(epoch["loss"]) for epoch in json.loads(header["history"])]
        classes = len(json.loads(header["told"]).get("classes") or [])
    except (KeyError, TypeError, ValueError) as error:
        raise DamagedError(f"a checkpoint's header is damaged: {error}") from error
    bounds = [SOUND_LOSS * math.log(max(2, classes or 1000))]
    if losses:
        bounds.append(SOUND_GROWTH * min(losses) + SOUND_MARGIN)
    return not recent or fmean(recent) <= min(bounds)


def find_sound_position(run: RunFolder) -> Position | None:
    """Return from where a run that has just diverged would be resumed; None if from nowhere."""
    for path in run.list_checkpoints():
        try:
            header = read_header(path)
            if is_sound(header):
                history, partial = json.loads(header["history"]), json.loads(header["partial"])
                return Position(epochs=len(history), step=int(partial["step"]))
        except (DamagedError, KeyError, ValueError):
            continue
    return None


def remove_newer_checkpoints(run: RunFolder, passed_over: Collection[str]) -> None:
    """Remove the checkpoints that were passed over, so that none of them is kept as the last."""
    for path in run.list_checkpoints()[: len(passed_over)]:
        path.unlink(missing_ok=True)


def read_spec(run: RunFolder, told: dict[str, Any]) -> dict[str, Any]:
    """Return the specification that a run was last started with, by run.json or a checkpoint.

    run.json knows what was accepted after the checkpoint was written.
    """
    described = run.read_description()
    return told | {name: described[name] for name in told if name in described}


def check_same_spec(
    then: dict[str, Any], now: dict[str, Any], run: RunFolder, accept: Collection[str]
) -> None:
    """Raise RunError naming each value that changed since the run started, unless accepted.

    Other classes are never accepted. Where the photographs lie does not matter.
    """
    old, new = then | complete_recipe(then["recipe"]), now | now["recipe"]
    if unknown := set(accept) - set(new):
        raise RunError(f"--accept does not know {', '.join(sorted(unknown))}")
    check_same_classes(old.get("classes"), now["classes"], run)
    ignored = {"recipe", "classes", "data", *accept}
    changed = [k for k in new if k not in ignored and old.get(k) != new[k]]
    if changed:
        changes = "; ".join(f"{k} was {old.get(k)}, is {new[k]}" for k in changed)
        raise RunError(
            f"{run.path} cannot be resumed with other values: {changes}; "
            f"to resume anyway, add --accept {' '.join(changed)}"
        )


def check_same_classes(then: object, now: list[str], run: RunFolder) -> None:
    """Raise RunError unless the classes are the same in the same order.

    The network's outputs stand for them. Runs from before they were recorded pass.
    """
    if not isinstance(then, list) or then == now:
        return
    if sorted(map(str, then)) == sorted(now):
        how = "their order has changed"
    else:
        gone, new = sorted(set(then) - set(now)), sorted(set(now) - set(then))
        parts = [
            f"{what}: {', '.join(map(str, names[:5]))}{' …' * (len(names) > 5)}"
            for what, names in (("gone", gone), ("new", new))
            if names
        ]
        how = "; ".join(parts)
    raise RunError(
        f"{run.path} cannot be resumed with other classes ({how}): its outputs stand for those it "
        "started with. Start a new run from its weights with --from"
    )

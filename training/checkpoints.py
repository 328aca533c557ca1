"""A run's checkpoint: written atomically, resumed bit for bit by any number of processes."""

import json
from collections.abc import Collection
from dataclasses import asdict
from typing import Any

from model.checkpoint import read_tensors, write_tensors
from model.weights_header import WeightsError
from storage.runs import Epoch, RunFolder
from training.divergence import check_weights
from training.run_folder import RunError, RunSpec, complete_recipe
from training.state import EpochProgress, TrainingState

VELOCITY_PREFIX = "velocity."
"""Prefix of the velocities' names; the weights have their own."""


def save_checkpoint(run: RunFolder | None, state: TrainingState, spec: RunSpec) -> None:
    """Write weights, velocities and history, whole or not at all.

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
    }
    tensors = weights | {VELOCITY_PREFIX + name: velocity for name, velocity in velocities.items()}
    write_tensors(tensors, run.checkpoint, header)


def load_checkpoint(
    run: RunFolder, state: TrainingState, spec: RunSpec, accept: Collection[str] = ()
) -> None:
    """Load a checkpoint into a fresh state, whatever the number of processes that wrote it.

    accept: names of the values of the specification that may differ.

    Raises RunError if the checkpoint is damaged, or belongs to another specification.
    """
    mesh, config = state.mesh, state.network.config
    try:
        header, tensors = read_tensors(run.checkpoint)
        check_same_spec(json.loads(header["told"]), spec.to_json(), run, accept)
        state.history[:] = [
            Epoch(**{"memory": 0.0} | values) for values in json.loads(header["history"])
        ]
        state.progress = EpochProgress(**json.loads(header["partial"]))
        state.recent_losses.extend(json.loads(header["recent"]))
        velocities = {
            name.removeprefix(VELOCITY_PREFIX): tensors.pop(name)
            for name in list(tensors)
            if name.startswith(VELOCITY_PREFIX)
        }
        state.network.load_state_dict(mesh.split(tensors, config))
        state.sgd.set_rates(json.loads(header["rates"]))
        parameters = dict(state.network.named_parameters())
        for name, velocity in mesh.split(velocities, config).items():
            state.sgd.restore_velocity(parameters[name], velocity)
    except (WeightsError, KeyError, TypeError, RuntimeError, json.JSONDecodeError) as error:
        raise RunError(f"{run.path} cannot be resumed: {error}") from error


def check_same_spec(
    then: dict[str, Any], now: dict[str, Any], run: RunFolder, accept: Collection[str]
) -> None:
    """Raise RunError naming each value that changed since the run started, unless accepted."""
    old, new = then | complete_recipe(then["recipe"]), now | now["recipe"]
    if unknown := set(accept) - set(new):
        raise RunError(f"--accept does not know {', '.join(sorted(unknown))}")
    changed = [k for k in new if k not in {"recipe", *accept} and old.get(k) != new[k]]
    if changed:
        changes = "; ".join(f"{k} was {old.get(k)}, is {new[k]}" for k in changed)
        raise RunError(
            f"{run.path} cannot be resumed with other values: {changes}; "
            f"to resume anyway, add --accept {' '.join(changed)}"
        )

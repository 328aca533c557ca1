"""A run's checkpoint: written whole, taken up by any number of processes, bit for bit."""

import json
from collections.abc import Collection
from dataclasses import asdict
from typing import Any

from torch import Tensor

from model.checkpoint import WeightsError, read_tensors, write_tensors
from storage.runs import Epoch, RunFolder
from training.divergence import check_weights
from training.run_folder import RunError, RunSpec
from training.state import EpochProgress, TrainingState

VELOCITY = "velocity."


def save_checkpoint(run: RunFolder | None, state: TrainingState, told: RunSpec) -> None:
    """Write weights, velocities and history, whole or not at all.

    Called in all processes; written by the first, whose `run` is not None. Raises DivergedError,
    leaving the last checkpoint, when the weights are not finite.
    """
    check_weights(state)
    config, mesh = state.network.config, state.mesh
    weights = mesh.gather(state.network.state_dict(), config)
    named = dict(state.network.named_parameters())
    held = {name: state.sgd.velocity(parameter) for name, parameter in named.items()}
    velocities = mesh.gather({k: v for k, v in held.items() if v is not None}, config)
    if run is None:
        return
    header = {
        "told": json.dumps(told.to_json()),
        "history": json.dumps([asdict(epoch) for epoch in state.history]),
        "partial": json.dumps(asdict(state.progress)),
        "recent": json.dumps(list(state.recent_losses)),
        "rates": json.dumps(state.sgd.rates),
    }
    write_tensors(
        weights | {VELOCITY + k: v for k, v in velocities.items()}, run.checkpoint, header
    )


def load_checkpoint(
    run: RunFolder, state: TrainingState, told: RunSpec, accept: Collection[str] = ()
) -> None:
    """Take up a checkpoint into a fresh state, whatever number of processes it came from.

    Raises RunError when it is damaged, or was told other things than now; what `accept` names may
    differ.
    """
    mesh, config = state.mesh, state.network.config
    try:
        header, tensors = read_tensors(run.checkpoint)
        check_same_spec(json.loads(header["told"]), told.to_json(), run, accept)
        state.history[:] = [
            Epoch(**{"memory": 0.0} | values) for values in json.loads(header["history"])
        ]
        state.progress = EpochProgress(**json.loads(header["partial"]))
        state.recent_losses.extend(json.loads(header["recent"]))
        velocities = {
            k.removeprefix(VELOCITY): tensors.pop(k) for k in list(tensors) if VELOCITY in k
        }
        state.network.load_state_dict(mesh.split(tensors, config))
        state.sgd.set_rates(json.loads(header["rates"]))
        restore_velocities(state, mesh.split(velocities, config))
    except (WeightsError, KeyError, TypeError, RuntimeError, json.JSONDecodeError) as error:
        raise RunError(f"{run.path} cannot be resumed: {error}") from error


def restore_velocities(state: TrainingState, velocities: dict[str, Tensor]) -> None:
    """Give every parameter its velocity back."""
    named = dict(state.network.named_parameters())
    for name, velocity in velocities.items():
        state.sgd.restore_velocity(named[name], velocity)


def check_same_spec(
    then: dict[str, Any], now: dict[str, Any], run: RunFolder, accept: Collection[str]
) -> None:
    """Raise RunError naming what a run was told differently and nobody accepted."""
    old, new = then | then["recipe"], now | now["recipe"]
    if unknown := set(accept) - set(new):
        raise RunError(f"--accept does not know {', '.join(sorted(unknown))}")
    changed = [k for k in new if k not in {"recipe", *accept} and old.get(k) != new[k]]
    if changed:
        said = "; ".join(f"{k} was {old.get(k)}, is {new[k]}" for k in changed)
        raise RunError(
            f"{run.path} cannot be resumed with other values: {said}; "
            f"to go on all the same: --accept {' '.join(changed)}"
        )

"""Which run is gone on with: what it was told, and its last checkpoint."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from storage.home import Home
from training.checkpoints import load_checkpoint
from training.config import PRESETS
from training.options import Job, parse
from training.run_folder import Run, RunError, Told, recipe_of, runs_of
from training.state import State

OPTIONS = (
    "device",
    "precision",
    "compile",
    "deterministic",
    "prepared_gigabytes",
    "checkpoint_seconds",
)
"""What a run keeps beside its recipe, to be resumed alike."""


def read_job(arguments: Sequence[str]) -> Job:
    """Read the command line over what the run to resume was told, or the preset named.

    Raises RecipeError, and RunError when the folder to resume is not a run's.
    """
    job = parse(arguments)
    if job.resume:
        return resumed_job(arguments, Run(Path(job.resume)), job.preset)
    return parse(arguments, Job(recipe=PRESETS[job.preset])) if job.preset in PRESETS else job


def resumed_job(arguments: Sequence[str], run: Run, preset: str) -> Job:
    """What the command line says, over what the run was told."""
    recipe, then = recipe_of(run), run.described()
    if preset not in ("auto", then.get("preset")):
        raise RunError(
            f"{run.folder} cannot be resumed with another preset: it was {then.get('preset')}; "
            "name the values that shall differ"
        )
    told = Job(
        data=then.get("data"),
        preset=then.get("preset", "auto"),
        start=then.get("start_file"),
        recipe=recipe,
        **then.get("options", {}),
    )
    return parse(arguments, told)


def options(job: Job) -> dict[str, Any]:
    """As run.json holds them."""
    return {name: getattr(job, name) for name in OPTIONS}


def finished_before(job: Job, home: Home, told: Told) -> Run | None:
    """With --if-needed, the newest run that did the same to the end and whose weights remain."""
    if not job.if_needed:
        return None
    same = runs_of(home, told)
    return next((r for r in same if r.described()["finished"] and r.weights.exists()), None)


def cut_off(job: Job, home: Home, told: Told) -> Run | None:
    """The run to go on with: the one named, or with --if-needed one of the same."""
    if job.resume:
        return Run(Path(job.resume))
    if not job.if_needed:
        return None
    return next((run for run in runs_of(home, told) if run.checkpoint.exists()), None)


def take_up(run: Run, job: Job, told: Told, state: State) -> None:
    """Read a run's checkpoint; one that has none yet is begun again."""
    if run.checkpoint.exists():
        load_checkpoint(run, state, told, job.accept)
    elif run.described().get("finished"):
        raise RunError(f"{run.folder} is finished: its weights are {run.weights}")

"""Which run is gone on with: what it was told, and its last checkpoint."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from storage.home import Home
from storage.runs import RunFolder
from training.checkpoints import load_checkpoint
from training.config import PRESETS
from training.options import Options, parse_flags
from training.run_folder import RunError, RunSpec, find_runs, read_recipe
from training.state import TrainingState

OPTIONS = (
    "device",
    "precision",
    "compile",
    "deterministic",
    "prepared_gigabytes",
    "checkpoint_seconds",
)
"""What a run keeps beside its recipe, to be resumed alike."""


def parse_options(arguments: Sequence[str]) -> Options:
    """Read the command line over what the run to resume was told, or the preset named.

    Raises RecipeError, and RunError when the folder to resume is not a run's.
    """
    job = parse_flags(arguments)
    if job.resume:
        return resumed_job(arguments, RunFolder(Path(job.resume)), job.preset)
    return (
        parse_flags(arguments, Options(recipe=PRESETS[job.preset]))
        if job.preset in PRESETS
        else job
    )


def resumed_job(arguments: Sequence[str], run: RunFolder, preset: str) -> Options:
    """What the command line says, over what the run was told."""
    recipe, then = read_recipe(run), run.read_description()
    if preset not in ("auto", then.get("preset")):
        raise RunError(
            f"{run.path} cannot be resumed with another preset: it was {then.get('preset')}; "
            "name the values that shall differ"
        )
    told = Options(
        data=then.get("data"),
        preset=then.get("preset", "auto"),
        initial_weights=then.get("start_file"),
        recipe=recipe,
        **then.get("options", {}),
    )
    return parse_flags(arguments, told)


def options_to_json(job: Options) -> dict[str, Any]:
    """As run.json holds them."""
    return {name: getattr(job, name) for name in OPTIONS}


def find_finished_run(job: Options, home: Home, told: RunSpec) -> RunFolder | None:
    """With --if-needed, the newest run that did the same to the end and whose weights remain."""
    if not job.if_needed:
        return None
    same = find_runs(home, told)
    return next((r for r in same if r.read_description()["finished"] and r.weights.exists()), None)


def find_unfinished_run(job: Options, home: Home, told: RunSpec) -> RunFolder | None:
    """The run to go on with: the one named, or with --if-needed one of the same."""
    if job.resume:
        return RunFolder(Path(job.resume))
    if not job.if_needed:
        return None
    return next((run for run in find_runs(home, told) if run.checkpoint.exists()), None)


def resume(run: RunFolder, job: Options, told: RunSpec, state: TrainingState) -> None:
    """Read a run's checkpoint; one that has none yet is begun again."""
    if run.checkpoint.exists():
        load_checkpoint(run, state, told, job.accept)
    elif run.read_description().get("finished"):
        raise RunError(f"{run.path} is finished: its weights are {run.weights}")

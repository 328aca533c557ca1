"""Start a run or resume one: which, by whom, from which checkpoint, and how it ended."""

from collections.abc import Collection, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from rich.console import Console

from model.dataset.folder import ImageFolder
from storage.files import remove_leftovers
from storage.home import Home
from storage.runs import RunFolder
from storage.steps import remove_later_steps
from training.dataset.find_source import Found
from training.dataset.known import find_set_of_content
from training.dataset.listing import describe_changes, read_listings
from training.distributed.mesh import Mesh, PeerLostError
from training.optimisation.divergence import DivergedError
from training.optimisation.state import TrainingState
from training.recipe.config import Recipe
from training.recipe.options import Options
from training.records.callbacks import StoppedError
from training.records.checkpoints import (
    check_same_classes,
    find_sound_position,
    load_checkpoint,
    remove_newer_checkpoints,
)
from training.records.run_folder import (
    RunError,
    RunSpec,
    complete_recipe,
    create_run,
    find_runs,
    lock_run,
)

LOWER_RATE = 0.5
"""Factor of the learning rate that a run which has diverged is advised to be resumed with."""


def start_or_resume(
    options: Options,
    spec: RunSpec,
    preset: str,
    state: TrainingState,
    home: Home,
    console: Console,
    until_end: ExitStack,
) -> RunFolder | None:
    """Start a run, or resume an interrupted one into a fresh state.

    until_end: closes when the run ends; it holds the run's lock. Returns the run, None in all
    processes but rank 0. Raises RunError.
    """
    mesh = state.mesh
    run = find_interrupted_run(options, home, spec)
    if run is None:
        if not mesh.is_main:
            return None
        run = create_run(home, spec, preset)
        until_end.enter_context(lock_run(run))
        file = options.initial_weights
        from_file = file and options.starts_from_weights
        run.update_description(
            start_file=str(Path(str(file)).absolute()) if from_file else file,
            options=options.to_json(),
        )
        return run
    hold_run_lock(run, mesh, until_end)
    accept = options.accept
    if run.read_description().get("finished"):
        check_extension(run, spec.recipe)
        accept = (*accept, "epochs")
    passed_over = load_checkpoint(run, state, spec, accept)
    if not mesh.is_main:
        return None
    for sentence in passed_over:
        console.print(f"Passed over: {sentence}.")
    remove_newer_checkpoints(run, passed_over)
    remove_leftovers(run.path)
    run.update_description(
        **spec.to_json(), options=options.to_json(), finished=False, ended="", ended_because=""
    )
    run.write_epochs(state.history)
    remove_later_steps(run.steps, len(state.history), state.progress.step)
    position = f"epoch {len(state.history)}, step {state.progress.step}"
    console.print(f"Resuming {run.path.name} after {position}.")
    return run


def find_interrupted_run(options: Options, home: Home, spec: RunSpec) -> RunFolder | None:
    """Return the run to resume: the one named, or with --if-needed one of this specification."""
    if options.resume:
        return RunFolder(Path(options.resume))
    if not options.if_needed:
        return None
    return next((run for run in find_runs(home, spec) if run.list_checkpoints()), None)


def find_finished_run(home: Home, spec: RunSpec) -> RunFolder | None:
    """Return the newest finished run of this specification that still has its weights."""
    runs = find_runs(home, spec)
    return next((r for r in runs if r.read_description()["finished"] and r.weights.exists()), None)


def hold_run_lock(run: RunFolder, mesh: Mesh, until_end: ExitStack) -> None:
    """Take the run's lock in rank 0; raise RunError in all processes if another run holds it."""
    refused: RunError | None = None
    if mesh.is_main:
        try:
            until_end.enter_context(lock_run(run))
        except RunError as error:
            refused = error
    if any(mesh.all_reduce_sum(refused is not None)):
        raise refused or PeerLostError(f"{run.path} is being trained by another process")


def check_finished(options: Options) -> None:
    """Raise RunError for a finished run that is to be resumed but not extended.

    Nothing is needed for it but the run's folder: it is said before photographs are looked for and
    the network is built. Whether the run has finished meanwhile is asked again under its lock.
    """
    if options.resume:
        run = RunFolder(Path(options.resume))
        if run.read_description().get("finished"):
            check_extension(run, options.recipe)


def check_extension(run: RunFolder, recipe: Recipe) -> None:
    """Raise RunError unless a finished run has a checkpoint, and epochs left to train."""
    described = run.read_description().get("recipe")
    before = complete_recipe(described if isinstance(described, dict) else {})["epochs"]
    if recipe.epochs <= before and run.weights.exists():
        raise RunError(
            f"{run.path} is finished: its weights are {run.weights}; to train on, name more than "
            f"{before} epochs with --epochs"
        )
    if not run.list_checkpoints():
        raise RunError(
            f"{run.path} is finished and its checkpoint is gone; start a new run from "
            f"{run.weights} with --from"
        )


def check_photographs(run: RunFolder, source: Found, store: Path, accept: Collection[str]) -> None:
    """Raise RunError naming what has changed of a run's photographs, before any is decoded.

    Of shards, and where the prepared set that the run was trained on is gone, nothing is known
    before they are prepared.
    """
    if not isinstance(source, ImageFolder):
        return
    described = run.read_description()
    check_same_classes(described.get("classes"), [name.folder for name in source.classes], run)
    folder = find_set_of_content(store, str(described.get("content")))
    if "content" in accept or folder is None:
        return
    names = [photograph.path for photograph in (*source.train, *source.val)]
    try:
        listings = list(read_listings(folder).values())
    except (OSError, ValueError, KeyError):
        return  # damaged; the content decides later
    if changes := describe_changes(source.root, listings, names):
        raise RunError(
            f"{run.path} cannot be resumed: the photographs in {source.root} have changed "
            f"({changes}); to train on with these, add --accept content"
        )


@contextmanager
def record_end(run: RunFolder | None, recipe: Recipe) -> Iterator[None]:
    """Write into run.json how the run ended, if not well; say how to resume a diverged one.

    run: None in all processes but rank 0, in which alone a divergence is reported.
    """
    try:
        yield
    except DivergedError as error:
        if run is None:
            raise PeerLostError("the run has diverged") from error
        advice = advise_after_divergence(run, recipe)
        write_end(run, "diverged", str(error))
        raise DivergedError(f"{error} {advice}") from error
    except (StoppedError, KeyboardInterrupt) as error:
        write_end(run, "stopped", str(error) or "interrupted")
        raise
    except BaseException as error:
        write_end(run, "failed", str(error).partition("\n")[0])
        raise


def write_end(run: RunFolder | None, ended: str, because: str) -> None:
    """Write how a run ended into run.json, if the disk still takes it."""
    if run is not None:
        with suppress(OSError):
            run.update_description(ended=ended, ended_because=because)


def advise_after_divergence(run: RunFolder, recipe: Recipe) -> str:
    """Return a sentence: the command that resumes the run from before the trouble."""
    position = find_sound_position(run)
    if position is None:
        return "A lower --rate or the preset `small` may help."
    return (
        f"To resume after {position}, at a lower rate: python training/run.py "
        f"--resume {run.path} --rate {recipe.rate * LOWER_RATE:g} --accept rate"
    )

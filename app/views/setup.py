"""The state of a home that is not complete yet: its weights, its index, and what makes them.

Shown in place of a page that needs them. It follows what is going on, and opens the page that was
asked for as soon as it can be shown.
"""

import shlex
import sys
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from flask import render_template, request, url_for

from app import context
from app.inference.state import BUILD_COMMAND, TRAIN_COMMAND, LabelsOnly, NotReady, Ready, Reason
from app.problems import PROBLEM_KINDS
from app.serving.loopback import is_open_switching
from app.views.format import describe_provenance
from app.views.runs.status import determine_run_status
from storage.activity import Activity, read_activity
from storage.home import Home
from storage.runs import Run, read_runs

SETUP_REASONS: tuple[Reason, ...] = ("no-weights", "no-index")
"""What a new home lacks. Everything else that may be missing is damage or a failure."""
RUNNING_HEADINGS: dict[Reason, str] = {
    "no-weights": "The network is being trained",
    "no-index": "The training images are being indexed",
}
"""The page's heading while what is missing is being made."""
ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True, kw_only=True)
class SetupStep:
    """One of the two things that a home needs.

    share: of what is done, 0–1; None if unknown. remaining: estimated seconds; None if unknown.
    command: what to run, if nothing is going on. url, link: of the page that shows more.
    """

    title: str
    status: Literal["ready", "running", "waiting", "stopped", "missing"]
    sentence: str
    share: float | None = None
    remaining: float | None = None
    command: str = ""
    url: str = ""
    link: str = ""


def render_setup_page(reason: Reason) -> str:
    """Return the page that shows what a new home still needs; it replaces the page asked for."""
    weights = describe_weights_step()
    steps = weights, describe_index_step(has_weights=weights.status == "ready")
    kind = PROBLEM_KINDS[reason]
    is_running = any(step.status == "running" for step in steps)
    return render_template(
        "setup.html",
        heading=RUNNING_HEADINGS[reason] if is_running else kind.title,
        sentence="" if is_running else kind.meaning,
        steps=steps,
    )


def describe_missing_step(missing: NotReady | None) -> SetupStep | None:
    """Describe the step that a new home lacks; None where nothing is missing, or something else."""
    if missing is None or missing.reason not in SETUP_REASONS:
        return None
    return describe_weights_step() if missing.reason == "no-weights" else describe_index_step()


def describe_weights_step() -> SetupStep:
    """Describe whether there are weights, or what is making them."""
    title, home = "Weights of the network", context.settings().home
    state = context.loader().get_state()
    serving = None if isinstance(state, NotReady) else state
    if isinstance(serving, Ready | LabelsOnly):
        trained = describe_provenance(serving.predictor.provenance)
        return SetupStep(title=title, status="ready", sentence=trained)
    if home.weights.exists():
        return SetupStep(title=title, status="ready", sentence="selected for the next index")
    step = find_training_step(title, home)
    if (step is None or step.status != "running") and is_demo_starting(home):
        return SetupStep(title=title, status="running", sentence="Starting.")
    if step:
        return step
    ships = any(run.pretrained for run in read_runs(home))
    return SetupStep(
        title=title,
        status="missing",
        sentence="Nothing is training. On the demo photographs this takes about a minute on two "
        "CPU cores; on a large set of your own, hours or a GPU.",
        command=format_command(TRAIN_COMMAND),
        url=url_for("models.show_models") if ships else "",
        link="Or use the weights that ship",
    )


def find_training_step(title: str, home: Home) -> SetupStep | None:
    """Describe the run that is training, or the last one if it stopped; None without any."""
    runs = [run for run in read_runs(home) if not run.pretrained]
    now = datetime.now(UTC)
    for run in runs:
        status = determine_run_status(run, now)
        if status.name != "running":
            continue
        share = (status.step.step / status.step.steps) if status.step and status.step.steps else 0.0
        done, planned = len(run.epochs), run.planned_epochs
        return SetupStep(
            title=title,
            status="running",
            sentence=describe_epoch(run),
            share=min(1.0, (done + share) / planned) if planned else None,
            remaining=status.remaining,
            url=url_for("training.show_run", name=run.name),
            link="Follow the run",
        )
    if activity := read_activity(home.training_activity):
        return describe_activity(title, activity)
    if not runs or runs[0].finished:
        return None
    command = TRAIN_COMMAND
    if runs[0].resumable:
        command += f" --resume {shlex.quote(str(locate_run(runs[0])))}"
    return SetupStep(
        title=title,
        status="stopped",
        sentence=f"Run {runs[0].name} stopped after {len(runs[0].epochs)} epochs"
        + (" with an error; the terminal that it ran in says which." if runs[0].ended else "."),
        command=format_command(command),
        url=url_for("training.show_run", name=runs[0].name),
        link="Show the run",
    )


def describe_epoch(run: Run) -> str:
    """Say which epoch a run is in."""
    of = f" of {run.planned_epochs}" if run.planned_epochs else ""
    epoch = len(run.epochs) + 1
    if run.planned_epochs and epoch > run.planned_epochs:
        return "Training is done; measuring the errors."
    return f"Training, epoch {epoch}{of}."


def locate_run(run: Run) -> Path:
    """Return a run's folder as a command names it: in full only where that is shown."""
    return run.folder.path if is_local() else Path("runs") / run.name


def describe_index_step(*, has_weights: bool = True) -> SetupStep:
    """Describe whether the index is being built, or what to run."""
    title, home = "The index of the training images", context.settings().home
    if activity := read_activity(home.index_activity):
        return describe_activity(title, activity)
    if not has_weights:
        sentence = "Built from the weights, once there are some."
        return SetupStep(title=title, status="waiting", sentence=sentence)
    if is_demo_starting(home):
        return SetupStep(title=title, status="running", sentence="Starting.")
    return SetupStep(
        title=title,
        status="missing",
        sentence="Nothing is building it.",
        command=format_command(BUILD_COMMAND),
    )


def is_demo_starting(home: Home) -> bool:
    """Whether `make demo` has started a command that has not said yet what it does."""
    return read_activity(home.demo_activity) is not None


def describe_activity(title: str, activity: Activity) -> SetupStep:
    """Describe a step that is going on."""
    known = 0 < activity.done <= activity.total
    count = f": {activity.done:,} of {activity.total:,}" if activity.total else ""
    return SetupStep(
        title=title,
        status="running",
        sentence=f"{activity.step}{count}.",
        share=activity.done / activity.total if known else None,
        remaining=activity.estimate_remaining_seconds(time.time()),
    )


def is_local() -> bool:
    """Whether the page is for this machine's own user, who may see where things lie on it."""
    return is_open_switching(context.settings(), request.host)


def format_command(command: str) -> str:
    """Return a command as it works when typed on this machine; for others, as documented."""
    if not is_local():
        return command
    program, rest = command.split(" ", 1)
    home = context.settings().home.root
    where = "" if home == ROOT / "var" else f"ALEXNET_HOME={shlex.quote(str(home))} "
    binary = Path(sys.executable).with_name(program)
    return f"cd {shlex.quote(str(ROOT))} && {where}{shlex.quote(str(binary))} {rest}"

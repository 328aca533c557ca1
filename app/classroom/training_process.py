"""A network trained on a data set: `training/run.py` as a process of its own, one at a time.

It is no child that must end with the server: it has its own session and log, and holds the lock
that keeps others from starting, whose descriptor it inherits. So a server that is killed leaves it
running, and the next one finds it.
"""

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from app.classroom.datasets import ClassroomDataset, DatasetError, parse_moment
from model.runtime.prepared import is_torch_installed
from storage.activity import is_held
from storage.files import open_and_lock, write_atomically
from storage.home import Home
from storage.runs import Run, read_runs
from storage.tolerant_json import bounded_text, natural_number, read_bounded, read_json_object

ROOT = Path(__file__).resolve().parents[2]
SCRATCH = "scratch"
"""What training/run.py calls random weights."""
MAX_EPOCHS = 1000
NICENESS = 10
"""So that requests come first."""
MAX_JSON_BYTES = 4096
LOG_LINES, LOG_BYTES = 8, 4096
"""Of the end of the log, which says why a run did not start."""


@dataclass(frozen=True, kw_only=True)
class StartedTraining:
    """What was started last. resumed: the run that it resumed; empty for a new one."""

    dataset: str
    pid: int
    started_at: datetime | None
    resumed: str
    stopping: bool


@dataclass(frozen=True, kw_only=True)
class TrainingProgress:
    """How far the training on a data set is.

    running: whether it is going on, and `stopping` whether it has been asked to stop. run: the
    newest run; None if there is none yet. log: the last lines of what it said, if it ended without
    a result. elsewhere: what else trains, so that this cannot; empty if nothing does.
    """

    running: bool
    stopping: bool
    run: Run | None
    log: tuple[str, ...]
    elsewhere: str


def start_training(
    home: Home, dataset: ClassroomDataset, start_from: Path | None, epochs: int
) -> None:
    """Start to train on a data set. start_from: a weights file; None for random weights.

    Raises DatasetError, and OSError if the process cannot be started.
    """
    if not 1 <= epochs <= MAX_EPOCHS:
        raise DatasetError(f"Choose 1 to {MAX_EPOCHS} epochs.")
    words = ["--data", str(dataset.folder), "--from", str(start_from or SCRATCH)]
    start_process(home, dataset, [*words, "--epochs", str(epochs)])


def resume_training(home: Home, dataset: ClassroomDataset) -> None:
    """Resume the newest run on a data set. Raises DatasetError and OSError."""
    run = find_newest_run(home, dataset)
    if run is None or run.finished or not run.resumable:
        raise DatasetError("There is no run that can be resumed; start a new one.", 409)
    start_process(home, dataset, ["--resume", str(run.folder.path)], resumed=run.name)


def start_process(
    home: Home, dataset: ClassroomDataset, words: Sequence[str], *, resumed: str = ""
) -> None:
    """Run training/run.py with these words, unless training goes on already."""
    if not is_torch_installed():
        raise DatasetError("Training needs torch, which is not installed on this server.", 409)
    if elsewhere := find_other_run(home):
        raise DatasetError(f"{elsewhere} is training; wait for it, or stop it first.", 409)
    lock = take_lock(home)
    try:
        # Nobody may stop what the last one's number is given to.
        locate_started(home).unlink(missing_ok=True)
        with locate_log(dataset).open("ab" if resumed else "wb") as log:
            process = subprocess.Popen(
                [sys.executable, "training/run.py", *words],
                cwd=ROOT,
                env=os.environ | {"ALEXNET_HOME": str(home.root)},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                pass_fds=(lock,),
            )
        with suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, process.pid, NICENESS)
        # Once it has ended; if this server ends first, somebody else sees to it.
        threading.Thread(target=process.wait, daemon=True).start()
        write_started(
            home,
            StartedTraining(
                dataset=dataset.name,
                pid=process.pid,
                started_at=datetime.now(UTC),
                resumed=resumed,
                stopping=False,
            ),
        )
    finally:
        os.close(lock)


def take_lock(home: Home) -> int:
    """Take the lock; return its descriptor. Raises DatasetError if a training holds it."""
    while True:
        try:
            return open_and_lock(locate_lock(home), wait=False)
        except BlockingIOError as error:
            # Whoever only looks whether it is held holds it for a moment, too.
            if is_held(locate_lock(home)):
                message = "Training goes on already; wait for it, or stop it first."
                raise DatasetError(message, 409) from error


def stop_training(home: Home, dataset: ClassroomDataset) -> None:
    """Ask the training on a data set to save a checkpoint and end. Raises DatasetError."""
    started = read_started(home)
    if started is None or started.dataset != dataset.name or not is_held(locate_lock(home)):
        raise DatasetError("No training goes on with this data set.", 409)
    with suppress(ProcessLookupError):
        os.kill(started.pid, signal.SIGTERM)
    write_started(home, StartedTraining(**vars(started) | {"stopping": True}))


def read_training_progress(home: Home, dataset: ClassroomDataset) -> TrainingProgress:
    """Read how far the training on a data set is."""
    started, is_running = read_started(home), is_held(locate_lock(home))
    own = started if started and started.dataset == dataset.name else None
    run = find_newest_run(home, dataset)
    if own and run and not own.resumed and is_before(run.started_at, own.started_at):
        run = None  # the new one has no folder yet
    elsewhere = "" if own and is_running else find_other_run(home)
    if is_running and not own:
        elsewhere = elsewhere or (f"The data set {started.dataset}" if started else "Another run")
    failed = own is not None and not is_running and not own.stopping and has_failed(run, own)
    return TrainingProgress(
        running=own is not None and is_running,
        stopping=own is not None and own.stopping and is_running,
        run=run,
        log=read_log(dataset) if failed else (),
        elsewhere=elsewhere,
    )


def has_failed(run: Run | None, started: StartedTraining) -> bool:
    """Whether a process that has ended left no run, one that failed, or the old one as it was."""
    if run is None or run.ended == "failed":
        return True
    return bool(started.resumed) and is_before(run.last_write_at, started.started_at)


def is_before(moment: datetime | None, started_at: datetime | None) -> bool:
    """Whether a moment is before another, which is known to the second."""
    return moment is not None and started_at is not None and moment < started_at


def find_newest_run(home: Home, dataset: ClassroomDataset) -> Run | None:
    """Find the newest run on a data set; None if there is none.

    Not one on a data set that had its name before.
    """
    for run in read_runs(home):
        if run.data != dataset.name or is_before(run.started_at, dataset.created_at):
            continue
        if run.folder.read_description().get("data") == str(dataset.folder):
            return run
    return None


def find_other_run(home: Home) -> str:
    """Name a run that a process trains; empty if none does."""
    training = (run.name for run in read_runs(home) if is_held(run.folder.lock))
    return next((f"Run {name}" for name in training), "")


def read_log(dataset: ClassroomDataset) -> tuple[str, ...]:
    """Return the last lines of what the last process said."""
    text = read_bounded(locate_log(dataset), LOG_BYTES, tail_only=True) or b""
    lines = [line for line in text.decode(errors="replace").splitlines() if line.strip()]
    return tuple(lines[-LOG_LINES:])


def read_started(home: Home) -> StartedTraining | None:
    """Read what was started last; None if nothing is known of it."""
    content = read_json_object(locate_started(home), MAX_JSON_BYTES)
    pid = natural_number(content.get("pid"))
    if not pid:
        return None
    return StartedTraining(
        dataset=bounded_text(content.get("dataset")),
        pid=pid,
        started_at=parse_moment(bounded_text(content.get("started_at"))),
        resumed=bounded_text(content.get("resumed")),
        stopping=content.get("stopping") is True,
    )


def write_started(home: Home, started: StartedTraining) -> None:
    """Write what was started. Raises OSError."""
    content = vars(started) | {"started_at": f"{started.started_at:%Y-%m-%dT%H:%M:%SZ}"}
    write_atomically(locate_started(home), json.dumps(content))


def locate_lock(home: Home) -> Path:
    """Return the file that the training process holds locked."""
    return home.datasets / ".training.lock"


def locate_started(home: Home) -> Path:
    """Return the file that says what was started last."""
    return home.datasets / ".training.json"


def locate_log(dataset: ClassroomDataset) -> Path:
    """Return the file with what the training process says."""
    return dataset.folder / "training.log"

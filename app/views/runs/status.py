"""Whether a run is finished, running or stopped, and how long it still needs.

A run that stops records it. One that was killed could not: it writes after every epoch and saves a
checkpoint every few minutes, and one that has been silent for clearly longer has stopped.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta
from statistics import fmean
from typing import Literal

from storage.runs import Epoch, Run
from storage.steps import StepRecord, read_last_step
from storage.tolerant_json import finite_number

CHECKPOINT_SECONDS = 300.0
"""How often a checkpoint is saved where a run does not say."""
MAX_CHECKPOINT_SECONDS = 24 * 3600.0
SLACK_SECONDS = 60.0
"""By which any writing may be late."""
MAX_VALIDATION_SECONDS = 1800.0
"""Time that validation may take after an epoch, during which nothing is written."""
RECENT_EPOCHS = 3
"""Epochs from whose duration the remaining time is estimated."""


@dataclass(frozen=True, kw_only=True)
class RunStatus:
    """Whether a run is at work.

    remaining: estimated seconds until the last planned epoch; None when there are none or the
    estimate is impossible. step: the last record of the epoch that a running run is in; None
    between epochs.
    """

    name: Literal["finished", "running", "stopped"]
    remaining: float | None = None
    step: StepRecord | None = None


def determine_run_status(run: Run, now: datetime) -> RunStatus:
    """Determine a run's status at a moment."""
    if run.finished:
        return RunStatus(name="finished")
    if run.ended:
        return RunStatus(name="stopped")
    longest = timedelta(seconds=compute_longest_silence(run))
    if run.last_write_at is None or now - run.last_write_at > longest:
        return RunStatus(name="stopped")
    step = read_current_step(run)
    if step is None or step.remaining is None:
        return RunStatus(name="running", remaining=estimate_remaining_seconds(run, now), step=step)
    spent = max(0.0, now.timestamp() - step.time)
    return RunStatus(name="running", remaining=max(0.0, step.remaining - spent), step=step)


def read_current_step(run: Run) -> StepRecord | None:
    """Read the last record of the epoch that a run is in; None if it has written none yet."""
    step = read_last_step(run.folder.steps)
    done = run.last_epoch.epoch if run.last_epoch else 0
    return step if step is not None and step.epoch > done else None


def compute_longest_silence(run: Run) -> float:
    """Return the seconds without writing after which a run counts as stopped.

    Two intervals of its checkpoints or epochs, whichever are shorter, and the time for validation.
    """
    setting = finite_number(run.options.get("checkpoint_seconds"))
    interval = CHECKPOINT_SECONDS if setting is None else max(setting, 0.0)
    interval = min(interval, MAX_CHECKPOINT_SECONDS)
    longest_epoch = max(list_epoch_seconds(run.epochs), default=0.0)
    if not longest_epoch:
        return SLACK_SECONDS + 2 * interval
    validation = min(longest_epoch, MAX_VALIDATION_SECONDS)
    return SLACK_SECONDS + 2 * min(interval, longest_epoch) + validation


def estimate_remaining_seconds(run: Run, now: datetime) -> float | None:
    """Estimate the seconds until the last planned epoch from the duration of the last few."""
    recent = list_epoch_seconds(run.epochs[-RECENT_EPOCHS:])
    if run.planned_epochs is None or run.last_epoch is None or not recent:
        return None
    left = run.planned_epochs - run.last_epoch.epoch
    epoch = fmean(recent)
    spent = (now - run.last_epoch_at).total_seconds() if run.last_epoch_at else 0.0
    return max(left * epoch - min(max(spent, 0.0), epoch), 0.0) if left > 0 else None


def list_epoch_seconds(epochs: tuple[Epoch[float | None], ...]) -> list[float]:
    """Return the durations of epochs, where known."""
    return [e.seconds for e in epochs if e.seconds is not None and e.seconds > 0]

"""How far a run is: finished, running or stopped, and what remains. Told by what it wrote when.

Nothing that a run writes says that it is at work. It writes after every epoch and saves a
checkpoint every few minutes; whichever is silent for clearly longer than that has stopped.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta
from statistics import fmean
from typing import Literal

from storage.runs import Epoch, Run
from storage.tolerant_json import finite_number

CHECKPOINT_SECONDS = 300.0
"""How often a checkpoint is saved where a run does not say."""
SLACK = 60.0
"""Seconds that any writing may be late."""
MOST_JUDGING = 1800.0
"""Seconds that judging on the validation images, in which nothing is written, may take."""
RECENT = 3
"""Epochs from whose time the rest is estimated."""

Name = Literal["finished", "running", "stopped"]


@dataclass(frozen=True, kw_only=True)
class State:
    """How far a run is.

    remaining: seconds until the last of the planned epochs, as estimated; None when nothing
    remains or nothing is known.
    """

    name: Name
    remaining: float | None = None


def state_of(run: Run, now: datetime) -> State:
    """Tell how far a run is at a moment."""
    if run.finished:
        return State(name="finished")
    if run.last_write_at is None or now - run.last_write_at > timedelta(
        seconds=longest_silence(run)
    ):
        return State(name="stopped")
    return State(name="running", remaining=remaining(run, now))


def longest_silence(run: Run) -> float:
    """Seconds after which a run that has written nothing is taken for stopped.

    Two of its checkpoints or epochs, whichever come more often, and the time for judging.
    """
    saving = finite_number(run.options.get("checkpoint_seconds"))
    saving = min(CHECKPOINT_SECONDS if saving is None else max(saving, 0.0), 24 * 3600.0)
    epoch = max(durations(run.epochs), default=0.0)
    if not epoch:
        return SLACK + 2 * saving
    return SLACK + 2 * min(saving, epoch) + min(epoch, MOST_JUDGING)


def remaining(run: Run, now: datetime) -> float | None:
    """Seconds until the last epoch, by the time of the last few and what this one has had."""
    recent = durations(run.epochs[-RECENT:])
    if run.planned_epochs is None or run.last_epoch is None or not recent:
        return None
    left = run.planned_epochs - run.last_epoch.epoch
    epoch = fmean(recent)
    spent = (now - run.last_epoch_at).total_seconds() if run.last_epoch_at else 0.0
    return max(left * epoch - min(max(spent, 0.0), epoch), 0.0) if left > 0 else None


def durations(epochs: tuple[Epoch[float | None], ...]) -> list[float]:
    """The seconds that epochs took, where known."""
    return [e.seconds for e in epochs if e.seconds is not None and e.seconds > 0]

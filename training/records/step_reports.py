"""What a run says between its epochs: a line in steps.jsonl every few seconds, the time left."""

import math
import time
from collections.abc import Sequence
from statistics import fmean

from rich.console import Console

from storage.runs import RunFolder
from storage.steps import StepRecord, append_step
from training.optimisation.device import read_peak_memory
from training.optimisation.norms import Norms
from training.optimisation.state import EpochProgress, TrainingState
from training.records.hooks import Hook
from training.records.run_folder import RunSpec

REPORT_SECONDS = 5.0
"""How often a line is written to steps.jsonl."""
LOG_SECONDS = 60.0
"""How often a line is printed where no terminal shows a bar, as under nohup."""
RECENT_EPOCHS = 3
"""Epochs from whose duration the time left is estimated."""


class StepReporter:
    """Collects the steps between two reports, and reports on them; in rank 0 it writes.

    The first step after a start is reported on at once, so that whoever looks sees that it works.
    """

    def __init__(
        self,
        run: RunFolder | None,
        spec: RunSpec,
        console: Console,
        hooks: Sequence[Hook],
        seconds: float,
    ) -> None:
        self.run, self.spec, self.console, self.hooks = run, spec, console, hooks
        self.seconds = seconds
        self.losses: list[float] = []
        self.reported = float("-inf")
        self.printed = time.monotonic()
        self.epoch = 0
        self.before = EpochProgress()
        self.remaining: float | None = None

    def add(self, loss: float) -> None:
        """Count a step."""
        self.losses.append(loss)

    def describe(self, step: int, steps: int, loss: float) -> str:
        """Describe a step for the progress bar, with the time left of the run."""
        left = "" if self.remaining is None else f"  {format_time_left(self.remaining)}"
        return "validation" if step == steps else f"loss {loss:.3f}{left}"

    def is_due(self) -> bool:
        """Return whether a report is due."""
        return time.monotonic() - self.reported >= self.seconds

    def report(self, state: TrainingState, steps: int, images: int, norms: Norms) -> None:
        """Write a record of the steps since the last report. images: in a batch."""
        progress, epoch = state.progress, len(state.history) + 1
        if epoch != self.epoch:
            self.epoch = epoch
            # The steps done in this epoch before this process went on with it were reported.
            self.before = EpochProgress()
        # Of a run resumed within an epoch, the first record covers its first step alone.
        count = min(progress.step - self.before.step, len(self.losses))
        share = count / max(1, progress.step - self.before.step)
        seconds = (progress.seconds - self.before.seconds) * share
        self.remaining = estimate_remaining(state, self.spec.recipe.epochs, steps)
        finite = [loss for loss in self.losses if math.isfinite(loss)]
        record = StepRecord(
            time=time.time(),
            epoch=epoch,
            step=progress.step,
            steps=steps,
            images=progress.step * images,
            loss=fmean(finite) if finite else None,
            images_per_second=count * images / seconds if seconds > 0 else None,
            data_wait=(progress.wait - self.before.wait) * share,
            memory=read_peak_memory(state.device),
            remaining=self.remaining,
            rates=state.sgd.rates,
            gradient_norms=norms.gradients,
            update_norms=norms.updates,
            loss_scale=state.loss_scale.value if self.spec.precision == "f16" else None,
        )
        self.before = EpochProgress(progress.step, progress.loss, progress.wait, progress.seconds)
        self.losses.clear()
        self.reported = time.monotonic()
        if self.run is not None:
            append_step(self.run.steps, record)
            for hook in self.hooks:
                hook.on_step(record)
            self.print_line(record)

    def print_line(self, record: StepRecord) -> None:
        """Print the record now and then, where no bar shows it."""
        if self.console.is_terminal or time.monotonic() - self.printed < LOG_SECONDS:
            return
        self.printed = time.monotonic()
        self.console.print(format_step(record, self.spec.recipe.epochs))


def estimate_remaining(state: TrainingState, epochs: int, steps: int) -> float | None:
    """Estimate the seconds until the last planned epoch; None while nothing is known.

    steps: of an epoch. The last epochs tell how long one lasts, else the steps of the first.
    """
    progress, done = state.progress, state.history
    recent = [epoch.seconds for epoch in done[-RECENT_EPOCHS:]]
    if not recent and not progress.step:
        return None
    whole = fmean(recent) if recent else progress.seconds / progress.step * steps
    return max(0.0, (epochs - len(done)) * whole - min(progress.seconds, whole))


def format_time_left(seconds: float) -> str:
    """Format the time left with its two largest units, such as "5 d 3 h left"."""
    minutes, _ = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    if days:
        return f"{days} d {hours} h left"
    if hours:
        return f"{hours} h {minutes} min left"
    return f"{minutes} min left" if minutes else f"{round(seconds)} s left"


def format_step(record: StepRecord, epochs: int) -> str:
    """Format a record as a line of the log."""
    parts = [f"epoch {record.epoch:3d}/{epochs}", f"step {record.step:,}/{record.steps:,}"]
    if record.loss is not None:
        parts.append(f"loss {record.loss:.3f}")
    if record.images_per_second is not None:
        parts.append(f"{record.images_per_second:.1f} images/s")
    if record.remaining is not None:
        parts.append(format_time_left(record.remaining))
    return "  ".join(parts)

"""torch's profile of some steps of a run."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from torch import profiler

from storage.runs import RunFolder
from training.records.callbacks import Callbacks

SKIPPED_STEPS = 3
"""Steps before the profile: in them memory is allocated, and kernels are chosen or compiled."""


@contextmanager
def profile_steps(run: RunFolder | None, steps: int, callbacks: Callbacks) -> Iterator[Callbacks]:
    """Yield callbacks that profile so many steps of rank 0 into the run's profile.json.

    A run of fewer steps leaves a profile of those that it has. run: None in the other processes.
    """
    if run is None or not steps:
        yield callbacks
        return
    target, written = run.profile, list[bool]()

    def write(profile: Any) -> None:
        profile.export_chrome_trace(str(target))
        written.append(True)

    schedule = profiler.schedule(wait=max(0, SKIPPED_STEPS - 1), warmup=1, active=steps, repeat=1)
    with profiler.profile(schedule=schedule, on_trace_ready=write) as profile:

        def on_step(step: int, count: int, loss: float) -> None:
            callbacks.on_step(step, count, loss)
            if not written:
                profile.step()

        yield replace(callbacks, on_step=on_step)

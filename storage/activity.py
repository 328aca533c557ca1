"""What a long command is doing now: a small file that it holds locked while it lives.

The application's pages show it. After a kill the file stays, but the lock is gone with its holder,
so that it reads as no activity.
"""

import fcntl
import json
import math
import os
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from storage.files import lock_file
from storage.progress import Report
from storage.tolerant_json import bounded_text, finite_number, natural_number, read_json_object

MAX_BYTES = 4096
WRITE_SECONDS = 0.5
"""Between two writings of the same step's progress."""


@dataclass(frozen=True, kw_only=True)
class Activity:
    """One step of a command. done of total: what is finished of it; total 0: unknown."""

    step: str
    done: int
    total: int
    since: float
    """When the step began, in seconds since 1970."""

    def estimate_remaining_seconds(self, now: float) -> float | None:
        """Estimate how long the step still takes from how long it took so far."""
        if not 0 < self.done <= self.total:
            return None
        return max(0.0, now - self.since) * (self.total - self.done) / self.done


@contextmanager
def record_activity(file: Path, report: Report) -> Iterator[Report]:
    """Yield a report that also records each step in a file, which is deleted at the end.

    Nothing is recorded if another process records there already, or if the file cannot be written:
    what is done is worth more than its record.
    """
    with ExitStack() as held:
        recorded = False
        with suppress(OSError):
            file.parent.mkdir(parents=True, exist_ok=True)
            # Asked first, since trying to lock a file empties it.
            if not is_held(file):
                held.enter_context(lock_file(file, wait=False))
                recorded = True
        if recorded:
            yield lambda step, total: record_step(file, step, total, report(step, total))
        else:
            yield report


def record_step(
    file: Path, step: str, total: int, report_done: Callable[[int], None]
) -> Callable[[int], None]:
    """Record that a step begins; return what reports and records how much of it is done."""
    since, written = time.time(), -math.inf

    def record_done(done: int) -> None:
        nonlocal written
        report_done(done)
        moment = time.monotonic()
        if done >= total or moment - written >= WRITE_SECONDS:
            written = moment
            write_activity(file, Activity(step=step, done=done, total=total, since=since))

    write_activity(file, Activity(step=step, done=0, total=total, since=since))
    return record_done


def write_activity(file: Path, activity: Activity) -> None:
    """Write a record, if it can be: a full disk must not end a command for its progress.

    In place, since the lock is the file's; readers tolerate what is half written.
    """
    with suppress(OSError):
        file.write_text(json.dumps(asdict(activity)))


def read_activity(file: Path) -> Activity | None:
    """Read what the file's holder is doing; None if no process holds it."""
    if not is_held(file):
        return None
    values = read_json_object(file, MAX_BYTES)
    return Activity(
        step=bounded_text(values.get("step")),
        done=natural_number(values.get("done")) or 0,
        total=natural_number(values.get("total")) or 0,
        since=finite_number(values.get("since")) or time.time(),
    )


def is_held(file: Path) -> bool:
    """Whether a process holds the lock of a file."""
    try:
        opened = os.open(file, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        # Shared, so that readers do not take each other for the holder; its holder waits for them.
        fcntl.flock(opened, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(opened)
    return False

"""Whether the clock can be believed when it says that uploads are old.

A clock set forward by mistake would make all of them look expired. It is compared with the time
that the machine has been running, which nobody sets, and after a leap it has to stay where it is
for a day before anything is deleted.
"""

import json
import time
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from storage.files import write_atomically
from storage.tolerant_json import read_json_object

MAX_DRIFT_SECONDS = 600.0
"""How far the clock may move by itself or by its time server between two looks."""
MAX_ABSENCE_SECONDS = 40 * 24 * 3600.0
"""How long the machine may have been off without the clock becoming suspect."""
SETTLING_SECONDS = 24 * 3600.0
MAX_BYTES = 1000
BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


@dataclass(frozen=True, kw_only=True)
class ClockReading:
    """A look at the clock.

    boot: which start of the machine it was in. running: seconds since then. clock: seconds of the
    clock. leapt_at: `running` when it last leapt; None if it never has.
    """

    boot: str
    running: float
    clock: float
    leapt_at: float | None = None

    @property
    def is_settled(self) -> bool:
        """Whether the clock can be believed."""
        return self.leapt_at is None or self.running - self.leapt_at >= SETTLING_SECONDS


def read_clock() -> ClockReading:
    """Look at the clock now."""
    boot = ""
    with suppress(OSError):
        boot = BOOT_ID.read_text(encoding="ascii").strip()
    running = time.clock_gettime(getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC))
    return ClockReading(boot=boot, running=running, clock=time.time())


def compare_readings(earlier: ClockReading | None, now: ClockReading) -> ClockReading:
    """Return the reading of now, with when the clock last leapt."""
    if earlier is None:
        return now
    if earlier.boot == now.boot:
        passed = now.running - earlier.running
        leapt = abs(now.clock - earlier.clock - passed) > MAX_DRIFT_SECONDS
        since = now.running if leapt else earlier.leapt_at
    else:
        off = now.clock - earlier.clock
        leapt = not -MAX_DRIFT_SECONDS <= off <= MAX_ABSENCE_SECONDS
        # A leap before the restart still has to settle, from the restart on.
        since = now.running if leapt else None if earlier.is_settled else 0.0
    return ClockReading(boot=now.boot, running=now.running, clock=now.clock, leapt_at=since)


def note_clock(file: Path) -> ClockReading:
    """Compare the clock with the last look, which `file` holds, and write this one there.

    Raises OSError.
    """
    reading = compare_readings(read_last_reading(file), read_clock())
    write_atomically(file, json.dumps(asdict(reading)))
    return reading


def read_last_reading(file: Path) -> ClockReading | None:
    """Return what the file holds; None if it does not exist or is damaged."""
    found = read_json_object(file, MAX_BYTES)
    try:
        leapt_at = found["leapt_at"]
        return ClockReading(
            boot=str(found["boot"]),
            running=float(found["running"]),
            clock=float(found["clock"]),
            leapt_at=None if leapt_at is None else float(leapt_at),
        )
    except (KeyError, TypeError, ValueError):
        return None

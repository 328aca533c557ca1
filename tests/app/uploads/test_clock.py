"""A clock that leaps is not believed until it has stayed where it is."""

from dataclasses import replace
from pathlib import Path

import pytest

from app.uploads import clock
from app.uploads.clock import (
    MAX_ABSENCE_SECONDS,
    SETTLING_SECONDS,
    ClockReading,
    compare_readings,
    note_clock,
)

MONTH = 30 * 24 * 3600.0
FIRST = ClockReading(boot="a", running=1000.0, clock=1_800_000_000.0)


def later(seconds: float, *, leap: float = 0.0, boot: str = "a") -> ClockReading:
    running = FIRST.running + seconds if boot == "a" else 50.0
    return ClockReading(boot=boot, running=running, clock=FIRST.clock + seconds + leap)


@pytest.mark.parametrize("seconds", [0.0, 600.0, MONTH])
def test_a_clock_that_goes_on_is_believed(seconds: float) -> None:
    assert compare_readings(None, FIRST).is_settled
    assert compare_readings(FIRST, later(seconds)).is_settled
    assert compare_readings(FIRST, later(seconds, leap=60)).is_settled


@pytest.mark.parametrize("leap", [MONTH, -MONTH, 3600.0])
def test_a_leap_is_noticed_and_settles_in_a_day(leap: float) -> None:
    leapt = compare_readings(FIRST, later(600, leap=leap))
    assert not leapt.is_settled
    soon = compare_readings(leapt, later(SETTLING_SECONDS, leap=leap))
    assert not soon.is_settled
    assert compare_readings(soon, later(600 + SETTLING_SECONDS, leap=leap)).is_settled
    # Set right again, it has leapt again.
    assert not compare_readings(soon, later(SETTLING_SECONDS + 60)).is_settled


def test_a_restart_is_no_leap_but_a_long_absence_is() -> None:
    assert compare_readings(FIRST, later(3600, boot="b")).is_settled
    assert not compare_readings(FIRST, later(MAX_ABSENCE_SECONDS + 1, boot="b")).is_settled
    assert not compare_readings(FIRST, later(-3600, boot="b")).is_settled


def test_a_leap_before_a_restart_has_still_to_settle() -> None:
    leapt = compare_readings(FIRST, later(600, leap=MONTH))
    restarted = compare_readings(leapt, replace(later(700, leap=MONTH, boot="b"), running=60.0))
    assert not restarted.is_settled
    day = replace(
        restarted, running=60 + SETTLING_SECONDS, clock=restarted.clock + SETTLING_SECONDS
    )
    assert compare_readings(restarted, day).is_settled


@pytest.mark.parametrize("content", [None, "", "{}", '{"boot": 1}', "nonsense"])
def test_the_last_look_is_kept_and_a_damaged_one_is_none(
    tmp_path: Path, content: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "clock.json"
    if content is not None:
        file.write_text(content)
    assert note_clock(file).is_settled
    real = clock.time.time
    monkeypatch.setattr(clock.time, "time", lambda: real() + MONTH)
    assert not note_clock(file).is_settled

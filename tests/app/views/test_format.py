"""How numbers, times and sizes are written."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from app.views.format import (
    format_distance,
    format_duration,
    format_loss,
    format_milliseconds,
    format_percent,
    format_scientific,
    format_size,
    format_time_ago,
)

NOW = datetime(2026, 3, 4, 12, 0, tzinfo=UTC)


@pytest.mark.parametrize(
    ("format_value", "value", "written"),
    [
        (format_size, 812, "812 bytes"),
        (format_size, 999_499, "999 kB"),
        (format_size, 999_500, "1.0 MB"),
        (format_size, 12_340_000, "12.3 MB"),
        (format_percent, 0.912, "91.2 %"),
        (format_percent, 0.0004, "<0.1 %"),
        (format_percent, 0.0, "0.0 %"),
        (format_distance, 3.14159, "3.14"),
        (format_distance, 31.4159, "31.4"),
        (format_distance, 31415.9, "31,416"),
        (format_loss, 2.30259, "2.303"),
        (format_loss, 1e6, "10⁶"),
        (format_scientific, 0.01, "0.01"),
        (format_scientific, 0.0000125, "1.25 · 10⁻⁵"),
        (format_milliseconds, 38.4, "38 ms"),
        (format_milliseconds, 0.2, "<1 ms"),
        (format_duration, None, "–"),
        (format_duration, 0.3, "<1 s"),
        (format_duration, 38, "38 s"),
        (format_duration, 12 * 60, "12 min"),
        (format_duration, 3 * 3600 + 20 * 60, "3 h 20 min"),
        (format_duration, 52 * 3600, "2 d 4 h"),
    ],
)
def test_values_are_rounded_and_have_a_unit(
    format_value: Callable[[Any], str], value: float | None, written: str
) -> None:
    text = format_value(value).replace("\u2009", " ")
    assert text.replace("< ", "<") == written


@pytest.mark.parametrize(
    ("ago", "written"),
    [
        (timedelta(seconds=20), "less than a minute ago"),
        (timedelta(minutes=3), "3 minutes ago"),
        (timedelta(hours=1), "1 hour ago"),
        (timedelta(days=1200), "1,200 days ago"),
    ],
)
def test_an_age_is_in_its_largest_unit(ago: timedelta, written: str) -> None:
    assert format_time_ago(NOW - ago, NOW) == written

"""How times are written on the pages."""

from datetime import datetime

from app.views.format import THIN

MINUTE, HOUR, DAY = 60, 3600, 86_400
UNITS = ((DAY, "day", "days"), (HOUR, "hour", "hours"), (MINUTE, "minute", "minutes"))


def ago(moment: datetime | None, now: datetime) -> str:
    """Say how long ago something was, to the largest unit: 3 minutes ago."""
    if moment is None:
        return "at no known time"
    seconds = (now - moment).total_seconds()
    for unit, one, several in UNITS:
        if seconds >= unit:
            count = int(seconds // unit)
            return f"{count:,} {one if count == 1 else several} ago"
    return "less than a minute ago"


def duration(seconds: float | None) -> str:
    """Write a span with two units at most: 38 s, 12 min, 3 h 20 min, 2 d 4 h."""
    if seconds is None:
        return "–"
    if seconds < 1:
        return f"<{THIN}1{THIN}s"
    if seconds < 2 * MINUTE:
        return f"{seconds:.0f}{THIN}s"
    minutes = round(seconds / MINUTE)
    if minutes < 60:
        return f"{minutes}{THIN}min"
    if minutes < 24 * 60:
        return two(minutes // 60, "h", minutes % 60, "min")
    hours = round(minutes / 60)
    return two(hours // 24, "d", hours % 24, "h")


def two(more: int, unit: str, less: int, smaller: str) -> str:
    """Write a span in two units, the smaller left out where it is zero."""
    return f"{more:,}{THIN}{unit}" + (f" {less}{THIN}{smaller}" if less else "")


def instant(moment: datetime | None) -> str:
    """Write a moment: 24 November 2026, 15:10 UTC."""
    return f"{moment.day} {moment:%B %Y, %H:%M} UTC" if moment else "–"

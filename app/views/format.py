"""How numbers, times and names are written on the pages."""

from datetime import datetime
from pathlib import Path

from flask import Flask

from model.image.preprocess import crop_offsets
from model.network.config import AlexNetConfig
from model.weights.header import UNKNOWN, Provenance

THIN_SPACE = "\u2009"
MIN_BAR_PERCENT = 0.4
SUPERSCRIPTS = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")
CORNERS = ("top left", "top right", "bottom left", "bottom right", "centre")
MINUTE, HOUR, DAY = 60, 3600, 86_400
AGE_UNITS = ((DAY, "day"), (HOUR, "hour"), (MINUTE, "minute"))


def register_filters(app: Flask) -> None:
    """Make the functions below available to the templates."""
    app.jinja_env.filters.update(
        percent=format_percent,
        bar=format_bar_width,
        distance=format_distance,
        ms=format_milliseconds,
        thousands=format_count,
        size=format_size,
        day=format_day,
        duration=format_duration,
        moment=format_moment,
        loss=format_loss,
        scientific=format_scientific,
        provenance=describe_provenance,
        image_fit=choose_image_fit,
    )
    app.jinja_env.globals["crop_positions"] = list_crop_positions


def format_percent(share: float) -> str:
    """Format a fraction of 1 with one decimal and a thin space: 91.2 %."""
    if 0 < share < 0.0005:
        return f"<{THIN_SPACE}0.1{THIN_SPACE}%"
    return f"{100 * share:.1f}{THIN_SPACE}%"


def format_bar_width(share: float) -> str:
    """Return a bar's width in per cent of its track; a sliver stays visible."""
    return f"{max(100 * share, MIN_BAR_PERCENT):.2f}"


def format_distance(value: float) -> str:
    """Format a distance with three significant digits; no decimals from a thousand on."""
    if value >= 1000:
        return format_count(round(value))
    return f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def format_loss(value: float) -> str:
    """Format a loss with at most three decimals."""
    if value >= 100_000 or 0 < value < 0.001:
        return format_scientific(value)
    return f"{round(value, 3):g}"


def format_scientific(value: float) -> str:
    """Format a number that may be very small: 0.01, 1.25 · 10⁻⁵."""
    if value == 0 or 0.001 <= abs(value) < 100_000:
        return f"{value:.4g}"
    digits, exponent = f"{value:.2e}".split("e")
    power = f"10{str(int(exponent)).translate(SUPERSCRIPTS)}"
    if float(digits) == 1:
        return power
    return f"{float(digits):g}{THIN_SPACE}·{THIN_SPACE}{power}"


def format_milliseconds(value: float) -> str:
    """Format a time in whole milliseconds: 38 ms."""
    return f"<{THIN_SPACE}1{THIN_SPACE}ms" if value < 0.5 else f"{value:.0f}{THIN_SPACE}ms"


def format_count(value: int) -> str:
    """Format a count: 12,894."""
    return f"{value:,}"


def format_size(value: int) -> str:
    """Format a file's size: 812 bytes, 143 kB, 1.2 MB."""
    if value < 1000:
        return f"{value}{THIN_SPACE}bytes"
    if value < 999_500:
        return f"{value / 1000:.0f}{THIN_SPACE}kB"
    return f"{value / 1e6:.1f}{THIN_SPACE}MB"


def format_day(moment: datetime) -> str:
    """Format a date: 4 March 2026."""
    return f"{moment.day} {moment:%B %Y}"


def format_moment(moment: datetime | None) -> str:
    """Format a date and time: 24 November 2026, 15:10 UTC."""
    return f"{moment.day} {moment:%B %Y, %H:%M} UTC" if moment else "–"


def format_time_ago(moment: datetime | None, now: datetime) -> str:
    """Format how long ago something happened, in its largest unit: 3 minutes ago."""
    if moment is None:
        return "at an unknown time"
    seconds = (now - moment).total_seconds()
    for unit, name in AGE_UNITS:
        if seconds >= unit:
            count = int(seconds // unit)
            return f"{count:,} {name}{'' if count == 1 else 's'} ago"
    return "less than a minute ago"


def format_duration(seconds: float | None) -> str:
    """Format a duration in at most two units: 38 s, 12 min, 3 h 20 min, 2 d 4 h."""
    if seconds is None:
        return "–"
    if seconds < 1:
        return f"<{THIN_SPACE}1{THIN_SPACE}s"
    if seconds < 2 * MINUTE:
        return f"{seconds:.0f}{THIN_SPACE}s"
    minutes = round(seconds / MINUTE)
    if minutes < 60:
        return f"{minutes}{THIN_SPACE}min"
    if minutes < 24 * 60:
        return join_units(minutes // 60, "h", minutes % 60, "min")
    hours = round(minutes / 60)
    return join_units(hours // 24, "d", hours % 24, "h")


def join_units(large: int, large_unit: str, small: int, small_unit: str) -> str:
    """Format a duration in two units, the smaller left out where it is zero."""
    smaller = f" {small}{THIN_SPACE}{small_unit}" if small else ""
    return f"{large:,}{THIN_SPACE}{large_unit}{smaller}"


def describe_provenance(provenance: Provenance) -> str:
    """Name the training run that made the weights: imagenet · 90 epochs; or their source."""
    data = "unknown data" if provenance.data == UNKNOWN else provenance.data
    parts = [provenance.source, f"trained on {data}"]
    if not provenance.source:
        parts = [Path(provenance.data).name]
    if provenance.epochs is not None:
        parts.append(f"{provenance.epochs} {'epoch' if provenance.epochs == 1 else 'epochs'}")
    return " · ".join(parts)


def choose_image_fit(config: AlexNetConfig) -> str:
    """Return SVG's preserveAspectRatio that shows a whole picture as the network's square."""
    return "none" if config.resize == "warp" else "xMidYMid slice"


def list_crop_positions(config: AlexNetConfig) -> list[dict[str, object]]:
    """Return where each of the ten crops lies in the square, in the network's order (§4.1)."""
    return [
        {
            "name": name + (", mirrored" if mirrored else ""),
            "top": top,
            "left": left,
            "mirrored": mirrored,
        }
        for mirrored in (False, True)
        for name, (top, left) in zip(CORNERS, crop_offsets(config.side, config.crop), strict=True)
    ]

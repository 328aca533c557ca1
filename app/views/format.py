"""How numbers and names are written on the pages."""

from datetime import datetime
from pathlib import Path

from flask import Flask

from model.checkpoint import Provenance
from model.preprocess import OFFSETS

THIN = "\u2009"
SMALLEST_BAR = 0.4
CORNERS = ("top left", "top right", "bottom left", "bottom right", "centre")


def percent(share: float) -> str:
    """Write a share of 1 with one decimal and a thin space: 91.2 %."""
    if 0 < share < 0.0005:
        return f"<{THIN}0.1{THIN}%"
    return f"{100 * share:.1f}{THIN}%"


def bar(share: float) -> str:
    """Give a bar's width in per cent of its track; a sliver stays visible."""
    return f"{max(100 * share, SMALLEST_BAR):.2f}"


def distance(value: float) -> str:
    """Write a distance with three figures or one decimal; a thousand and more without."""
    if value >= 1000:
        return thousands(round(value))
    return f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def milliseconds(value: float) -> str:
    """Write a duration to the millisecond."""
    return f"<{THIN}1{THIN}ms" if value < 0.5 else f"{value:.0f}{THIN}ms"


def thousands(value: int) -> str:
    """Write a count: 12,894."""
    return f"{value:,}"


def size(value: int) -> str:
    """Write a file's size: 812 bytes, 143 kB, 1.2 MB."""
    if value < 1000:
        return f"{value}{THIN}bytes"
    return f"{value / 1000:.0f}{THIN}kB" if value < 999_500 else f"{value / 1e6:.1f}{THIN}MB"


def day(moment: datetime) -> str:
    """Write a day: 4 March 2026."""
    return f"{moment.day} {moment:%B %Y}"


def origin(provenance: Provenance) -> str:
    """Say in a few words which training made the weights."""
    passes = "epoch" if provenance.epochs == 1 else "epochs"
    return f"{Path(provenance.data).name} · {provenance.epochs} {passes}"


def crop_places() -> list[dict[str, object]]:
    """Where each of the ten crops lies in the 256×256, in the network's order (§4.1)."""
    return [
        {
            "name": name + (", mirrored" if mirrored else ""),
            "top": top,
            "left": left,
            "mirrored": mirrored,
        }
        for mirrored in (False, True)
        for name, (top, left) in zip(CORNERS, OFFSETS, strict=True)
    ]


def register_wording(app: Flask) -> None:
    """Make these known to the templates."""
    app.jinja_env.filters.update(
        percent=percent,
        bar=bar,
        distance=distance,
        ms=milliseconds,
        thousands=thousands,
        size=size,
        day=day,
    )
    app.jinja_env.globals["crop_places"] = crop_places()

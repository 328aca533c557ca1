"""Curves over epochs as SVG: where lines, ticks and marks lie, for templates/curves.html.

Places are shares of the drawing, in per cent from the left and the top, so that a drawing may be
of any width while its text stays as large as it is.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from app.views.format import THIN_SPACE

MOST_TICKS = 6
MOST_POINTS = 30
"""Of a line: with more the points would touch, and only the line is drawn."""
SUPERSCRIPTS = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")
Values = Sequence[tuple[float, float | None]]
"""Epochs and what was measured after each; None where it was no number."""


@dataclass(frozen=True, kw_only=True)
class Tick:
    """A number on an axis."""

    place: float
    text: str


@dataclass(frozen=True, kw_only=True)
class Point:
    """A measured value, and what is said of it."""

    x: float
    y: float
    text: str


@dataclass(frozen=True, kw_only=True)
class Line:
    """A curve. tone: 1–6, which ink and dashes; path: in a square of 1000 units."""

    label: str
    tone: int
    path: str
    points: tuple[Point, ...]
    last: str
    end: Point | None


@dataclass(frozen=True, kw_only=True)
class Plot:
    """A drawing. beyond: where the epochs begin that are still to come, or None.

    low, high: the epochs at its left and right edge, for whoever reads it by pointing.
    """

    name: str
    title: str
    says: str
    lines: tuple[Line, ...]
    x: tuple[Tick, ...]
    y: tuple[Tick, ...]
    marks: tuple[Tick, ...]
    beyond: float | None
    low: float
    high: float


@dataclass(frozen=True, kw_only=True)
class Axis:
    """A range of values, drawn along one side of a drawing; log: decades instead of units."""

    low: float
    high: float
    log: bool = False

    def share(self, value: float) -> float:
        """Where a value lies, 0–1 of the axis."""
        if self.log:
            low, high = math.log10(self.low), math.log10(self.high)
            return (math.log10(value) - low) / (high - low)
        return (value - self.low) / (self.high - self.low)

    def x(self, value: float) -> float:
        """Where it lies from the left, in per cent."""
        return round(100 * self.share(value), 2)

    def y(self, value: float) -> float:
        """Where it lies from the top, in per cent."""
        return round(100 - 100 * self.share(value), 2)


def across(epochs: float) -> Axis:
    """The axis of so many epochs: each has its own unit, with its number in the middle."""
    return Axis(low=0.5, high=max(epochs, 1) + 0.5)


def up(values: Sequence[float]) -> Axis:
    """An axis from zero to a round number above all values."""
    top = max(values, default=0.0)
    unit = step_for(top or 1.0)
    return Axis(low=0.0, high=unit * max(1, math.ceil(top / unit - 1e-9)))


def decades(values: Sequence[float]) -> Axis:
    """An axis of whole decades around all values, which are above zero."""
    low = math.floor(math.log10(min(values, default=0.01)) + 1e-9)
    high = math.ceil(math.log10(max(values, default=0.01)) - 1e-9)
    return Axis(low=10.0**low, high=10.0 ** max(high, low + 1), log=True)


def step_for(span: float, most: int = MOST_TICKS - 1) -> float:
    """The unit, 1, 2 or 5 times a power of ten, of which at most so many make a span."""
    unit = 10.0 ** math.floor(math.log10(span / most))
    return next(unit * n for n in (1, 2, 5, 10) if unit * n * most >= span * (1 - 1e-9))


def ticks_up(axis: Axis, say: Callable[[float], str]) -> tuple[Tick, ...]:
    """The numbers at an upright axis."""
    if axis.log:
        low, high = round(math.log10(axis.low)), round(math.log10(axis.high))
        every = max(1, math.ceil((high - low) / MOST_TICKS))
        values = [10.0**power for power in range(low, high + 1, every)]
    else:
        unit = step_for(axis.high)
        values = [n * unit for n in range(round(axis.high / unit) + 1)]
    return tuple(Tick(place=axis.y(value), text=say(value)) for value in values)


def ticks_across(axis: Axis) -> tuple[Tick, ...]:
    """The epochs that are numbered: the first, then round ones."""
    last = math.floor(axis.high)
    unit = max(1, round(step_for(last, MOST_TICKS)))
    # Beside the first a round one as near as half a unit would touch it.
    numbers = [1, *(n for n in range(unit, last + 1, unit) if n > max(1, unit / 2))]
    return tuple(Tick(place=axis.x(n), text=f"{n}") for n in numbers)


def line(
    label: str, tone: int, values: Values, axes: tuple[Axis, Axis], say: Callable[[float], str]
) -> Line:
    """Draw a curve; it is interrupted where there is no number."""
    across_, up_ = axes
    points = [
        value is not None and Point(x=across_.x(n), y=up_.y(value), text=f"{n:g}: {say(value)}")
        for n, value in values
    ]
    known = [point for point in points if point]
    shown = [value for _, value in values if value is not None]
    return Line(
        label=label,
        tone=tone,
        path=path([(10 * p.x, 10 * p.y) if p else None for p in points]),
        points=tuple(known) if len(known) <= MOST_POINTS else (),
        last=say(shown[-1]) if shown else "",
        end=known[-1] if known else None,
    )


def path(places: Sequence[tuple[float, float] | None]) -> str:
    """SVG's words for lines through these places, a new one after each gap."""
    words, pen = [], "M"
    for place in places:
        if place is None:
            pen = "M"
            continue
        words.append(f"{pen}{place[0]:.1f} {place[1]:.1f}")
        pen = "L"
    return "".join(words)


def stairs(values: Values) -> Values:
    """What holds for a whole epoch, from its beginning to its end."""
    return [(n + half, value) for n, value in values for half in (-0.5, 0.5)]


def finite(values: Values) -> list[float]:
    """The values that there are."""
    return [value for _, value in values if value is not None]


def power(value: float) -> str:
    """Write a number that may be very small: 0.01, 1.25 · 10⁻⁵."""
    if value == 0 or 0.001 <= abs(value) < 100_000:
        return f"{value:.4g}"
    digits, exponent = f"{value:.2e}".split("e")
    tens = f"10{str(int(exponent)).translate(SUPERSCRIPTS)}"
    return tens if float(digits) == 1 else f"{float(digits):g}{THIN_SPACE}·{THIN_SPACE}{tens}"

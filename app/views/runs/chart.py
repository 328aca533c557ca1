"""A line chart over epochs as SVG: where curves, ticks and marks lie, for templates/chart.html.

Positions are percentages of the drawing from its left and top, so that a chart may have any width
while its text keeps its size.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

MAX_TICKS = 6
MAX_POINTS = 30
"""Of a curve: more would touch each other, and only the line is drawn."""
Values = Sequence[tuple[float, float | None]]
"""Epochs and what was measured after each; None where that was not a finite number."""


@dataclass(frozen=True, kw_only=True)
class Tick:
    """A number on an axis."""

    position: float
    text: str


@dataclass(frozen=True, kw_only=True)
class Point:
    """A measured value and its tooltip."""

    x: float
    y: float
    text: str


@dataclass(frozen=True, kw_only=True)
class Curve:
    """A line. tone: 1–6, its colour and dashes; path: in a square of 1000 units."""

    label: str
    tone: int
    path: str
    points: tuple[Point, ...]
    last_value: str
    end: Point | None


@dataclass(frozen=True, kw_only=True)
class Chart:
    """A drawing with its axes.

    future_from: where epochs that have not been trained yet begin, or None. first_epoch,
    last_epoch: at the left and right edge, for reading values under the pointer.
    """

    name: str
    title: str
    description: str
    curves: tuple[Curve, ...]
    x_ticks: tuple[Tick, ...]
    y_ticks: tuple[Tick, ...]
    rate_drops: tuple[Tick, ...]
    future_from: float | None
    first_epoch: float
    last_epoch: float


@dataclass(frozen=True, kw_only=True)
class Axis:
    """A range of values along one side of a chart; log: decades instead of units."""

    low: float
    high: float
    log: bool = False

    def fraction(self, value: float) -> float:
        """Return a value's position on the axis, 0–1."""
        if self.log:
            low, high = math.log10(self.low), math.log10(self.high)
            return (math.log10(value) - low) / (high - low)
        return (value - self.low) / (self.high - self.low)

    def x(self, value: float) -> float:
        """Return a value's position from the left, in per cent."""
        return round(100 * self.fraction(value), 2)

    def y(self, value: float) -> float:
        """Return a value's position from the top, in per cent."""
        return round(100 - 100 * self.fraction(value), 2)


def make_epoch_axis(epochs: float) -> Axis:
    """Return the axis of so many epochs: each is one unit wide with its number in the middle."""
    return Axis(low=0.5, high=max(epochs, 1) + 0.5)


def make_linear_axis(values: Sequence[float]) -> Axis:
    """Return an axis from zero to a round number above all values."""
    top = max(values, default=0.0)
    step = round_step(top or 1.0)
    return Axis(low=0.0, high=step * max(1, math.ceil(top / step - 1e-9)))


def make_log_axis(values: Sequence[float]) -> Axis:
    """Return an axis of whole decades around all values, which must be positive."""
    low = math.floor(math.log10(min(values, default=0.01)) + 1e-9)
    high = math.ceil(math.log10(max(values, default=0.01)) - 1e-9)
    return Axis(low=10.0**low, high=10.0 ** max(high, low + 1), log=True)


def round_step(span: float, max_steps: int = MAX_TICKS - 1) -> float:
    """Return the smallest step of 1, 2 or 5 times a power of ten that divides a span often enough.

    At most `max_steps` of it make the span.
    """
    unit = 10.0 ** math.floor(math.log10(span / max_steps))
    return next(unit * n for n in (1, 2, 5, 10) if unit * n * max_steps >= span * (1 - 1e-9))


def list_value_ticks(axis: Axis, format_value: Callable[[float], str]) -> tuple[Tick, ...]:
    """Return the numbers beside the vertical axis."""
    if axis.log:
        low, high = round(math.log10(axis.low)), round(math.log10(axis.high))
        every = max(1, math.ceil((high - low) / MAX_TICKS))
        values = [10.0**power for power in range(low, high + 1, every)]
    else:
        step = round_step(axis.high)
        values = [n * step for n in range(round(axis.high / step) + 1)]
    return tuple(Tick(position=axis.y(value), text=format_value(value)) for value in values)


def list_epoch_ticks(axis: Axis) -> tuple[Tick, ...]:
    """Return the numbered epochs: the first, then round ones."""
    last = math.floor(axis.high)
    step = max(1, round(round_step(last, MAX_TICKS)))
    # A round number within half a step of the first would touch it.
    numbers = [1, *(n for n in range(step, last + 1, step) if n > max(1, step / 2))]
    return tuple(Tick(position=axis.x(n), text=f"{n}") for n in numbers)


def draw_curve(
    label: str,
    tone: int,
    values: Values,
    axes: tuple[Axis, Axis],
    format_value: Callable[[float], str],
) -> Curve:
    """Place a curve on its axes; it is interrupted where there is no value."""
    x, y = axes
    points = [
        value is not None and Point(x=x.x(n), y=y.y(value), text=f"{n:g}: {format_value(value)}")
        for n, value in values
    ]
    known = [point for point in points if point]
    finite = list_finite_values(values)
    return Curve(
        label=label,
        tone=tone,
        path=draw_svg_path([(10 * p.x, 10 * p.y) if p else None for p in points]),
        points=tuple(known) if len(known) <= MAX_POINTS else (),
        last_value=format_value(finite[-1]) if finite else "",
        end=known[-1] if known else None,
    )


def draw_svg_path(positions: Sequence[tuple[float, float] | None]) -> str:
    """Return an SVG path through positions, with a new line after each gap."""
    commands, command = [], "M"
    for position in positions:
        if position is None:
            command = "M"
            continue
        commands.append(f"{command}{position[0]:.1f} {position[1]:.1f}")
        command = "L"
    return "".join(commands)


def make_stepped_values(values: Values) -> Values:
    """Return values that hold for a whole epoch at its beginning and its end."""
    return [(n + half, value) for n, value in values for half in (-0.5, 0.5)]


def list_finite_values(values: Values) -> list[float]:
    """Return the values that are not None."""
    return [value for _, value in values if value is not None]

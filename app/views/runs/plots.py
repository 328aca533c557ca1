"""What is drawn of runs: the three drawings of one, the two of several, the small one of a row."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

from app.views.format import THIN_SPACE, format_percent
from app.views.runs.curves import (
    Axis,
    Plot,
    Tick,
    Values,
    across,
    decades,
    finite,
    line,
    path,
    power,
    stairs,
    ticks_across,
    ticks_up,
    up,
)
from storage.runs import Epoch, Run

FEWEST_SHOWN = 10
"""Epochs that a running run's drawing is wide at least, where so many are planned."""
MOST_DROPS = 8
LETTERS = "ABCDEF"
TOPS = (("top-1", 1, 1), ("top-5", 2, 5))


@dataclass(frozen=True, kw_only=True)
class Spark:
    """A small curve in a drawing of 168×44 units: its path, its end, what it says."""

    path: str
    end: tuple[float, float] | None
    says: str


def plots_of(run: Run, *, running: bool) -> list[Plot]:
    """The drawings of one run: errors with the drops of the rate, loss, learning rate."""
    if run.last_epoch is None:
        return []
    axis, last = across(shown_epochs(run, running=running)), run.last_epoch.epoch
    beyond = axis.x(last + 0.5) if running and last + 0.5 < axis.high else None
    marks, rates = drops(run.epochs, axis), values_of(run, "rate", above=0.0)
    errors = [(word, n, values_of(run, f"top{k}_error")) for word, n, k in TOPS]
    loss = [("training loss", 1, values_of(run, "loss"))]
    rate, ten = [("learning rate", 1, stairs(rates))], decades(finite(rates))
    return [
        plot("error", "Error", errors, (axis, up_to(errors)), format_percent, marks, beyond),
        plot("loss", "Training loss", loss, (axis, up_to(loss)), figures, marks, beyond),
        plot("rate", "Learning rate", rate, (axis, ten), power, (), beyond),
    ]


def plots_over(runs: Sequence[Run]) -> list[Plot]:
    """The drawings of several runs: top-1 errors and losses, a letter a run."""
    axis = across(max((run.last_epoch.epoch for run in runs if run.last_epoch), default=1))
    found = []
    for name, title, value, say in (
        ("error", "Top-1 error", "top1_error", format_percent),
        ("loss", "Training loss", "loss", figures),
    ):
        lines = [(LETTERS[n], n + 1, values_of(run, value)) for n, run in enumerate(runs)]
        found.append(plot(name, title, lines, (axis, up_to(lines)), say, (), None))
    return found


def plot(
    name: str,
    title: str,
    curves: Sequence[tuple[str, int, Values]],
    axes: tuple[Axis, Axis],
    say: Callable[[float], str],
    marks: tuple[Tick, ...],
    beyond: float | None,
) -> Plot:
    """Put a drawing together. curves: label, tone and values of each."""
    lines = tuple(line(label, tone, values, axes, say) for label, tone, values in curves)
    return Plot(
        name=name,
        title=title,
        says=". ".join(described(label, values, say) for label, _, values in curves),
        lines=lines,
        x=ticks_across(axes[0]),
        y=ticks_up(axes[1], percent_at if say is format_percent else say),
        marks=marks,
        beyond=beyond,
        low=axes[0].low,
        high=axes[0].high,
    )


def described(label: str, values: Values, say: Callable[[float], str]) -> str:
    """Say in words how a curve goes."""
    shown = finite(values)
    if not shown:
        return f"{label}: no values"
    return f"{label}: from {say(shown[0])} to {say(shown[-1])}, lowest {say(min(shown))}"


def shown_epochs(run: Run, *, running: bool) -> int:
    """How many epochs a drawing is wide: those done, and while it runs some of those to come.

    Not all of ninety from the first on: the curve would be a dot for hours.
    """
    done = run.last_epoch.epoch if run.last_epoch else 1
    if not running or not run.planned_epochs:
        return done
    return max(done, min(run.planned_epochs, max(2 * done, FEWEST_SHOWN)))


def drops(epochs: Sequence[Epoch[float | None]], axis: Axis) -> tuple[Tick, ...]:
    """Where the learning rate fell, and by how much."""
    found = [
        Tick(place=axis.x(after.epoch - 0.5), text=f"÷{THIN_SPACE}{before.rate / after.rate:.3g}")
        for before, after in pairwise(epochs)
        if before.rate and after.rate and 0 < after.rate < before.rate
    ]
    return tuple(found) if len(found) <= MOST_DROPS else ()


def values_of(run: Run, name: str, above: float | None = None) -> Values:
    """One of the values of a run's epochs, from zero or, with `above`, above that."""
    return [
        (epoch.epoch, value if value is not None and fits(value, above) else None)
        for epoch in run.epochs
        for value in [getattr(epoch, name)]
    ]


def fits(value: float, above: float | None) -> bool:
    """Whether a value can be drawn on its axis."""
    return value >= 0 if above is None else value > above


def up_to(curves: Sequence[tuple[str, int, Values]]) -> Axis:
    """The upright axis that holds all curves."""
    return up([value for *_, values in curves for value in finite(values)])


def percent_at(share: float) -> str:
    """Write a share of 1 beside an axis, without decimals where it is a whole per cent."""
    whole = round(100 * share)
    return f"{whole}{THIN_SPACE}%" if abs(100 * share - whole) < 1e-9 else format_percent(share)


def figures(value: float) -> str:
    """Write a loss with three decimals at most."""
    return power(value) if value >= 100_000 or 0 < value < 0.001 else f"{round(value, 3):g}"


def spark(run: Run, width: float = 168.0, height: float = 44.0, edge: float = 4.0) -> Spark:
    """The small curve of a run's top-1 errors over the epochs planned."""
    values = values_of(run, "top1_error")
    shown = finite(values)
    if not shown or run.last_epoch is None:
        return Spark(path="", end=None, says="No epoch has ended yet")
    planned = 1 if run.finished else run.planned_epochs or 1
    x, y = across(max(run.last_epoch.epoch, planned)), Axis(low=0.0, high=max(*shown, 1e-9))
    wide, tall = (width - 2 * edge) / 100, (height - 2 * edge) / 100
    places = [v is not None and (edge + wide * x.x(n), edge + tall * y.y(v)) for n, v in values]
    known = [place for place in places if place]
    return Spark(
        path=path([place or None for place in places]),
        end=known[-1],
        says=f"Top-1 error from {format_percent(shown[0])} to {format_percent(shown[-1])}",
    )

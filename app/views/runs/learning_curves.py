"""The charts of runs: three or four of one run, two of several, and the sparkline in the list."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise

from app.views.format import THIN_SPACE, format_loss, format_percent, format_scientific
from app.views.runs.chart import (
    Axis,
    Chart,
    Tick,
    Values,
    draw_curve,
    draw_svg_path,
    list_epoch_ticks,
    list_finite_values,
    list_value_ticks,
    make_epoch_axis,
    make_linear_axis,
    make_log_axis,
    make_stepped_values,
)
from model.network.config import AlexNetConfig
from model.network.definition import find_network
from model.visualization.kernels import find_noise_share
from model.visualization.receptive_field import list_weighted_layers
from storage.runs import Epoch, Run

MIN_CHART_EPOCHS = 10
"""Width of a running run's charts, where at least as many epochs are planned."""
MAX_RATE_DROPS = 8
LETTERS = "ABCDEF"
SPARK_WIDTH, SPARK_HEIGHT, SPARK_MARGIN = 168.0, 44.0, 4.0


@dataclass(frozen=True, kw_only=True)
class Sparkline:
    """A small curve in a drawing of 168×44 units: its path, its end, its text alternative."""

    path: str
    end: tuple[float, float] | None
    description: str


def draw_run_charts(run: Run, *, running: bool) -> list[Chart]:
    """Return one run's charts: error with the drops of the learning rate, loss, learning rate.

    And, if it was recorded, how far conv1 has come from the noise that it started as.
    """
    if run.last_epoch is None:
        return []
    x, last = make_epoch_axis(count_chart_epochs(run, running=running)), run.last_epoch.epoch
    future = x.x(last + 0.5) if running and last + 0.5 < x.high else None
    plateau = run.recipe.get("schedule", "plateau") == "plateau"
    drops = find_rate_drops(run.epochs, x) if plateau else ()
    errors = [
        ("top-1", 1, list_epoch_values(run, "top1_error")),
        ("top-5", 2, list_epoch_values(run, "top5_error")),
    ]
    loss = [("training loss", 1, list_epoch_values(run, "loss"))]
    rates = list_epoch_values(run, "rate", positive=True)
    rate = [("learning rate", 1, make_stepped_values(rates) if plateau else rates)]
    rate_axes = (x, make_log_axis(list_finite_values(rates)))
    charts = [
        build_chart(
            "error", "Error", errors, (x, make_common_axis(errors)), format_percent, drops, future
        ),
        build_chart(
            "loss", "Training loss", loss, (x, make_common_axis(loss)), format_loss, drops, future
        ),
        build_chart("rate", "Learning rate", rate, rate_axes, format_scientific, (), future),
    ]
    low = list_epoch_values(run, "conv1_low_frequency")
    if list_finite_values(low):
        noise = find_noise_share(*find_kernel_size(run))
        curves = [("conv1", 1, low), ("white noise", 2, [(low[0][0], noise), (low[-1][0], noise)])]
        axes = (x, Axis(low=0.0, high=1.0))
        charts.append(
            build_chart(
                "conv1", "conv1 at low frequencies", curves, axes, format_percent, (), future
            )
        )
    return charts


def find_kernel_size(run: Run) -> tuple[int, int]:
    """Return the size of conv1's kernels; the paper's where the run's variant is unknown."""
    config = find_network(run.recipe.get("variant"), run.recipe.get("definition"))
    conv1 = list_weighted_layers(config or AlexNetConfig())[0]
    return conv1.kernel, conv1.kernel


def draw_comparison_charts(runs: Sequence[Run]) -> list[Chart]:
    """Return the charts of several runs: top-1 error and loss, one letter a run."""
    x = make_epoch_axis(max((run.last_epoch.epoch for run in runs if run.last_epoch), default=1))
    charts = []
    for name, title, field, format_value in (
        ("error", "Top-1 error", "top1_error", format_percent),
        ("loss", "Training loss", "loss", format_loss),
    ):
        curves = [(LETTERS[n], n + 1, list_epoch_values(run, field)) for n, run in enumerate(runs)]
        axes = (x, make_common_axis(curves))
        charts.append(build_chart(name, title, curves, axes, format_value, (), None))
    return charts


def build_chart(
    name: str,
    title: str,
    curves: Sequence[tuple[str, int, Values]],
    axes: tuple[Axis, Axis],
    format_value: Callable[[float], str],
    drops: tuple[Tick, ...],
    future_from: float | None,
) -> Chart:
    """Put a chart together. curves: label, tone and values of each."""
    return Chart(
        name=name,
        title=title,
        description=". ".join(
            describe_curve(label, values, format_value) for label, _, values in curves
        ),
        curves=tuple(
            draw_curve(label, tone, values, axes, format_value) for label, tone, values in curves
        ),
        x_ticks=list_epoch_ticks(axes[0]),
        y_ticks=list_value_ticks(
            axes[1], format_whole_percent if format_value is format_percent else format_value
        ),
        rate_drops=drops,
        future_from=future_from,
        first_epoch=axes[0].low,
        last_epoch=axes[0].high,
    )


def describe_curve(label: str, values: Values, format_value: Callable[[float], str]) -> str:
    """Describe in words how a curve runs."""
    finite = list_finite_values(values)
    if not finite:
        return f"{label}: no values"
    first, last, lowest = (format_value(value) for value in (finite[0], finite[-1], min(finite)))
    return f"{label}: from {first} to {last}, lowest {lowest}"


def count_chart_epochs(run: Run, *, running: bool) -> int:
    """Return how many epochs a chart shows: those done and, while the run goes on, some to come.

    Not all ninety from the start: the curve would be a dot for hours.
    """
    done = run.last_epoch.epoch if run.last_epoch else 1
    if not running or not run.planned_epochs:
        return done
    return max(done, min(run.planned_epochs, max(2 * done, MIN_CHART_EPOCHS)))


def find_rate_drops(epochs: Sequence[Epoch[float | None]], x: Axis) -> tuple[Tick, ...]:
    """Return where the learning rate fell by more than half, and what it was divided by.

    Nothing if that was too often.
    """
    drops = [
        Tick(position=x.x(after.epoch - 0.5), text=f"÷{THIN_SPACE}{before.rate / after.rate:.3g}")
        for before, after in pairwise(epochs)
        if before.rate and after.rate and 0 < after.rate < before.rate / 2
    ]
    return tuple(drops) if len(drops) <= MAX_RATE_DROPS else ()


def list_epoch_values(run: Run, name: str, *, positive: bool = False) -> Values:
    """Return one field of a run's epochs; None for a value that its axis cannot show."""
    values = ((epoch.epoch, getattr(epoch, name)) for epoch in run.epochs)
    return [
        (n, value if value is not None and (value > 0 if positive else value >= 0) else None)
        for n, value in values
    ]


def make_common_axis(curves: Sequence[tuple[str, int, Values]]) -> Axis:
    """Return the vertical axis that holds all curves."""
    return make_linear_axis(
        [value for *_, values in curves for value in list_finite_values(values)]
    )


def format_whole_percent(share: float) -> str:
    """Format a fraction of 1 beside an axis, without decimals where it is a whole per cent."""
    whole = round(100 * share)
    if abs(100 * share - whole) < 1e-9:
        return f"{whole}{THIN_SPACE}%"
    return format_percent(share)


def find_highest_error(runs: Iterable[Run]) -> float:
    """Return the highest top-1 error of any epoch of several runs: the top of their sparklines."""
    errors = (list_finite_values(list_epoch_values(run, "top1_error")) for run in runs)
    return max((error for values in errors for error in values), default=1.0)


def draw_sparkline(run: Run, highest: float) -> Sparkline:
    """Return the small curve of a run's top-1 error over its planned epochs.

    highest: the error at the top, the same for all curves that are compared.
    """
    values = list_epoch_values(run, "top1_error")
    finite = list_finite_values(values)
    if not finite or run.last_epoch is None:
        return Sparkline(path="", end=None, description="No epoch has finished yet")
    planned = 1 if run.finished else run.planned_epochs or 1
    x = make_epoch_axis(max(run.last_epoch.epoch, planned))
    y = Axis(low=0.0, high=max(highest, 1e-9))
    width, height = (size - 2 * SPARK_MARGIN for size in (SPARK_WIDTH, SPARK_HEIGHT))
    positions = [
        None
        if value is None
        else (
            SPARK_MARGIN + width / 100 * x.x(epoch),
            SPARK_MARGIN + height / 100 * y.y(value),
        )
        for epoch, value in values
    ]
    return Sparkline(
        path=draw_svg_path(positions),
        end=[position for position in positions if position][-1],
        description=f"Top-1 error from {format_percent(finite[0])} to {format_percent(finite[-1])}",
    )

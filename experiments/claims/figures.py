"""The experiments' curves as figures of docs/findings.md."""

import io
from collections.abc import Iterator, Sequence
from hashlib import sha256
from pathlib import Path

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from experiments.claims.measures import TARGET
from storage.findings import ExperimentFindings, RunCurve

COLOURS = ("#1d1b18", "#c2571a", "#2a6f7f", "#6a4c93", "#5a6b1f", "#8a5a74", "#2f5597", "#5c6670")
STYLES = ("-", "--")
FIGURE_1 = "figure1"


def list_figures(experiments: Sequence[ExperimentFindings]) -> Iterator[tuple[str, str]]:
    """Yield the name and the SVG of each figure: an experiment's curves on one kind of data."""
    for experiment in experiments:
        for kind in dict.fromkeys(curve.kind for curve in experiment.curves):
            curves = [curve for curve in experiment.curves if curve.kind == kind]
            yield name_figure(experiment.name, kind), draw_curves(experiment, curves)


def name_figure(experiment: str, kind: str) -> str:
    """Return the file name of a figure."""
    return f"{experiment}-{kind}.svg"


def describe_source(curves: Sequence[RunCurve]) -> str:
    """Digest what a figure is drawn of; the figure's metadata has it."""
    return sha256(repr(curves).encode()).hexdigest()[:16]


def draw_curves(experiment: ExperimentFindings, curves: Sequence[RunCurve]) -> str:
    """Draw the training errors and the errors held out: a line a run, a colour an arm."""
    training_only = experiment.name == FIGURE_1
    figure = Figure(figsize=(5.6 if training_only else 9.6, 3.6), layout="constrained")
    FigureCanvasSVG(figure)
    panels = figure.subplots(1, 1 if training_only else 2, squeeze=False)[0]
    draw_panel(panels[0], curves, "training")
    panels[0].set_ylabel("training error")
    if training_only:
        panels[0].axhline(TARGET, color="#a39d92", linewidth=0.8, linestyle=":")
    else:
        draw_panel(panels[1], curves, "held_out")
        panels[1].set_ylabel("error on training images held out")
    panels[0].legend(frameon=False, fontsize=9)
    out = io.StringIO()
    # Text stays text, and the same figure has the same bytes.
    with rc_context({"svg.fonttype": "none", "svg.hashsalt": "findings"}):
        metadata = {"Date": None, "Creator": None, "Description": describe_source(curves)}
        figure.savefig(out, format="svg", metadata=metadata)
    return "\n".join(line.rstrip() for line in out.getvalue().splitlines()) + "\n"


def draw_panel(axes: Axes, curves: Sequence[RunCurve], what: str) -> None:
    """Draw one kind of error of every run."""
    arms = list(dict.fromkeys(curve.arm for curve in curves))
    for curve in curves:
        number = arms.index(curve.arm)
        values = [
            (n, error) for n, error in enumerate(getattr(curve, what), 1) if error is not None
        ]
        first = curve is next(one for one in curves if one.arm == curve.arm)
        axes.plot(
            [n for n, _ in values],
            [error for _, error in values],
            color=COLOURS[number % len(COLOURS)],
            linestyle=STYLES[number % len(STYLES)],
            linewidth=1.2,
            label=curve.arm if first else None,
        )
    axes.set_xlabel("epochs")
    axes.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    axes.spines[["top", "right"]].set_visible(False)


def write_figures(experiments: Sequence[ExperimentFindings], folder: Path) -> None:
    """Write all figures into a folder, and delete those that no longer belong there."""
    folder.mkdir(parents=True, exist_ok=True)
    figures = dict(list_figures(experiments))
    for file in folder.glob("*.svg"):
        if file.name not in figures:
            file.unlink()
    for name, drawn in figures.items():
        (folder / name).write_text(drawn)

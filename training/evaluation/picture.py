"""Draw an evaluation: confusion matrix, errors by class, and the most confident mistakes."""

import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import PowerNorm
from matplotlib.figure import Figure

from model.image.decode import ImageError
from model.image.preprocess import read_square
from storage.evaluations import CROPS_LABELS, ClassErrors, Evaluation, Mistake, Result

MAX_LABELLED_CLASSES = 30
"""Classes up to which the matrix has names and counts."""
MAX_WORST_CLASSES = 20
"""Bars that are drawn if there are more classes than that."""
SHEET_ROWS, SHEET_COLUMNS = 2, 5
"""Rows and columns of the mistaken photographs."""
OTHER_CLASS = "another class"
MAX_LABEL_LENGTH = 28
"""Characters of a class's label, with its ellipsis."""


def draw_evaluation(evaluation: Evaluation, root: Path) -> bytes:
    """Draw the evaluation's main result and return the PNG's bytes.

    root: the folder from which the mistaken photographs are read again.
    """
    result = evaluation.main_result
    few = len(result.classes) <= MAX_LABELLED_CLASSES
    # Not pyplot: that keeps every figure and its settings in the process.
    figure = Figure(figsize=(18, 16 if result.mistakes else 10), dpi=100, layout="constrained")
    FigureCanvasAgg(figure)
    figure.suptitle(format_figure_title(evaluation, result), fontsize=15, parse_math=False)
    heights = (10, 6) if result.mistakes else (10,)
    parts = figure.subfigures(len(heights), 1, height_ratios=heights, squeeze=False)[:, 0]
    left, right = parts[0].subplots(1, 2, width_ratios=(3, 2))
    draw_matrix(left, evaluation, result, labelled=few)
    draw_bars(right, result, MAX_LABELLED_CLASSES if few else MAX_WORST_CLASSES)
    if result.mistakes:
        parts[1].suptitle("Most confident mistakes", fontsize=13)
        draw_mistakes(parts[1].subplots(SHEET_ROWS, SHEET_COLUMNS).ravel(), result, root)
    out = io.BytesIO()
    figure.savefig(out, format="png")
    return out.getvalue()


def format_figure_title(evaluation: Evaluation, result: Result) -> str:
    """Format the title: network, crops, number of images and errors."""
    errors = ", ".join(
        f"{name} error {r.error:.2%} ({r.low:.2%}–{r.high:.2%})"
        for name, r in (("top-1", result.top1), ("top-5", result.top5))
    )
    return (
        f"{result.name}, {CROPS_LABELS[result.crops]}, {evaluation.data.images:,} images: {errors}"
    )


def build_confusion_matrix(result: Result) -> tuple[list[str], npt.NDArray[np.int64]]:
    """Return the names of the columns, and the counts by class and guess.

    The counts are int64 [C, C], one row per class that has images; or [C, C + 1], if the guesses
    include other classes, which share the last column.
    """
    columns = [own.folder for own in result.classes]
    place = {folder: i for i, folder in enumerate(columns)}
    counts = np.zeros((len(columns), len(columns) + 1), np.int64)
    for true, row in result.confusion.items():
        for guess, count in row.items():
            counts[place[true], place.get(guess, -1)] += count
    if counts[:, -1].any():
        return [*columns, OTHER_CLASS], counts
    return columns, counts[:, :-1]


def draw_matrix(axes: Axes, evaluation: Evaluation, result: Result, *, labelled: bool) -> None:
    """Draw the confusion matrix, coloured by the share of each class's images."""
    columns, counts = build_confusion_matrix(result)
    shares = counts / counts.sum(1, keepdims=True)
    # On a square-root scale, so that one image in a hundred is still visible.
    axes.imshow(shares, cmap="Blues", norm=PowerNorm(0.5, 0, 1), aspect="auto")
    axes.set_title("Confusion matrix" + (", images" if labelled else ", shares of each class"))
    axes.set_xlabel("guess")
    axes.set_ylabel("class")
    if not labelled:
        axes.set_xticks([])
        axes.set_yticks([])
        return
    names = [shorten_label(evaluation.labels.get(column, column)) for column in columns]
    axes.set_xticks(range(len(names)), names, rotation=45, ha="right", parse_math=False)
    rows = names[: len(counts)]
    axes.set_yticks(range(len(rows)), rows, parse_math=False)
    for (row, column), count in np.ndenumerate(counts):
        if count:
            colour = "white" if shares[row, column] > 0.4 else "black"
            axes.text(column, row, f"{count}", ha="center", va="center", color=colour)


def draw_bars(axes: Axes, result: Result, limit: int) -> None:
    """Draw the top-1 error and interval of the `limit` worst classes, and mark the top-5 error."""
    worst = sorted(result.classes, key=lambda own: -own.top1.error)[:limit]
    places = range(len(worst))
    errors = np.array([own.top1.error for own in worst])
    ends = np.array([[own.top1.low, own.top1.high] for own in worst]).T
    reach = np.abs(ends - errors)
    axes.barh(places, errors, color="tab:blue", alpha=0.6, label="top-1, 95 % interval")
    axes.errorbar(errors, places, xerr=reach, fmt="none", ecolor="black", capsize=3)
    axes.plot([own.top5.error for own in worst], places, "D", color="tab:orange", label="top-5")
    names = [f"{shorten_label(own.label)}, {own.top1.images}" for own in worst]
    axes.set_yticks(places, names, parse_math=False)
    axes.invert_yaxis()
    axes.set_xlim(0, 1)
    axes.xaxis.set_major_formatter(lambda share, _place: f"{share:.0%}")
    axes.grid(axis="x", alpha=0.3)
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.04), ncols=2)
    axes.set_title(format_bars_title(result.classes, len(worst)))


def format_bars_title(classes: Sequence[ClassErrors], drawn: int) -> str:
    """Format the title of the bars: which classes they show."""
    which = "by class" if drawn == len(classes) else f"of the {drawn} worst of {len(classes):,}"
    return f"Errors {which}, and images"


def draw_mistakes(places: Sequence[Axes], result: Result, root: Path) -> None:
    """Draw the most confidently mistaken photographs, with guess and class."""
    for axes in places:
        axes.set_axis_off()
    for axes, mistake in zip(places, result.mistakes, strict=False):
        draw_mistake(axes, mistake, root)


def draw_mistake(axes: Axes, mistake: Mistake, root: Path) -> None:
    """Draw one photograph; if it cannot be read any more, the reason stands in its place."""
    axes.set_title(
        f"{shorten_label(mistake.guess_label)} {mistake.probability:.1%}\n"
        f"is {shorten_label(mistake.true_label)} {mistake.true_probability:.1%}",
        fontsize=10,
        parse_math=False,
    )
    try:
        axes.imshow(read_square(root / mistake.path))
    except ImageError as error:
        axes.text(0.5, 0.5, error.reason, ha="center")


def shorten_label(label: str) -> str:
    """Shorten a label to MAX_LABEL_LENGTH."""
    return label if len(label) <= MAX_LABEL_LENGTH else label[: MAX_LABEL_LENGTH - 1] + "…"

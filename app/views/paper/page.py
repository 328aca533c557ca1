"""The paper: its sections, Figure 1 and both tables, with what was measured here beside them.

It reads the findings that are committed with the project (storage/findings.py).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

from flask import Blueprint, render_template

from app.views.format import format_percent
from app.views.paper.sections import SECTIONS
from app.views.runs.chart import Chart, Values, make_epoch_axis
from app.views.runs.learning_curves import build_chart, make_common_axis
from storage.findings import (
    ArmErrors,
    ExperimentFindings,
    Findings,
    RunCurve,
    format_effect,
    format_interval,
    format_measured,
    read_findings,
)
from storage.published import TABLE_1, TABLE_2, PublishedTable, TableRow

blueprint = Blueprint("paper", __name__, url_prefix="/paper")
FIGURE_1 = "figure1"
VERDICT_SIGNS = {"held": "✓", "not held": "✗", "not resolved": "?", "not run": "–"}


@dataclass(frozen=True, kw_only=True)
class ComparedRow:
    """A row of one of the paper's tables, and this project's figures for it on each data set."""

    row: TableRow
    ours: tuple[ArmErrors, ...]


@blueprint.get("")
def show_paper() -> str:
    """Show the paper's sections with the findings."""
    findings = read_findings()
    return render_template(
        "paper.html",
        sections=[
            (section, find_experiments(findings, section.experiments)) for section in SECTIONS
        ],
        findings=findings,
        signs=VERDICT_SIGNS,
        figure=draw_figure_1(findings),
        tables=[(table, list(compare_rows(table, findings))) for table in (TABLE_1, TABLE_2)],
        format_effect=format_effect,
        format_interval=format_interval,
        format_measured=format_measured,
    )


def find_experiments(
    findings: Findings | None, names: Sequence[str]
) -> list[tuple[str, ExperimentFindings | None]]:
    """Return the findings of some experiments by name; None for what is not among them."""
    return [(name, findings.find(name) if findings else None) for name in names]


def compare_rows(table: PublishedTable, findings: Findings | None) -> list[ComparedRow]:
    """Put this project's errors beside the rows of a table."""
    compared = []
    for row in table.rows:
        experiment = findings.find(row.experiment) if findings else None
        own = experiment.errors if experiment else ()
        ours = tuple(errors for errors in own if errors.arm == row.arm)
        compared.append(ComparedRow(row=row, ours=ours))
    return compared


def draw_figure_1(findings: Findings | None) -> Chart | None:
    """Draw Figure 1 of the runs on CIFAR-10; None if there are none."""
    experiment = findings.find(FIGURE_1) if findings else None
    curves = [one for one in experiment.curves if one.kind == "cifar10"] if experiment else []
    arms = dict.fromkeys(curve.arm for curve in curves)
    if not arms:
        return None
    lines = [
        (arm, tone, average_curves([curve for curve in curves if curve.arm == arm]))
        for tone, arm in enumerate(arms, start=1)
    ]
    epochs = max(len(values) for _, _, values in lines)
    axes = make_epoch_axis(epochs), make_common_axis(lines)
    return build_chart("figure1", "Figure 1", lines, axes, format_percent, (), None)


def average_curves(curves: Sequence[RunCurve]) -> Values:
    """Average the training errors of an arm's runs, for as long as all of them went on."""
    shortest = min(len(curve.training) for curve in curves)
    values: list[tuple[float, float | None]] = []
    for number in range(shortest):
        errors = [error for c in curves if (error := c.training[number]) is not None]
        values.append((number + 1, fmean(errors) if errors else None))
    return values

"""The paper: its sections, Figure 1 and both tables, with what was measured here beside them.

It reads the findings that are committed with the project (storage/findings.py).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

from flask import Blueprint, Response, abort, render_template, send_file

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
    locate_kernel_sheet,
    read_findings,
)
from storage.published import TABLE_1, TABLE_2, PublishedTable, TableRow

blueprint = Blueprint("paper", __name__, url_prefix="/paper")
FIGURE_1, COLOUR_TOWERS = "figure1", "colour-towers"
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
        sheets=list_kernel_sheets(findings),
        tables=[(table, list(compare_rows(table, findings))) for table in (TABLE_1, TABLE_2)],
        format_effect=format_effect,
        format_interval=format_interval,
        format_measured=format_measured,
    )


@blueprint.get("/conv1-<kind>.png")
def serve_kernels(kind: str) -> Response:
    """Return the picture of the first kernels of every run of the experiment on the towers."""
    if kind not in list_kernel_sheets(read_findings()):
        abort(404)
    return send_file(locate_kernel_sheet(COLOUR_TOWERS, kind))


def list_kernel_sheets(findings: Findings | None) -> dict[str, str]:
    """List the kinds of data that have such a picture, with their labels."""
    experiment = findings.find(COLOUR_TOWERS) if findings else None
    claims = experiment.claims if experiment else ()
    return {
        data.kind: data.data
        for claim in claims
        for data in claim.data
        if locate_kernel_sheet(COLOUR_TOWERS, data.kind).exists()
    }


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

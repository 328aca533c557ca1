"""docs/findings.md: the findings as Markdown, with their figures."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from rich.console import Console

from experiments.claims.estimate import (
    DISK,
    EPOCHS,
    IMAGES,
    PAPER_DAYS,
    compute_paper_share,
    compute_training_operations,
    count_operations,
    list_estimates,
)
from experiments.claims.figures import name_figure, write_figures
from experiments.claims.findings import make_findings
from experiments.claims.pooled import count_runs
from experiments.claims.result import RunResult
from storage.findings import (
    ClaimFindings,
    DataFindings,
    ExperimentFindings,
    Findings,
    format_effect,
    format_interval,
    format_measured,
    locate_kernel_sheet,
    write_findings,
)
from storage.published import LOGGED

ROOT = Path(__file__).resolve().parents[2]
PAGE, FIGURES = ROOT / "docs" / "findings.md", ROOT / "docs" / "findings"
INTRODUCTION = """# Findings

Written by `python experiments/run.py report` from the runs in experiments/results; do not edit it.

What the paper claims, and what came of it here. `python experiments/run.py list` shows the
experiments, `python experiments/run.py lrn --data path/to/cifar10` runs one, with `--seeds`,
`--epochs`, `--images` and `--budget` in minutes, and goes on where it was stopped; `--arms` runs
some arms alone. `baseline` needs OpenCV: `pip install -c constraints.txt -e ".[sift]"`. All arms of
one seed run before the next seed's, on the same images; choices are made on training images held
out, and the validation images are looked at once, at the end of a run.

A claim **held** if the whole 95 % interval of the difference between its arms is on the claimed
side of zero (of one, for a ratio); it was **not held** if the whole interval is on the other side.
“But by less” says that a ratio's whole interval lies below the paper's own.
Otherwise it is **not resolved**, with the number of seeds that would resolve it if the mean and the
deviation of the seeds stayed as they are. Intervals are Student's, over pairs of the same seed,
unless another is named.
"""


def write_report(results: Sequence[RunResult], console: Console) -> None:
    """Write findings.json, the figures and the page."""
    findings = make_findings(results)
    write_findings(findings)
    write_figures(findings.experiments, FIGURES)
    PAGE.write_text(make_page(findings))
    console.print(f"Wrote {PAGE.relative_to(ROOT)} from {len(results)} runs.")


def make_page(findings: Findings) -> str:
    """Return the page."""
    return "\n".join(
        [
            INTRODUCTION,
            *list_verdicts(findings),
            *(line for one in findings.experiments for line in list_experiment(one)),
            *list_logged(),
            *list_imagenet(),
        ]
    )


def list_verdicts(findings: Findings) -> Iterator[str]:
    """Yield the table of all claims."""
    hours = findings.cpu_seconds / 3600
    machines = "; ".join(findings.machines)
    if machines:
        yield f"All of it took {hours:.1f} hours of processor time ({machines}).\n"
    yield "| experiment | claim | the paper | here | verdict |"
    yield "|---|---|---|---|---|"
    for one in findings.experiments:
        for claim in one.claims:
            name = f"[{one.name}](#{make_anchor(one)})"
            here = "; ".join(summarise(claim, data) for data in claim.data) or "not run yet"
            yield f"| {name} | {claim.statement} | {claim.paper} | {here} | {claim.outcome} |"
    yield ""


def make_anchor(experiment: ExperimentFindings) -> str:
    """Return the anchor of an experiment's heading."""
    kept = "".join(c for c in make_heading(experiment).lower() if c.isalnum() or c in "_ -")
    return kept.replace(" ", "-")


def make_heading(experiment: ExperimentFindings) -> str:
    """Return an experiment's heading."""
    return f"{experiment.name}: {experiment.title}"


def summarise(claim: ClaimFindings, data: DataFindings) -> str:
    """Say in a few words what a claim came to on one kind of data."""
    parts = []
    for effect in data.effects:
        if effect.value is None:
            parts.append("–")
            continue
        interval = format_interval(effect, claim)
        value = format_effect(effect.value, claim)
        parts.append(f"{value} ({interval})" if interval else value)
    return f"{data.data}: {', '.join(parts)}"


def list_experiment(experiment: ExperimentFindings) -> Iterator[str]:
    """Yield an experiment's section."""
    yield f"## {make_heading(experiment)}\n"
    yield f"{experiment.section}. {experiment.note}".strip() + "\n"
    if not any(claim.data for claim in experiment.claims):
        yield f"Not run yet: `{experiment.command}`.\n"
    if experiment.choice:
        yield f"{experiment.choice}\n"
    for claim in experiment.claims:
        yield f"**{claim.statement}** The paper: {claim.paper}. Here: {claim.outcome}.\n"
        for data in claim.data:
            yield from list_data(claim, data)
    for kind in dict.fromkeys(curve.kind for curve in experiment.curves):
        name = name_figure(experiment.name, kind)
        yield f"![The errors of each run after each epoch](findings/{name})\n"
        sheet = locate_kernel_sheet(experiment.name, kind)
        if sheet.exists():
            yield f"![conv1 of each run](../{sheet.relative_to(ROOT)})\n"
    if experiment.runs:
        minutes = experiment.cpu_seconds / 60
        runs = count_runs(experiment.runs)
        yield f"{runs}; {minutes:.0f} minutes of processor time of its own.\n"


def list_data(claim: ClaimFindings, data: DataFindings) -> Iterator[str]:
    """Yield what a claim came to on one kind of data."""
    yield f"On {data.data}, {data.setting}:\n"
    if data.arms:
        yield f"| arm | {claim.measure} | 95 % | runs |"
        yield "|---|---|---|---|"
        for arm in data.arms:
            ends = (
                ""
                if arm.low is None or arm.high is None
                else f"{format_measured(arm.low, claim.unit).removesuffix(' %')} to "
                f"{format_measured(arm.high, claim.unit)}"
            )
            yield f"| {arm.arm} | {format_measured(arm.mean, claim.unit)} | {ends} | {arm.runs} |"
        yield ""
    for effect in data.effects:
        value = "" if effect.value is None else f"{format_effect(effect.value, claim)}, "
        interval = format_interval(effect, claim)
        middle = f"95 % {interval}, " if interval else ""
        compared = f"{effect.more} against {effect.less}"
        yield f"- {compared}: {value}{middle}{effect.verdict} ({effect.reason})"
    yield ""


def list_logged() -> Iterator[str]:
    """Yield the table of what the log of 2012 has beside the paper."""
    yield "## What was run in 2012\n"
    yield (
        "The paper's figures beside those that the logs in its source have, which was published in "
        "2025. None of these is of this project. Errors in per cent, top-1 and top-5.\n"
    )
    yield "| network | what | log | the paper |"
    yield "|---|---|---|---|"
    for run in LOGGED:
        top1, top5 = run.errors
        yield f"| {run.network} | {run.what} | {top1:.2f}, {top5:.2f} | {run.paper} |"
    yield ""


def list_imagenet() -> Iterator[str]:
    """Yield what a run on ImageNet takes."""
    forward, whole = count_operations(), compute_training_operations()
    share = compute_paper_share()
    yield "## On ImageNet\n"
    yield (
        "The same commands run on ImageNet, with the paper's recipe, if `--data` is a folder of "
        "its photographs. Nothing of that was run here. **Estimated**, not measured: "
        f"{forward / 1e9:.2f} · 10⁹ operations an image forward, by torch's counter, three times "
        f"that with the backward pass, {whole:.1e} for {EPOCHS} passes over {IMAGES:,} images. "
        f"The paper's two GPUs took {PAPER_DAYS} days, {share:.0%} of their peak; at that share of "
        "the peaks in the data sheets, and if photographs are decoded as fast:\n"
    )
    yield "| GPU | hours, estimated |"
    yield "|---|---|"
    for estimate in list_estimates():
        yield f"| {estimate.card} | {estimate.hours:.1f} |"
    yield ""
    yield "On the disk: " + ", ".join(f"{what} {size} GB" for what, size in DISK) + "."
    yield ""

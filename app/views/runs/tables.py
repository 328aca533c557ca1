"""The tables on the pages of runs: machine, speed, results, and the differences between runs."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import fmean

from app.views.format import THIN_SPACE, format_duration, format_loss, format_percent
from app.views.runs.recipe import describe_recipe, format_setting
from storage.runs import Epoch, Run
from storage.tolerant_json import dict_or_empty

UNKNOWN = "–"
MAX_VERSIONS = 12


@dataclass(frozen=True, kw_only=True)
class TableRow:
    """A row of a comparison: its label, the paper's section, and a value for each run."""

    label: str
    section: str
    values: tuple[str, ...]


def make_machine_table(run: Run) -> list[tuple[str, str]]:
    """Return what a run started from and ran on, by label; unknown values are left out."""
    machine = run.environment
    versions = dict_or_empty(machine.get("versions"))
    values = {
        "Preset": run.preset,
        "Dataset": run.data,
        "Started from weights": run.initial_weights[:8],
        "Precision": run.precision,
        "Processor": machine.get("processor"),
        "Device": machine.get("device"),
        "Cores": machine.get("cores"),
        "Threads": machine.get("threads"),
        "Processes": machine.get("processes"),
        "System": machine.get("system"),
        "Python": machine.get("python"),
        **{str(name): versions[name] for name in sorted(versions)[:MAX_VERSIONS]},
        "Commit": run.commit,
    }
    return [(label, format_setting(v)) for label, v in values.items() if v not in ("", None)]


def make_speed_table(run: Run) -> list[tuple[str, str]]:
    """Return how fast a run was and what it used, by label."""
    return [
        ("Images/s", format_speed(combine_epochs(run, "images_per_second", fmean))),
        ("Time per epoch", format_duration(combine_epochs(run, "seconds", fmean))),
        ("Total time", format_duration(combine_epochs(run, "seconds", sum))),
        ("Waiting for images", format_duration(combine_epochs(run, "data_wait", sum))),
        ("Peak memory", format_memory(combine_epochs(run, "memory", max))),
    ]


def make_results_table(runs: Sequence[Run]) -> list[TableRow]:
    """Compare what runs achieved and used."""
    rows = [
        ("Epochs", [f"{len(run.epochs)}" for run in runs]),
        ("Top-1 error, lowest", [format_epoch_error(run.best_epoch, "top1_error") for run in runs]),
        ("Top-1 error, last", [format_epoch_error(run.last_epoch, "top1_error") for run in runs]),
        ("Top-5 error, last", [format_epoch_error(run.last_epoch, "top5_error") for run in runs]),
        (
            "Top-1 error, ten crops",
            [format_percent(run.ten_crops[0]) if run.ten_crops else UNKNOWN for run in runs],
        ),
        ("Training loss, last", [format_last_loss(run) for run in runs]),
    ]
    speeds = [dict(make_speed_table(run)) for run in runs]
    rows += [(label, [speed[label] for speed in speeds]) for label in (speeds[0] if runs else {})]
    return [TableRow(label=label, section="", values=tuple(values)) for label, values in rows]


def compare_settings(runs: Sequence[Run]) -> list[TableRow]:
    """Compare how runs were configured and where they ran; only rows in which they differ.

    A value that some runs do not record does not count as a difference: they may be older.
    """
    described = [describe_run(run) for run in runs]
    sections = {label: section for run in described for label, (section, _) in run.items()}
    rows = (
        TableRow(
            label=label,
            section=section,
            values=tuple(run.get(label, ("", UNKNOWN))[1] for run in described),
        )
        for label, section in sections.items()
    )
    return [row for row in rows if len({*row.values} - {UNKNOWN}) > 1]


def describe_run(run: Run) -> dict[str, tuple[str, str]]:
    """Return a run's configuration and machine: section and value by label."""
    machine, versions = run.environment, dict_or_empty(run.environment.get("versions"))
    facts = {
        "Preset": run.preset,
        "Dataset": run.data,
        "Started from weights": run.initial_weights[:8] or "random",
        "Precision": run.precision,
        "Commit": run.commit,
        "Processor": format_setting(machine.get("processor")),
        "Device": format_setting(machine.get("device")),
        "Processes": format_setting(machine.get("processes")),
        "Threads": format_setting(machine.get("threads")),
        "torch": format_setting(versions.get("torch")),
    }
    recipe = {row.label: (row.section, row.value) for row in describe_recipe(run.recipe)}
    return {label: ("", value or UNKNOWN) for label, value in facts.items()} | recipe


def combine_epochs(run: Run, name: str, combine: Callable[[list[float]], float]) -> float | None:
    """Combine the known values of one field of a run's epochs; None without any."""
    values = [value for epoch in run.epochs if (value := getattr(epoch, name)) is not None]
    return combine(values) if values else None


def format_epoch_error(epoch: Epoch[float | None] | None, name: str) -> str:
    """Format an epoch's error, where it is known."""
    error = getattr(epoch, name) if epoch else None
    return UNKNOWN if error is None else format_percent(error)


def format_last_loss(run: Run) -> str:
    """Format a run's last training loss, where it is known."""
    loss = run.last_epoch.loss if run.last_epoch else None
    return UNKNOWN if loss is None else format_loss(loss)


def format_speed(value: float | None) -> str:
    """Format images per second, where they are known."""
    return UNKNOWN if value is None else f"{value:.1f}" if value < 100 else f"{value:,.0f}"


def format_memory(value: float | None) -> str:
    """Format an amount of memory in GiB, where it is known."""
    return UNKNOWN if value is None else f"{value:.1f}{THIN_SPACE}GiB"

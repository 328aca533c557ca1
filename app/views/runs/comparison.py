"""Runs side by side: what differs in what they were told and in what came out."""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

from app.views.runs.recipe import plain, settings_of
from storage.runs import Run
from storage.tolerant_json import dict_or_empty

UNKNOWN = "–"


@dataclass(frozen=True, kw_only=True)
class Row:
    """A line of the table: what it is, its section of the paper, and each run's own."""

    word: str
    section: str
    values: tuple[str, ...]


def differences(runs: Sequence[Run]) -> list[Row]:
    """What the runs were told differently, or ran on; nothing where they were told the same.

    What only some of them tell is no difference: others may be of an earlier version.
    """
    told = [described(run) for run in runs]
    words = {word: section for each in told for word, (section, _) in each.items()}
    rows = (
        Row(
            word=word,
            section=section,
            values=tuple(each.get(word, ("", UNKNOWN))[1] for each in told),
        )
        for word, section in words.items()
    )
    return [row for row in rows if len({*row.values} - {UNKNOWN}) > 1]


def described(run: Run) -> dict[str, tuple[str, str]]:
    """What a run was told and ran on, by word: section and value."""
    machine, versions = run.environment, dict_or_empty(run.environment.get("versions"))
    facts = {
        "Preset": run.preset,
        "Photographs": run.data,
        "Began from weights": run.initial_weights[:8] or "none",
        "Arithmetic": run.precision,
        "Commit": run.commit,
        "Processor": plain(machine.get("processor")),
        "Device": plain(machine.get("device")),
        "Processes": plain(machine.get("processes")),
        "Threads": plain(machine.get("threads")),
        "torch": plain(versions.get("torch")),
    }
    recipe = {s.word: (s.section, s.value) for s in settings_of(run.recipe)}
    return {word: ("", value or UNKNOWN) for word, value in facts.items()} | recipe


def mean_of(run: Run, name: str) -> float | None:
    """The mean over the epochs of one of their values, where known."""
    found = [value for epoch in run.epochs if (value := getattr(epoch, name)) is not None]
    return fmean(found) if found else None


def most_of(run: Run, name: str) -> float | None:
    """The largest over the epochs of one of their values, where known."""
    return max((v for e in run.epochs if (v := getattr(e, name)) is not None), default=None)


def total_of(run: Run, name: str) -> float | None:
    """The sum over the epochs of one of their values, where known."""
    found = [value for epoch in run.epochs if (value := getattr(epoch, name)) is not None]
    return sum(found) if found else None

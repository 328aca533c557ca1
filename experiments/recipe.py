"""`python experiments/recipe.py --data DIR --results FILE`: what is each part of `small` worth?

The preset `small` is trained whole, then with one of its departures from the paper undone or one of
its numbers changed at a time. One in ten training images is held out for the comparison, chosen by
a hash of its pixels; the validation images play no part. All arms of a seed have the same images,
initial weights and dropout, as far as their recipes allow. The mean image and the principal
components are those of all training images, those held out included.

The results go to a file of JSON lines (experiments/arms.py). The same command, started again,
continues where it stopped; `--report` only prints what the file holds, and with `--markdown` as the
table that docs/training.md has of experiments/results/recipe.jsonl.
"""

import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

if not __package__:
    # Run as a script, Python puts this file's folder on the path, not the project's root.
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
import tyro
from rich.console import Console
from rich.table import Table

from experiments.arms import Arm, Line, ResultsFile, run_arms
from experiments.held_out import hold_out
from model.visualization.kernels import find_noise_share
from storage.home import home_from_environment
from training.dataset.find_source import find_source
from training.dataset.prepare import prepare
from training.evaluation.confidence import Wrong, error_rate, paired_difference
from training.optimisation.device import keep_freed_memory
from training.recipe.config import SMALL, Recipe
from training.recipe.options import Options as TrainingOptions

WHOLE = "small"
"""The arm that the others are compared with."""
CHANGES: Mapping[str, Mapping[str, Any]] = {
    WHOLE: {},
    "offsets": {"crops": "offsets"},
    "batch-128": {"batch": 128},
    "no-warmup": {"warmup": 0},
    "plateau": {"schedule": "plateau"},
    "linear": {"schedule": "linear"},
    "no-smoothing": {"smoothing": 0.0},
    "plain-alpha": {},
    "paper-start": {"init": "paper", "input_scale": 1.0},
    **{f"scale-{scale:g}": {"input_scale": scale} for scale in (60.0, 15.0, 7.5, 2.0, 1.0)},
    **{f"decay-{decay:g}": {"decay": decay} for decay in (5e-5, 1e-3)},
    **{f"rate-{rate:g}": {"rate": rate} for rate in (0.005, 0.02)},
    **{f"area-{area:g}": {"smallest_area": area} for area in (0.2, 0.5)},
}
"""What each arm changes in the preset; plain-alpha leaves α of LRN as the paper has it."""
LABELS = {
    WHOLE: "`small`",
    "offsets": "crops of 224 pixels at random offsets (the paper's)",
    "batch-128": "batches of 128 (the paper's)",
    "no-warmup": "no warm-up (the paper's)",
    "plateau": "the rate falls on a plateau (the paper's)",
    "linear": "the rate falls along a line",
    "no-smoothing": "labels not smoothed (the paper's)",
    "plain-alpha": "α of LRN not scaled (the paper's)",
    "paper-start": "initial weights, biases and raw pixels (the paper's)",
}
"""What an arm is called in words, where its name and its change do not say it."""
AVERAGES = (0.99, 0.998)
"""Decays of the averages of the whole preset's weights."""


@dataclass(frozen=True, kw_only=True)
class Options:
    """Measure each departure of the preset `small` alone, on held-out training images."""

    results: Path
    """File of JSON lines."""
    data: str = ""
    """Folder of photographs."""
    epochs: int = 8
    """Epochs of each training."""
    only: tuple[str, ...] = ()
    """Arms to train, by name; without it all."""
    seeds: int = 1
    """How often each arm is trained, with seeds from 0."""
    held_out: int = 10
    """One in so many training images is held out."""
    precision: Literal["auto", "f32", "bf16"] = "auto"
    """Precision of the layers' arithmetic."""
    report: bool = False
    """Only print the table."""
    markdown: bool = False
    """Print it as Markdown."""


def main() -> None:
    """Train what is missing, then print the table."""
    options, console = tyro.cli(Options), Console()
    results = ResultsFile(options.results)
    if unknown := set(options.only) - set(CHANGES):
        sys.exit(f"unknown arms: {', '.join(sorted(unknown))}; choose from {', '.join(CHANGES)}")
    if not options.report:
        keep_freed_memory()
        home = home_from_environment()
        data = prepare(find_source(options.data), home.prepared, lambda _: None)
        arms = list_arms(SMALL, options.epochs, options.seeds, options.only)
        run_arms(
            arms,
            hold_out(data, options.held_out),
            results,
            TrainingOptions(precision=options.precision),
            console,
        )
    lines = results.read("result")
    if options.markdown:
        console.out(write_markdown(lines), end="", highlight=False)
        return
    for table in make_tables(lines):
        console.print(table)


def list_arms(preset: Recipe, epochs: int, seeds: int, only: Sequence[str] = ()) -> list[Arm]:
    """List the arms, all of one seed before the next seed's."""
    return [
        Arm(
            name=name,
            recipe=replace(preset, **({"epochs": epochs, "seed": seed} | dict(changes))),
            scaled_alpha=name != "plain-alpha",
            averages=AVERAGES if name == WHOLE else (),
        )
        for seed in range(seeds)
        for name, changes in CHANGES.items()
        if not only or name in only
    ]


def make_tables(lines: Sequence[Line]) -> Iterator[Table]:
    """Format the results: a table for each dataset and number of epochs."""
    groups: dict[tuple[str, int], dict[tuple[str, int], Line]] = {}
    for line in lines:
        recipe = line["recipe"]
        group = groups.setdefault((line["data"], recipe["epochs"]), {})
        # Of two recipes of the same name, the later counts.
        group[line["arm"], recipe["seed"]] = line
    for (_, epochs), group in groups.items():
        yield make_table(list(group.values()), epochs)


def make_table(lines: Sequence[Line], epochs: int) -> Table:
    """Format the results of one number of epochs; differences are from `small` of the same seed."""
    whole = {line["recipe"]["seed"]: find_wrong(line) for line in lines if line["arm"] == WHOLE}
    table = Table(
        title=f"Top-1 error of the centre crop after {epochs} epochs",
        caption="Difference from small: 95 % interval of a paired bootstrap, p by McNemar’s exact "  # noqa: RUF001
        "test. Low: the share of the energy of conv1’s kernels at low frequencies; "  # noqa: RUF001
        f"noise has {find_noise_share(11, 11):.2f}.",
    )
    for heading in ("arm", "seed", "error, %", "95 %", "difference", "95 %", "p", "low"):
        table.add_column(heading, justify="left" if heading == "arm" else "right")
    table.add_column("images/s", justify="right")
    for line in lines:
        seed = line["recipe"]["seed"]
        if "diverged" in line:
            table.add_row(line["arm"], str(seed), "diverged")
            continue
        rest = [f"{line['conv1_low_frequency']:.2f}", f"{line['images_per_second']:.1f}"]
        compared = None if line["arm"] == WHOLE else whole.get(seed)
        table.add_row(line["arm"], str(seed), *format_errors(find_wrong(line), compared), *rest)
        for decay in line["averages"]:
            name = f"{line['arm']}, average {decay}"
            errors = format_errors(find_wrong(line, decay), whole.get(seed))
            table.add_row(name, str(seed), *errors)
    return table


def write_markdown(lines: Sequence[Line]) -> str:
    """Write the results of one number of epochs, one seed, as a table in Markdown.

    Raises ValueError if there are more.
    """
    groups = {(line["data"], line["recipe"]["epochs"], line["recipe"]["seed"]) for line in lines}
    if len(groups) != 1:
        raise ValueError("Markdown is written of one data set, one number of epochs and one seed")
    whole = next(line for line in lines if line["arm"] == WHOLE)
    rows = [
        "| change | top-1 error | difference from `small` | 95 % | low |",
        "|---|---|---|---|---|",
    ]
    for line in lines:
        name = LABELS.get(line["arm"]) or describe_change(line["arm"])
        if "diverged" in line:
            rows.append(f"| {name} | diverged | | | |")
            continue
        found = {name: ("", f"{line['conv1_low_frequency']:.2f}")}
        found |= {f"average of the weights, {a}": (a, "") for a in line["averages"]}
        for label, (average, low) in found.items():
            compared = None if line is whole and not average else find_wrong(whole)
            error, _, difference, ends, _ = format_errors(find_wrong(line, average), compared)
            points = f"{difference} points" if difference else ""
            rows.append(f"| {label} | {error} % | {points} | {ends} | {low} |")
    return "\n".join(rows) + "\n"


def describe_change(arm: str) -> str:
    """Return what an arm changes, by the names and values of the recipe."""
    changes = {"input_scale": "pixels divided by", "decay": "weight decay of", "rate": "ε of"}
    changes["smallest_area"] = "crops of at least this share of the area:"
    return ", ".join(f"{changes[name]} {value:g}" for name, value in CHANGES[arm].items())


def find_wrong(line: Line, average: str = "") -> Wrong:
    """Return which held-out images are wrong, by the weights or by an average: bool [N]."""
    rows = line["averages"][average] if average else line.get("wrong", [])
    return np.isin(np.arange(line.get("images", 0)), rows)


def format_errors(wrong: Wrong, compared: Wrong | None) -> list[str]:
    """Format an error with its interval, and its difference from another on the same images."""
    rate = error_rate(wrong)
    cells = [f"{100 * rate.error:.2f}", f"{100 * rate.low:.1f}–{100 * rate.high:.1f}"]
    if compared is None or len(compared) != len(wrong):
        return [*cells, "", "", ""]
    found = paired_difference(wrong, compared)
    ends = f"{100 * found.low:+.1f} to {100 * found.high:+.1f}"
    return [*cells, f"{100 * found.difference:+.2f}", ends, f"{found.p:.3f}"]


if __name__ == "__main__":
    main()

"""`python experiments/finetune.py --data DIR --results FILE`: what are other weights worth?

A network is trained on a folder of photographs from random weights (preset `small`) and from other
weights, as in 2012 (preset `finetune`) and by the recipe of `small`, each over several numbers of
epochs, every time with its schedule fitted to them. The validation images serve the errors in the
table and nothing else.

The results go to a file of JSON lines (experiments/arms.py). The same command, started again,
continues where it stopped; `--report` only prints what the file holds.
"""

import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

if not __package__:
    # Run as a script, Python puts this file's folder on the path, not the project's root.
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
import tyro
from rich.console import Console
from rich.table import Table

from experiments.arms import Arm, Line, ResultsFile, run_arms
from model.weights.checkpoint import Weights, load_weights
from storage.home import home_from_environment
from storage.pretrained import SHIPPED
from training.dataset.find_source import find_source
from training.dataset.prepare import prepare
from training.evaluation.confidence import error_rate
from training.optimisation.device import keep_freed_memory
from training.recipe.config import SMALL, fit_finetuning
from training.recipe.options import Options as TrainingOptions

SCRATCH, FINETUNED = "from random weights", "fine-tuned"
BY_SMALL = "fine-tuned by small"


@dataclass(frozen=True, kw_only=True)
class Options:
    """Train on a folder of photographs from random weights and from other weights."""

    results: Path
    """File of JSON lines."""
    data: str = ""
    """Folder of photographs."""
    weights: Path = SHIPPED.weights
    """What fine-tuning starts from; by default the weights that ship with the project."""
    epochs: tuple[int, ...] = (1, 3, 10)
    """Lengths of the trainings, in epochs."""
    seeds: int = 1
    """How often each training is repeated, with seeds from 0."""
    precision: Literal["auto", "f32", "bf16"] = "auto"
    """Precision of the layers' arithmetic."""
    report: bool = False
    """Only print the table."""


def main() -> None:
    """Train what is missing, then print the table."""
    options, console = tyro.cli(Options), Console()
    results = ResultsFile(options.results)
    if not options.report:
        keep_freed_memory()
        weights, home = load_weights(options.weights), home_from_environment()
        side, resize = weights.config.side, weights.config.resize
        source = find_source(options.data)
        run_arms(
            list_arms(weights, options.epochs, options.seeds),
            prepare(source, home.prepared, lambda _: None, side=side, resize=resize),
            results,
            TrainingOptions(precision=options.precision),
            console,
        )
    console.print(make_table(results.read("result")))


def list_arms(weights: Weights, epochs: Sequence[int], seeds: int) -> list[Arm]:
    """List the trainings, the shortest first."""
    return [
        arm
        for seed in range(seeds)
        for count in sorted(epochs)
        for arm in (
            Arm(name=SCRATCH, recipe=replace(SMALL, epochs=count, seed=seed)),
            Arm(
                name=FINETUNED,
                recipe=replace(fit_finetuning(count), seed=seed),
                weights=weights,
            ),
            Arm(name=BY_SMALL, recipe=replace(SMALL, epochs=count, seed=seed), weights=weights),
        )
    ]


def make_table(lines: Sequence[Line]) -> Table:
    """Format the results, those of each dataset together."""
    table = Table(title="Top-1 error of the centre crop", caption="95 % intervals (Wilson)")
    for heading in ("data", "weights", "start", "epochs", "seed", "error, %", "95 %"):
        table.add_column(heading, justify="right" if heading in ("epochs", "seed") else "left")

    def order(line: Line) -> tuple[str, int, int, int, str]:
        recipe, arm = line["recipe"], (SCRATCH, FINETUNED, BY_SMALL).index(line["arm"])
        return line["data"], recipe["seed"], recipe["epochs"], arm, line.get("weights", "")

    for line in sorted(lines, key=order):
        recipe = line["recipe"]
        cells = ["diverged", ""]
        if "diverged" not in line:
            rate = error_rate(np.isin(np.arange(line["images"]), line["wrong"]))
            cells = [f"{100 * rate.error:.2f}", f"{100 * rate.low:.1f}–{100 * rate.high:.1f}"]
        names = [line["data"][:8], line.get("weights", "")[:8], line["arm"]]
        table.add_row(*names, str(recipe["epochs"]), str(recipe["seed"]), *cells)
    return table


if __name__ == "__main__":
    main()

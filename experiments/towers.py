"""`python experiments/towers.py --data DIR --results FOLDER`: do the towers divide colour (§6.1)?

The paper found kernels that are largely colour-agnostic on GPU 1 and largely colour-specific on
GPU 2, in every run. The preset `small` is trained with several seeds as the paper's network, as the
one whose towers exchange nothing before fc6, and as the one-GPU net, whose conv1 is divided in two
halves for comparison: what separates those is chance. For each run, conv1's mean colour selectivity
on either side and the p-value of a permutation test of the difference.

The folder holds the results (experiments/arms.py), each run's conv1, and a picture of all of them.
The same command, started again, continues where it stopped. The validation images serve the errors
in the table and nothing else.
"""

import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

if not __package__:
    # Run as a script, Python puts this file's folder on the path, not the project's root.
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch
import tyro
from PIL import Image, ImageDraw
from rich.console import Console
from rich.table import Table
from safetensors.torch import load_file, save_file

from experiments.arms import Arm, Line, ResultsFile, run_arms
from model.visualization.kernels import (
    SelectivityContrast,
    compare_selectivities,
    compute_colour_selectivity,
    find_noise_share,
    split_towers,
)
from storage.home import home_from_environment
from training.dataset.find_source import find_source
from training.dataset.prepare import prepare
from training.optimisation.device import keep_freed_memory
from training.optimisation.state import TrainingState
from training.recipe.config import SMALL, Recipe
from training.recipe.options import Options as TrainingOptions
from training.records.reporting import draw_conv1

VARIANTS = ("paper", "separate-towers", "one-gpu")
SHEET, RESULTS = "conv1.png", "results.jsonl"
MARGIN, CAPTION = 16, 24
"""Pixels around each run's conv1 in the picture of all, and of the line above it."""


@dataclass(frozen=True, kw_only=True)
class Options:
    """Train networks of two towers and of one, and test whether the towers divide colour."""

    results: Path
    """Folder for the results."""
    data: str = ""
    """Folder of photographs."""
    epochs: int = 24
    """Epochs of each training."""
    seeds: int = 3
    """How often each network is trained, with seeds from 0."""
    variants: tuple[str, ...] = VARIANTS
    """The networks."""
    precision: Literal["auto", "f32", "bf16"] = "auto"
    """Precision of the layers' arithmetic."""
    report: bool = False
    """Only print the table and draw the picture."""


def main() -> None:
    """Train what is missing, then print the tables and draw the picture."""
    options, console = tyro.cli(Options), Console()
    if not options.report:
        keep_freed_memory()
        home = home_from_environment()
        run_arms(
            list_arms(SMALL, options.epochs, options.seeds, options.variants),
            prepare(find_source(options.data), home.prepared, lambda _: None),
            ResultsFile(options.results / RESULTS),
            TrainingOptions(precision=options.precision),
            console,
            lambda arm, state: save_conv1(arm, state, options.results),
        )
    lines = list_runs(options.results)
    console.print(make_table(lines))
    console.print(make_summary(lines))
    draw_sheet(lines, options.results).save(options.results / SHEET)


def list_arms(preset: Recipe, epochs: int, seeds: int, variants: Sequence[str]) -> list[Arm]:
    """List the trainings, all networks of one seed before the next seed's."""
    return [
        Arm(name=name, recipe=replace(preset, variant=name, epochs=epochs, seed=seed))
        for seed in range(seeds)
        for name in variants
    ]


def save_conv1(arm: Arm, state: TrainingState, folder: Path) -> Line:
    """Save a trained network's conv1, and return what it shows for the result line."""
    weight = state.network.first_conv.weight.detach().float().cpu().contiguous()
    file = f"{arm.name}-seed{arm.recipe.seed}-{arm.epochs}epochs.safetensors"
    folder.mkdir(parents=True, exist_ok=True)
    save_file({"conv1.weight": weight}, folder / file)
    contrast = contrast_halves(weight)
    towers = state.network.config.towers
    return {"conv1": file, "towers": towers, "selectivity": contrast.means, "p": contrast.p}


def contrast_halves(conv1: torch.Tensor) -> SelectivityContrast:
    """Compare the colour selectivity of both halves of conv1, float32 [N, 3, k, k]."""
    first, second = (compute_colour_selectivity(half).tolist() for half in split_towers(conv1))
    return compare_selectivities(first, second)


def list_runs(folder: Path) -> list[Line]:
    """Return the result lines, network by network; of the same run, the last."""
    runs = {
        (line["arm"], line["recipe"]["epochs"], line["recipe"]["seed"]): line
        for line in ResultsFile(folder / RESULTS).read("result")
    }
    return [runs[key] for key in sorted(runs)]


def make_table(lines: Sequence[Line]) -> Table:
    """Format the runs."""
    table = Table(
        title="Mean colour selectivity of conv1’s two halves",  # noqa: RUF001
        caption="p: of a permutation test of the difference. Low: the share of the energy of "
        f"conv1’s kernels at low frequencies; noise has {find_noise_share(11, 11):.2f}.",  # noqa: RUF001
    )
    table.add_column("network")
    for heading in ("epochs", "seed", "top-1 error, %", "first", "second", "difference", "p"):
        table.add_column(heading, justify="right")
    table.add_column("low", justify="right")
    for line in lines:
        recipe = line["recipe"]
        known = [line["arm"], str(recipe["epochs"]), str(recipe["seed"])]
        if "diverged" in line:
            table.add_row(*known, "diverged")
            continue
        first, second = line["selectivity"]
        table.add_row(
            *known,
            f"{100 * len(line['wrong']) / line['images']:.2f}",
            *(f"{value:.3f}" for value in (first, second)),
            f"{second - first:+.3f}",
            f"{line['p']:.4f}",
            f"{line['conv1_low_frequency']:.2f}",
        )
    return table


def make_summary(lines: Sequence[Line]) -> Table:
    """Format what the runs of each network have in common."""
    table = Table(title="By network")
    table.add_column("network")
    for heading in ("epochs", "runs", "mean difference", "runs with p ≤ 0.05", "mean error, %"):
        table.add_column(heading, justify="right")
    for (name, epochs), runs in group_runs(lines):
        differences = [abs(second - first) for first, second in (r["selectivity"] for r in runs)]
        errors = [len(run["wrong"]) / run["images"] for run in runs]
        table.add_row(
            name,
            str(epochs),
            str(len(runs)),
            f"{sum(differences) / len(runs):.3f}",
            str(sum(run["p"] <= 0.05 for run in runs)),
            f"{100 * sum(errors) / len(runs):.2f}",
        )
    return table


def group_runs(lines: Sequence[Line]) -> Iterator[tuple[tuple[str, int], list[Line]]]:
    """Group the runs that did not diverge by network and number of epochs."""
    groups: dict[tuple[str, int], list[Line]] = {}
    for line in lines:
        if "diverged" not in line:
            groups.setdefault((line["arm"], line["recipe"]["epochs"]), []).append(line)
    yield from groups.items()


def draw_sheet(lines: Sequence[Line], folder: Path) -> Image.Image:
    """Draw every run's conv1, one below another, the two towers side by side."""
    pictures = []
    for line in lines:
        if "diverged" not in line:
            weight = load_file(folder / line["conv1"])["conv1.weight"]
            first, second = line["selectivity"]
            caption = (
                f"{line['arm']}, seed {line['recipe']['seed']}, {line['recipe']['epochs']} epochs: "
                f"colour selectivity {first:.3f} and {second:.3f}, p = {line['p']:.4f}"
            )
            pictures.append((caption, draw_conv1(weight, line["towers"])))
    width = max((picture.width for _, picture in pictures), default=0) + 2 * MARGIN
    heights = [picture.height + CAPTION + MARGIN for _, picture in pictures]
    sheet = Image.new("RGB", (width, sum(heights) + MARGIN), "white")
    top = MARGIN
    for (caption, picture), height in zip(pictures, heights, strict=True):
        ImageDraw.Draw(sheet).text((MARGIN, top), caption, fill="black")
        sheet.paste(picture, (MARGIN, top + CAPTION))
        top += height
    return sheet


if __name__ == "__main__":
    main()

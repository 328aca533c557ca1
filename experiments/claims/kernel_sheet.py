"""A picture of conv1 of every run whose halves are compared (§6.1, Figure 3)."""

import io
from collections.abc import Sequence

import numpy as np
import torch
from PIL import Image, ImageDraw

from experiments.claims.experiment import Experiment, find_data_kind
from experiments.claims.pooled import MIN_EPOCHS
from experiments.claims.result import RunResult, read_results
from experiments.claims.runner import Workplace, conv1_file
from storage.files import write_atomically
from storage.findings import locate_kernel_sheet
from training.records.reporting import draw_conv1

MARGIN, CAPTION, SCALE = 24, 24, 2
"""Pixels around each conv1, of the line above it, and of a weight's square."""


def write_kernel_sheet(experiment: Experiment, work: Workplace) -> None:
    """Draw what an experiment's runs have learned so far, and write it beside their results.

    Where the kernels of a run are not in this home, since it was made on another machine, the
    picture stays as it is.
    """
    kind = find_data_kind(work.data.class_names)
    runs = [
        run
        for run in read_results(work.results)
        if run.experiment == experiment.name
        and run.data.kind == kind
        and run.epochs >= MIN_EPOCHS
        and not run.diverged
    ]
    missing = [run for run in runs if not conv1_file(run, work.home).exists()]
    if missing or not runs:
        for run in missing:
            work.console.print(f"{run.arm}, seed {run.seed}: its kernels are not in this home.")
        work.console.print("The picture of the kernels stays as it is.")
        return
    kernels = [torch.from_numpy(np.load(conv1_file(run, work.home))) for run in runs]
    drawn = io.BytesIO()
    draw_sheet(runs, kernels).save(drawn, "PNG", optimize=True)
    write_atomically(locate_kernel_sheet(experiment.name, kind, work.results), drawn.getvalue())


def draw_sheet(runs: Sequence[RunResult], kernels: Sequence[torch.Tensor]) -> Image.Image:
    """Draw the first kernels of runs, float32 [N, 3, k, k] each: a column an arm, a row a seed."""
    arms = list(dict.fromkeys(run.arm for run in runs))
    seeds = sorted({run.seed for run in runs})
    pictures = [draw_conv1(own, 2, SCALE) for own in kernels]
    width = max(picture.width for picture in pictures) + MARGIN
    height = max(picture.height for picture in pictures) + CAPTION + MARGIN
    size = (width * len(arms) + MARGIN, height * len(seeds) + MARGIN)
    sheet = Image.new("RGB", size, "white")
    for run, picture in zip(runs, pictures, strict=True):
        left = MARGIN + width * arms.index(run.arm)
        top = MARGIN + height * seeds.index(run.seed)
        caption = (
            f"{run.arm}, seed {run.seed}: selectivity {run.measured['first half']:.2f} and "
            f"{run.measured['second half']:.2f}, p = {run.measured['p']:.4f}"
        )
        ImageDraw.Draw(sheet).text((left, top), caption, fill="black")
        sheet.paste(picture, (left, top + CAPTION))
    return sheet

"""What some experiments do beside training their arms, or instead of it."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from experiments.claims.baseline import measure_baseline
from experiments.claims.chain import run_chain
from experiments.claims.experiment import Experiment, Setting
from experiments.claims.kernel_sheet import write_kernel_sheet
from experiments.claims.neighbours import measure_neighbours
from experiments.claims.pooled import FIVE, MEMBERS, ONE
from experiments.claims.result import Count, RunResult, name_result, pack
from experiments.claims.runner import Workplace, load_predictions, run_arms_interleaved
from experiments.claims.train import divide
from training.evaluation.predictions import ResultKey, rank_predictions


def run_experiment(
    experiment: Experiment, setting: Setting, seeds: int, weights: Path, work: Workplace
) -> None:
    """Run what is missing of an experiment. Raises StoppedError and ResultError."""
    if experiment.special == "chain":
        return run_chain(experiment, setting, seeds, work)
    if experiment.special == "neighbours":
        return measure_neighbours(experiment, setting, weights, work)
    runs = [run for _, run in run_arms_interleaved(experiment, setting, seeds, work)]
    if experiment.special == "baseline":
        measure_baseline(experiment, setting, seeds, work)
    if experiment.special == "ensemble":
        average_networks(experiment, setting, runs, work)
    if experiment.special == "kernels":
        write_kernel_sheet(experiment, work)
    return None


def average_networks(
    experiment: Experiment, setting: Setting, runs: Sequence[RunResult], work: Workplace
) -> None:
    """Average the predictions of five networks, and write the result."""
    ones = [run for run in runs if run.arm == ONE and not run.diverged][:MEMBERS]
    if len(ones) < MEMBERS:
        work.console.print(f"{len(ones)} networks so far; {MEMBERS} are averaged.")
        return
    parts = divide(work.data, setting)
    mean = np.mean([load_predictions(run, work.home).astype(np.float32) for run in ones], axis=0)
    true = torch.from_numpy(parts.test.val.classes)
    ranks = rank_predictions(torch.from_numpy(mean), true, ResultKey(FIVE, "ten")).rank
    first = ones[0]
    result = replace(
        first,
        arm=FIVE,
        curve=(),
        errors={
            f"crops top-{guesses}": Count(wrong=int((ranks >= guesses).sum()), images=len(ranks))
            for guesses in (1, 5)
        },
        per_image={"crops": pack(ranks >= 1)},
        measured={"networks": float(MEMBERS)},
        cpu_seconds=0.0,
        seconds=0.0,
        copied_from="",
    )
    name = name_result(experiment.name, first.data, first.epochs, FIVE, first.seed)
    result.write(work.results / name)
    work.console.print(f"{name}: top-1 {result.errors['crops top-1'].error:.2%}")

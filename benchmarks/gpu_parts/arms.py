"""The experiments, several networks at a time: the towers, and what each part of `small` is worth.

A step of AlexNet fills a fast GPU for less time than it takes to ask for the next, so a few
processes train side by side. Each compiles once, for all networks of the same shape that it trains.
"""

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file

from benchmarks.gpu_harness.job import ROOT, Job
from benchmarks.gpu_parts.whole_run import prepare_photographs
from experiments.arms import ResultsFile
from experiments.claims.recipes import TOWERS
from experiments.claims.result import read_results
from experiments.claims.runner import conv1_file
from storage.home import Home

WORKERS = 4
"""Processes that train side by side."""
CLAIM = "colour-towers"
"""The experiment on one of the paper's claims; several others read its runs."""
SCALES = (("small", "scale-1"), ("scale-15", "scale-7.5"), ("scale-2",))
"""Divisors of the pixels that are trained with for long; the preset's own is 4."""
RECIPE_ARMS = (
    ("small", "offsets", "batch-128", "no-warmup"),
    ("plateau", "linear", "no-smoothing", "plain-alpha"),
    ("paper-start", "scale-60", "scale-15", "scale-7.5", "scale-2", "scale-1"),
    ("decay-5e-05", "decay-0.001", "rate-0.005", "rate-0.02", "area-0.2", "area-0.5"),
)
"""All arms of the recipe's experiment, for a process each."""
TOWER_EPOCHS, LONG_EPOCHS, SHORT_EPOCHS = 20, 24, 8
SEEDS, SHORT_SEEDS = 5, 3
"""Of the towers, and of the short arms, for which the time may end after the first."""
CONV1, RUNS = "conv1-arms.safetensors", "claims"
"""In the report: the first layers of the towers, and the files of their runs."""


@dataclass(frozen=True, kw_only=True)
class Command:
    """A script of experiments/ with its arguments, and the file that its results go to."""

    name: str
    script: str
    arguments: tuple[str, ...]
    results: Path


def measure(job: Job) -> None:
    """Run the experiments side by side, the longest first; gather their results."""
    commands = list_commands(job)
    prepare_photographs(job)
    ended: dict[str, str] = {}
    with ThreadPoolExecutor(1 if job.quick else WORKERS) as pool:
        for command, how in zip(commands, pool.map(lambda c: run(c, job), commands), strict=True):
            ended[command.name] = how
            job.record(ended=ended, towers=list_runs(job), **gather_recipe(commands))
            keep_runs(job)


def list_commands(job: Job) -> list[Command]:
    """List the commands: towers, divisors of the pixels, parts of the recipe."""
    if job.quick:
        return [
            make_claim_command(job, "two towers", 2, 1),
            make_recipe_command(job, ("small",), 2, 1),
        ]
    return [
        *(make_claim_command(job, arm, TOWER_EPOCHS, SEEDS) for arm in TOWERS),
        *(make_recipe_command(job, names, LONG_EPOCHS, 1) for names in SCALES),
        *(make_recipe_command(job, names, SHORT_EPOCHS, SHORT_SEEDS) for names in RECIPE_ARMS),
    ]


def make_claim_command(job: Job, arm: str, epochs: int, seeds: int) -> Command:
    """Make the command that trains one arm of the experiment on the towers with several seeds."""
    words = (CLAIM, "--arms", arm, "--epochs", str(epochs), "--seeds", str(seeds))
    limits = ("--budget", str(max(1.0, job.seconds_left / 60)), "--results", str(runs_folder(job)))
    return Command(
        name=f"towers, {epochs} epochs: {arm}",
        script="experiments/run.py",
        arguments=(*words, *limits, "--data", str(job.data)),
        results=runs_folder(job),
    )


def runs_folder(job: Job) -> Path:
    """Return the folder of the experiment's results."""
    return job.work / RUNS


def make_recipe_command(job: Job, names: tuple[str, ...], epochs: int, seeds: int) -> Command:
    """Make the command that trains some arms of the recipe's experiment."""
    file = job.work / "experiments" / f"recipe-{epochs}-{names[0]}.jsonl"
    words = ("--results", str(file), "--epochs", str(epochs), "--seeds", str(seeds))
    return Command(
        name=f"recipe, {epochs} epochs: {', '.join(names)}",
        script="experiments/recipe.py",
        arguments=(*words, "--data", str(job.data), "--only", *names),
        results=file,
    )


def run(command: Command, job: Job) -> str:
    """Run a command until the part's deadline; return how it ended."""
    seconds = job.seconds_left - 5
    if seconds < 10:
        return "not started"
    # Otherwise each process would take all cores.
    threads = str(max(1, (os.cpu_count() or 1) // WORKERS))
    limits = {"OMP_NUM_THREADS": threads, "TORCHINDUCTOR_COMPILE_THREADS": threads}
    words = [sys.executable, "-m", "benchmarks.gpu_harness.compat", command.script]
    started = time.monotonic()
    try:
        done = subprocess.run(
            [*words, *command.arguments],
            cwd=ROOT,
            env=job.environment() | limits,
            capture_output=True,
            text=True,
            check=False,
            timeout=seconds,
        )
    except subprocess.TimeoutExpired:
        return f"stopped after {seconds:.0f} s"
    spent = f"after {time.monotonic() - started:.0f} s"
    return f"failed {spent}: {done.stderr[-1000:]}" if done.returncode else f"finished {spent}"


def gather_recipe(commands: Iterable[Command]) -> dict[str, Any]:
    """Return all result lines of the recipe's experiment so far, and each epoch's curve."""
    kept = ("arm", "epoch", "loss", "top1_error", "images_per_second", "conv1_low_frequency")
    found: dict[str, list[Any]] = {"recipe": [], "curves": []}
    for command in commands:
        if command.results.suffix == ".jsonl":
            results = ResultsFile(command.results)
            found["recipe"] += results.read("result")
            for line in results.read("epoch"):
                known = {"epochs": line["recipe"]["epochs"], "seed": line["recipe"]["seed"]}
                found["curves"].append(known | {name: line[name] for name in kept})
    return found


def list_runs(job: Job) -> list[dict[str, Any]]:
    """Return what each run of the towers came to so far."""
    return [
        {"arm": run.arm, "seed": run.seed, "epochs": run.epochs, "diverged": run.diverged}
        | {"error": run.errors["crops top-1"].error if run.errors else None}
        | run.measured
        for run in read_results(runs_folder(job))
    ]


def keep_runs(job: Job) -> None:
    """Copy the files of the towers' runs so far into the report, and their first layers."""
    home, kernels = Home(root=job.work), {}
    for run in read_results(runs_folder(job)):
        if (file := conv1_file(run, home)).exists():
            kernels[f"{run.arm}, seed {run.seed}"] = np.load(file)
    if kernels:
        shutil.copytree(runs_folder(job), job.report / RUNS, dirs_exist_ok=True)
        save_file(kernels, job.report / CONV1)

"""The experiments, several networks at a time: the towers, and what each part of `small` is worth.

A step of AlexNet fills a fast GPU for less time than it takes to ask for the next, so a few
processes train side by side. Each compiles once, for all networks of the same shape that it trains.
"""

import os
import subprocess
import sys
import time
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save_file

from benchmarks.gpu_harness.job import ROOT, Job
from benchmarks.gpu_parts.whole_run import prepare_photographs
from experiments.arms import ResultsFile

WORKERS = 4
"""Processes that train side by side."""
VARIANTS = ("paper", "separate-towers", "one-gpu")
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
CONV1 = "conv1-arms.safetensors"


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
            job.record(ended=ended, **gather_results(commands))
            gather_conv1(commands, job.report / CONV1)


def list_commands(job: Job) -> list[Command]:
    """List the commands: towers, divisors of the pixels, parts of the recipe."""
    if job.quick:
        return [
            make_towers_command(job, "paper", 2, 1),
            make_recipe_command(job, ("small",), 2, 1),
        ]
    return [
        *(make_towers_command(job, variant, TOWER_EPOCHS, SEEDS) for variant in VARIANTS),
        *(make_recipe_command(job, names, LONG_EPOCHS, 1) for names in SCALES),
        *(make_recipe_command(job, names, SHORT_EPOCHS, SHORT_SEEDS) for names in RECIPE_ARMS),
    ]


def make_towers_command(job: Job, variant: str, epochs: int, seeds: int) -> Command:
    """Make the command that trains one network with several seeds."""
    folder = job.work / "experiments" / f"towers-{variant}"
    words = ("--results", str(folder), "--epochs", str(epochs), "--seeds", str(seeds))
    return Command(
        name=f"towers, {epochs} epochs: {variant}",
        script="experiments/towers.py",
        arguments=(*words, "--variants", variant, "--data", str(job.data)),
        results=folder / "results.jsonl",
    )


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


def gather_results(commands: Iterable[Command]) -> dict[str, Any]:
    """Return all result lines so far, those of the two scripts apart, and each epoch's curve."""
    kept = ("arm", "epoch", "loss", "top1_error", "images_per_second", "conv1_low_frequency")
    found: dict[str, list[Any]] = {"recipe": [], "towers": [], "curves": []}
    for command in commands:
        results = ResultsFile(command.results)
        found[Path(command.script).stem] += results.read("result")
        for line in results.read("epoch"):
            known = {"epochs": line["recipe"]["epochs"], "seed": line["recipe"]["seed"]}
            found["curves"].append(known | {name: line[name] for name in kept})
    return found


def gather_conv1(commands: Iterable[Command], file: Path) -> None:
    """Put the first layers of all towers trained so far into one file."""
    kernels = {
        path.stem: load_file(path)["conv1.weight"]
        for folder in sorted({command.results.parent for command in commands})
        for path in sorted(folder.glob("*.safetensors"))
    }
    if kernels:
        save_file(kernels, file)

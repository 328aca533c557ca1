"""`python benchmarks/training.py`: images/s of whole training steps, ours against torchvision's.

The contenders take turns of a few steps each, round after round (benchmarks/workers.py), each with
its own allocator settings. The table has the medians over the rounds.

- ours: what `python training/run.py` does: photographs are read, augmented and trained on.
- ours in memory: without the first two, on images in memory as torchvision's.
- two towers: what ours does, in two processes with half of the cores each.
- torchvision: its AlexNet, float32, eager mode, as people run it, on images in memory.
- same settings: torchvision's with our precision, memory format and allocator settings.
- limit: the arithmetic alone: the layers with weights, forward and backward, each on its own.
"""

import json
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

if not __package__:
    # Run as a script, Python puts this file's folder on the path, not the project's root.
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import tyro
from rich.console import Console
from rich.table import Table

from benchmarks.contenders import CONTENDERS, run_contender
from benchmarks.workers import Worker, read_answer, start_turn, start_worker
from storage.machine import read_processor_name
from training.distributed.launch import find_free_port


@dataclass(frozen=True, kw_only=True)
class Options:
    """Measure the speed of training."""

    data: str | None = None
    """Folder of photographs; by default the demo photographs."""
    batch: int = 128
    """Images per step."""
    steps: int = 8
    """Steps per turn. Its first batch is prepared within it, while nothing trains."""
    rounds: int = 4
    """Turns per contender."""
    precision: str = "auto"
    """Precision of ours and of torchvision with the same settings: auto, f32 or bf16."""
    compile: str = "on"
    """Whether ours is compiled: on or off."""
    only: tuple[str, ...] = tuple(CONTENDERS)
    """Names of the contenders."""
    json: Path | None = None
    """File to write the figures to."""


@dataclass(frozen=True)
class TurnFigures:
    """What a contender achieved in a turn."""

    images_per_second: float
    wait: float
    """Share of the time spent waiting for data, 0–1."""
    memory: float
    """Peak memory of its processes together so far, in GiB."""


def main() -> None:
    """Measure and print the table."""
    options = tyro.cli(Options)
    with tempfile.TemporaryDirectory() as home:
        turns = measure(options, home)
    figures = {name: summarise_turns(own, turns) for name, own in turns.items()}
    Console(width=110).print(figures_table(figures, options))
    if options.json:
        options.json.write_text(
            json.dumps({"processor": read_processor_name(), **figures}, indent=2)
        )


def measure(options: Options, home: str) -> dict[str, list[TurnFigures]]:
    """Let all contenders take their turns, after one to warm up that does not count."""
    workers = {name: start_contender(name, options, home) for name in options.only}
    try:
        turns: dict[str, list[TurnFigures]] = {name: [] for name in workers}
        for number in range(options.rounds + 1):
            for name, own in workers.items():
                turn = take_turn(own)
                turns[name] += [turn] * (number > 0)
        return turns
    finally:
        for own in workers.values():
            for worker in own:
                worker.kill()
                worker.wait()


def start_contender(name: str, options: Options, home: str) -> list[Worker]:
    """Start the processes of a contender and wait until they are ready for their first turn."""
    job = {
        "name": name,
        "data": options.data,
        "home": home,
        "batch": options.batch,
        "steps": options.steps,
        "precision": options.precision,
        "compile": options.compile,
        "port": str(find_free_port()),
    }
    workers = [
        start_worker(__file__, "--contend", json.dumps(job), str(rank))
        for rank in range(CONTENDERS[name].processes)
    ]
    for worker in workers:
        read_answer(worker)
    return workers


def take_turn(workers: Sequence[Worker]) -> TurnFigures:
    """Let a contender take its turn, all its processes at once."""
    for worker in workers:
        start_turn(worker)
    answers = [read_answer(worker) for worker in workers]
    return TurnFigures(
        min(answer["images_per_second"] for answer in answers),
        max(answer["wait"] for answer in answers),
        sum(answer["memory"] for answer in answers),
    )


def summarise_turns(
    own: list[TurnFigures], turns: dict[str, list[TurnFigures]]
) -> dict[str, float]:
    """Return a contender's medians, and the medians of its ratios to the others round by round."""
    ratios = {
        f"to {other}": median(
            a.images_per_second / b.images_per_second for a, b in zip(own, theirs, strict=True)
        )
        for other, theirs in turns.items()
    }
    return {
        "images_per_second": median(turn.images_per_second for turn in own),
        "wait": median(turn.wait for turn in own),
        "memory": max(turn.memory for turn in own),
        **ratios,
    }


def figures_table(figures: dict[str, dict[str, float]], options: Options) -> Table:
    """Format the figures."""
    table = Table(title=f"{read_processor_name()}, batches of {options.batch}")
    for heading in ("contender", "images/s", *(f"to {name}" for name in figures), "wait", "GiB"):
        table.add_column(heading, justify="left" if heading == "contender" else "right")
    for name, values in figures.items():
        ratios = (f"{values[f'to {other}']:.2f}" for other in figures)
        speed, wait = f"{values['images_per_second']:.1f}", f"{values['wait']:.1%}"
        table.add_row(name, speed, *ratios, wait, f"{values['memory']:.1f}")
    return table


if __name__ == "__main__":
    if sys.argv[1:2] == ["--contend"]:
        run_contender(json.loads(sys.argv[2]), int(sys.argv[3]))
    else:
        main()

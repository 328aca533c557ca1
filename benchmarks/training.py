"""`python benchmarks/training.py`: images/s of whole training steps, ours against torchvision's.

Every contender has processes of its own, with its own allocator settings, that stand still until
it is their turn: a few steps each, one contender after the other, round after round, so that what
else the machine does falls on all of them alike. Printed is the median of the rounds.

- ours: what `python training/run.py` does, photographs read, augmented and trained on.
- two towers: the same in two processes with half of the cores each.
- torchvision: its AlexNet, float32, eager, as people run it; its images lie in memory.
- same settings: torchvision's in our precision and memory format, with our allocator settings.
- limit: what the processor's matrix products allow for our network's multiplications.
"""

import json
import subprocess
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

from benchmarks.contenders import CONTENDERS, contend
from training.distributed.launch import find_free_port
from training.reporting import read_processor_name


@dataclass(frozen=True, kw_only=True)
class Options:
    """Measure the speed of training."""

    data: str | None = None
    """Folder of photographs; by default the demo photographs."""
    batch: int = 128
    """Images a step."""
    steps: int = 4
    """Steps of a turn."""
    rounds: int = 5
    """Turns of each contender."""
    precision: str = "auto"
    """Of ours and of torchvision in the same settings: auto, f32 or bf16."""
    only: tuple[str, ...] = tuple(CONTENDERS)
    """Contenders, by name."""
    json: Path | None = None
    """File to write the figures to."""


@dataclass(frozen=True)
class Turn:
    """What a contender did in its turn."""

    images_per_second: float
    wait: float
    """Share of the time that it waited for data, 0–1."""
    memory: float
    """Most GiB held by its processes together, so far."""


def main() -> None:
    """Measure and print."""
    options = tyro.cli(Options)
    with tempfile.TemporaryDirectory() as home:
        turns = measure(options, home)
    figures = {name: figure(found, turns) for name, found in turns.items()}
    Console(width=110).print(table(figures, options))
    if options.json:
        options.json.write_text(
            json.dumps({"processor": read_processor_name(), **figures}, indent=2)
        )


def measure(options: Options, home: str) -> dict[str, list[Turn]]:
    """All turns of all contenders; one turn of each, to warm up, is not counted."""
    processes = {name: start(name, options, home) for name in options.only}
    try:
        turns: dict[str, list[Turn]] = {name: [] for name in processes}
        for number in range(options.rounds + 1):
            for name, own in processes.items():
                turn = take_turn(own)
                turns[name] += [turn] * (number > 0)
        return turns
    finally:
        for own in processes.values():
            for process in own:
                process.kill()
                process.wait()


def start(name: str, options: Options, home: str) -> list["subprocess.Popen[str]"]:
    """The processes of a contender, ready for their first turn."""
    count, port = CONTENDERS[name].processes, str(find_free_port())
    told = json.dumps(
        {
            "name": name,
            "data": options.data,
            "home": home,
            "batch": options.batch,
            "steps": options.steps,
            "precision": options.precision,
            "port": port,
        }
    )
    words = [sys.executable, __file__, "--contend", told]
    found = [
        subprocess.Popen(
            [*words, str(rank)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        for rank in range(count)
    ]
    for process in found:
        answer(process)
    return found


def take_turn(processes: Sequence["subprocess.Popen[str]"]) -> Turn:
    """Let a contender do its steps, all its processes at once."""
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    answers = [answer(process) for process in processes]
    return Turn(
        min(found["images_per_second"] for found in answers),
        max(found["wait"] for found in answers),
        sum(found["memory"] for found in answers),
    )


def answer(process: "subprocess.Popen[str]") -> dict[str, float]:
    """The next line that a process writes."""
    assert process.stdout is not None
    line = process.stdout.readline()
    if not line:
        raise SystemExit(f"benchmarks/training.py: a process ended with {process.wait()}")
    found: dict[str, float] = json.loads(line)
    return found


def figure(found: list[Turn], turns: dict[str, list[Turn]]) -> dict[str, float]:
    """Medians, and the median of the ratios to the others in the same round."""
    ratios = {
        f"to {other}": median(
            a.images_per_second / b.images_per_second for a, b in zip(found, theirs, strict=True)
        )
        for other, theirs in turns.items()
    }
    return {
        "images_per_second": median(turn.images_per_second for turn in found),
        "wait": median(turn.wait for turn in found),
        "memory": max(turn.memory for turn in found),
        **ratios,
    }


def table(figures: dict[str, dict[str, float]], options: Options) -> Table:
    """The figures for people."""
    made = Table(title=f"{read_processor_name()}, batches of {options.batch}")
    for heading in ("contender", "images/s", *(f"to {name}" for name in figures), "wait", "GiB"):
        made.add_column(heading, justify="left" if heading == "contender" else "right")
    for name, found in figures.items():
        ratios = (f"{found[f'to {other}']:.2f}" for other in figures)
        speed, wait = f"{found['images_per_second']:.1f}", f"{found['wait']:.1%}"
        made.add_row(name, speed, *ratios, wait, f"{found['memory']:.1f}")
    return made


if __name__ == "__main__":
    if sys.argv[1:2] == ["--contend"]:
        contend(json.loads(sys.argv[2]), int(sys.argv[3]))
    else:
        main()

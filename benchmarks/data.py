"""`python benchmarks/data.py`: how fast batches are prepared, and how long a fast card would wait.

Measured on 1, 2, 4 … cores, to which this process is bound in turn:

- raw: crop, mirror and colour of stored pixels.
- JPEG: the same of stored JPEGs, which are decoded first.
- decode: reading and decoding stored JPEGs alone.

Then a consumer that takes 1,000, 3,000 and 10,000 images a second asks for batches as the training
loop does; its wait is the share of the time in which none was ready. The stages take turns, and the
medians over the rounds are shown.
"""

import json
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median

if not __package__:
    # Run as a script, Python puts this file's folder on the path, not the project's root.
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
import tyro
from rich.console import Console
from rich.table import Table

from storage.machine import read_processor_name
from storage.parallel import cores
from training.batches.augment import Augmentation
from training.batches.batches import Batches
from training.dataset.demo import make_demo
from training.dataset.find_source import find_source
from training.dataset.prepare import PreparedDataset, prepare
from training.dataset.store import Split
from training.recipe.config import PAPER

STAGES = ("raw", "JPEG", "decode")
CONSUMERS = (1_000, 3_000, 10_000)
"""Images a second that a training card takes."""


@dataclass(frozen=True, kw_only=True)
class Options:
    """Measure how fast batches are prepared."""

    data: str | None = None
    """Folder of photographs; by default the demo photographs."""
    images: int = 1280
    """Images that each measurement prepares."""
    batch: int = 128
    """Images in a batch."""
    rounds: int = 3
    """Measurements of each stage."""
    json: Path | None = None
    """File to write the figures to."""


def main() -> int:
    """Measure, print the tables, and return 0."""
    options, console = tyro.cli(Options), Console(highlight=False)
    with tempfile.TemporaryDirectory() as folder:
        raw, jpeg = prepare_both(options, Path(folder))
        counts = list_core_counts()
        speeds = measure_speeds(raw, jpeg, counts, options)
        waits = {
            f"{name} {rate}": measure_wait(data, rate, options)
            for name, data in (("raw", raw), ("JPEG", jpeg))
            for rate in CONSUMERS
        }
    console.print(f"{read_processor_name()}, {cores()} cores; images a second")
    console.print(make_speed_table(speeds, counts))
    table = Table("consumer, images/s", "waits, raw", "waits, JPEG")
    for rate in CONSUMERS:
        table.add_row(f"{rate:,}", *(f"{waits[f'{name} {rate}']:.0%}" for name in ("raw", "JPEG")))
    console.print(table)
    if options.json:
        figures = {"images_per_second": speeds, "waits": waits}
        options.json.write_text(json.dumps(figures, indent=2) + "\n")
    return 0


def prepare_both(options: Options, store: Path) -> tuple[PreparedDataset, PreparedDataset]:
    """Prepare the photographs as raw pixels and as JPEG, repeated to the wanted number."""
    source = find_source(options.data or str(make_demo(store / "demo")))
    sets = (prepare(source, store / "sets", lambda _: None, budget=b) for b in (10**12, 0))
    raw, jpeg = (replace(data, train=repeat(data.train, options.images)) for data in sets)
    return raw, jpeg


def repeat(split: Split, images: int) -> Split:
    """Repeat a split's images until there are so many."""
    rows = np.arange(images) % len(split)
    entries = list(split.iter_encoded(rows))
    sizes = np.array([len(entry) for entry in entries])
    return replace(
        split,
        classes=split.classes[rows],
        chunks=(np.concatenate(entries),),
        counts=np.array([images]),
        starts=np.cumsum(sizes) - sizes,
        sizes=sizes,
    )


def list_core_counts() -> list[int]:
    """Return 1, 2, 4 … up to the cores that there are."""
    counts = [2**n for n in range(8) if 2**n < cores()]
    return [*counts, cores()]


def measure_speeds(
    raw: PreparedDataset, jpeg: PreparedDataset, counts: list[int], options: Options
) -> dict[str, float]:
    """Measure each stage on each number of cores, in turn; return images a second."""
    stages: dict[str, Callable[[], int]] = {
        "raw": lambda: count_images(make_batches(raw, options)),
        "JPEG": lambda: count_images(make_batches(jpeg, options)),
        "decode": lambda: sum(1 for _ in jpeg.train.iter_images(np.arange(len(jpeg.train)))),
    }
    everything = os.sched_getaffinity(0)
    found: dict[str, list[float]] = {}
    for _ in range(options.rounds):
        for count in counts:
            os.sched_setaffinity(0, sorted(everything)[:count])
            for name, run in stages.items():
                start = time.perf_counter()
                images = run()
                speed = images / (time.perf_counter() - start)
                found.setdefault(f"{name} {count}", []).append(speed)
    os.sched_setaffinity(0, everything)
    return {name: median(values) for name, values in found.items()}


def make_batches(data: PreparedDataset, options: Options) -> Batches:
    """Return an epoch of the paper's batches."""
    config = PAPER.network(len(data.class_names))
    augmentation: Augmentation = PAPER.augmentation(config)
    return Batches(data, augmentation, batch=options.batch)


def count_images(batches: Batches) -> int:
    """Prepare all batches; return how many images they have."""
    return sum(len(batch.rows) for batch in batches)


def measure_wait(data: PreparedDataset, rate: int, options: Options) -> float:
    """Return the share of its time that a consumer of so many images a second waits."""
    waited, start = 0.0, time.perf_counter()
    batches: Iterator[object] = iter(make_batches(data, options))
    while True:
        asked = time.perf_counter()
        if next(batches, None) is None:
            break
        waited += time.perf_counter() - asked
        time.sleep(options.batch / rate)
    return waited / (time.perf_counter() - start)


def make_speed_table(speeds: dict[str, float], counts: list[int]) -> Table:
    """Make the table of images a second by stage and number of cores, with the scaling."""
    table = Table("cores", *STAGES, *(f"{stage}, scaling" for stage in STAGES))
    for count in counts:
        values = [speeds[f"{stage} {count}"] for stage in STAGES]
        shares = [
            value / (count * speeds[f"{stage} 1"])
            for stage, value in zip(STAGES, values, strict=True)
        ]
        table.add_row(
            f"{count}", *(f"{value:,.0f}" for value in values), *(f"{s:.0%}" for s in shares)
        )
    return table


if __name__ == "__main__":
    sys.exit(main())

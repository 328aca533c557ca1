"""`python benchmarks/data.py`: how fast batches are prepared, and how long a fast card would wait.

Measured on 1, 2, 4 … cores, to which this process is bound in turn:

- raw: crop, mirror and colour of stored pixels.
- JPEG: the same of stored JPEGs, which are decoded first.
- decode: reading and decoding stored JPEGs alone.
- bytes, raw and bytes, JPEG: what is left of the first two where a GPU augments: whole squares,
  read or decoded into the memory from which they cross to it, and sent if there is one.

Then a consumer that takes 1,000, 3,000 and 10,000 images a second asks for batches as the training
loop does; its wait is the share of the time in which none was ready. The stages take turns, and the
medians over the rounds are shown.
"""

import json
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from statistics import median

if not __package__:
    # Run as a script, Python puts this file's folder on the path, not the project's root.
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
import torch
import tyro
from rich.console import Console
from rich.table import Table

from storage.machine import read_processor_name
from storage.parallel import cores
from training.batches.augment import Augmentation
from training.batches.batches import Batches, send_batches
from training.batches.streaming import SentPixels, stream_split
from training.dataset.demo import make_demo
from training.dataset.find_source import find_source
from training.dataset.prepare import PreparedDataset, prepare
from training.dataset.store import Split
from training.recipe.config import PAPER

STAGES = ("raw", "JPEG", "decode", "bytes, raw", "bytes, JPEG")
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
        makers = list_makers(raw, jpeg, options)
        waits = {
            f"{name} {rate}": measure_wait(make(), rate, options)
            for name, make in makers.items()
            for rate in CONSUMERS
        }
    console.print(f"{read_processor_name()}, {cores()} cores; images a second")
    console.print(make_speed_table(speeds, counts))
    table = Table("consumer, images/s", *(f"waits, {name}" for name in makers))
    for rate in CONSUMERS:
        table.add_row(f"{rate:,}", *(f"{waits[f'{name} {rate}']:.0%}" for name in makers))
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
    makers = list_makers(raw, jpeg, options)
    makers["decode"] = lambda: jpeg.train.iter_images(np.arange(len(jpeg.train)))
    everything = os.sched_getaffinity(0)
    found: dict[str, list[float]] = {}
    for _ in range(options.rounds):
        for count in counts:
            os.sched_setaffinity(0, sorted(everything)[:count])
            for name, make in makers.items():
                start = time.perf_counter()
                for _ in make():
                    pass
                speed = options.images / (time.perf_counter() - start)
                found.setdefault(f"{name} {count}", []).append(speed)
    os.sched_setaffinity(0, everything)
    return {name: median(values) for name, values in found.items()}


def list_makers(
    raw: PreparedDataset, jpeg: PreparedDataset, options: Options
) -> dict[str, Callable[[], Iterable[object]]]:
    """Return what prepares an epoch's batches, by the names of its stages."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    sets = {"raw": raw, "JPEG": jpeg}
    makers: dict[str, Callable[[], Iterable[object]]] = {
        name: partial(make_batches, data, options) for name, data in sets.items()
    }
    for name, data in sets.items():
        makers[f"bytes, {name}"] = partial(send_epoch, data, device, options)
    return makers


def make_batches(data: PreparedDataset, options: Options) -> Batches:
    """Return an epoch of the paper's batches."""
    config = PAPER.network(len(data.class_names))
    augmentation: Augmentation = PAPER.augmentation(config)
    return Batches(data, augmentation, batch=options.batch)


def send_epoch(
    data: PreparedDataset, device: torch.device, options: Options
) -> Iterable[tuple[object, SentPixels]]:
    """Return an epoch of the paper's batches, as they cross to a GPU."""
    batches = make_batches(data, options)
    rows = map(batches.plan_epoch().select_rows, range(len(batches)))
    return send_batches(stream_split(data.train, device), rows)


def measure_wait(batches: Iterable[object], rate: int, options: Options) -> float:
    """Return the share of its time that a consumer of so many images a second waits."""
    waited, start, source = 0.0, time.perf_counter(), iter(batches)
    while True:
        asked = time.perf_counter()
        if next(source, None) is None:
            break
        waited += time.perf_counter() - asked
        time.sleep(options.batch / rate)
    return waited / (time.perf_counter() - start)


def make_speed_table(speeds: dict[str, float], counts: list[int]) -> Table:
    """Make the table of images a second by stage and number of cores, with the scaling."""
    table = Table("stage", *(f"{count} core{'s' * (count > 1)}" for count in counts))
    for stage in STAGES:
        alone = speeds[f"{stage} 1"]
        values = {count: speeds[f"{stage} {count}"] for count in counts}
        table.add_row(
            stage,
            *(f"{value:,.0f} ({value / (count * alone):.0%})" for count, value in values.items()),
        )
    return table


if __name__ == "__main__":
    sys.exit(main())

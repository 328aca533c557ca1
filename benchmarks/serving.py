"""`python benchmarks/serving.py`: how fast images are classified, alone and by the server.

First the ten crops of one image, computed in turns by torch, by this project's other runtimes, and
by torchvision's AlexNet in torch, ONNX Runtime and OpenVINO (random weights; no response
normalisation, and no crops that share layers). Then batches of several images with the fastest of
these runtimes. Then the real server, in a home of its own with the weights but no index: one
client, and many. With `--data`, how the runtimes' answers differ on that folder's validation
photographs.
"""

import json
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

if not __package__:
    # Run as a script, Python puts this file's folder on the path, not the project's root.
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import tyro
from rich.console import Console
from rich.table import Table

from benchmarks.serving_parts.agreement import measure_agreement
from benchmarks.serving_parts.passes import make_peers, make_runtimes, time_alternately
from benchmarks.serving_parts.server import measure_server
from model.runtime.agreement import make_test_images
from model.runtime.machine import describe_machine
from model.weights.checkpoint import load_weights
from storage.pretrained import SHIPPED

REFERENCE = "torchvision, ONNX Runtime f32"
MEGABYTE = 1_000_000


@dataclass(frozen=True, kw_only=True)
class Options:
    """Measure classification: passes, the server, memory, and agreement."""

    weights: Path = SHIPPED.weights
    """Weights file."""
    data: Path | None = None
    """Folder of photographs with val/<class>/; without it agreement is not measured."""
    photographs: int = 200
    """Validation photographs to compare the runtimes on, drawn from a seed."""
    rounds: int = 15
    """Passes of each contender."""
    batches: tuple[int, ...] = (1, 2, 4, 8)
    """Images per pass."""
    peers: bool = True
    """Whether to measure torchvision's AlexNet as well."""
    clients: int = 32
    """Clients that send images at the same time."""
    seconds: float = 20
    """How long they, and the single client, send."""
    json: Path | None = None
    """File to write the figures to."""


def main() -> None:
    """Measure, then print and write the figures."""
    options, console = tyro.cli(Options), Console(width=110)
    figures: dict[str, object] = {"machine": describe_machine()}
    console.print(", ".join(describe_machine().values()))
    weights = load_weights(options.weights)
    runtimes = make_runtimes(weights)
    images = make_test_images(weights.config.side, max(options.batches))
    with TemporaryDirectory() as folder:
        peers = make_peers(Path(folder)) if options.peers else {}
        ours = {
            name: lambda runtime=runtime: runtime.run_ten_crops(images[:1])
            for name, runtime in runtimes.items()
        }
        passes = time_alternately({**ours, **peers}, options.rounds)
        figures["passes"] = passes
        console.print(make_pass_table(passes))
        fastest = min(runtimes, key=lambda name: median(passes[name]))
        batched = {
            str(count): lambda count=count: runtimes[fastest].run_ten_crops(images[:count])
            for count in options.batches
        }
        times = time_alternately(batched, options.rounds)
        per_image = {count: median(some) / int(count) for count, some in times.items()}
        figures["milliseconds per image in batches"] = per_image
        console.print(make_batch_table(per_image, fastest))
        raw = median(passes[fastest])
        if options.data:
            agreement = measure_agreement(runtimes, weights, options.data, options.photographs)
            figures["agreement"] = agreement
            console.print(make_agreement_table(agreement))
        server = measure_server(
            options.weights, Path(folder, "home"), options.clients, options.seconds
        )
        figures["server"] = asdict(server) | {"raw pass, ms": raw}
        console.print(make_server_table(figures["server"]))
    if options.json:
        options.json.write_text(json.dumps(figures, indent=2) + "\n")


def make_pass_table(passes: Mapping[str, list[float]]) -> Table:
    """Lay out the passes, and their medians' ratio to ONNX Runtime's."""
    table = Table("ten crops of one image", "ms, median", "least", "× ONNX Runtime f32")
    for name, times in passes.items():
        ratio = ""
        if REFERENCE in passes:
            ratio = f"{median(times) / median(passes[REFERENCE]):.2f}"
        table.add_row(name, f"{median(times):.1f}", f"{min(times):.1f}", ratio)
    return table


def make_batch_table(per_image: Mapping[str, float], runtime: str) -> Table:
    """Lay out the milliseconds per image."""
    table = Table(f"images per pass, {runtime}", "ms per image")
    for name, value in per_image.items():
        table.add_row(name, f"{value:.1f}")
    return table


def make_server_table(figures: object) -> Table:
    """Lay out the server's figures."""
    table = Table("server", "")
    assert isinstance(figures, dict)
    for name, value in figures.items():
        table.add_row(name.replace("_", " "), f"{value:.1f}" if value is not None else "–")
    return table


def make_agreement_table(agreement: Mapping[str, Mapping[str, float]]) -> Table:
    """Lay out how the runtimes' answers differ from torch's."""
    columns = list(next(iter(agreement.values())))
    table = Table("runtime", *columns)
    for name, found in agreement.items():
        table.add_row(name, *(f"{found[column]:.4f}" for column in columns))
    return table


if __name__ == "__main__":
    main()

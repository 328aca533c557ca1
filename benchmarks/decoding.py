"""`python benchmarks/decoding.py`: what the worst files cost to decode, and ordinary photographs.

Each file is decoded twice: by Pillow alone, the whole file as it is, and as an upload is, by a
`DecoderPool` with the settings' defaults, to the network's square and the picture that is kept. The
table has the memory above that of the idle process, and the computing time; "reserved" is the
memory that is reserved for an upload before it is decoded. Then photographs are decoded in turns in
this process and by the pool, which shows what the way to another process adds.
"""

import io
import json
import os
import resource
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

if not __package__:
    # Run as a script, Python puts this file's folder on the path, not the project's root.
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import tyro
from PIL import Image
from rich.console import Console
from rich.progress import track
from rich.table import Table

from benchmarks.costly_files import FILES, MEGABYTE

if TYPE_CHECKING:
    from app.decoding.child import DecodeRequest
    from app.decoding.pool import DecoderPool


@dataclass(frozen=True, kw_only=True)
class Options:
    """Measure memory and computing time of decoding."""

    megapixels: float = 50
    """Size of the large images."""
    rounds: int = 15
    """How often each photograph is decoded to compare the two ways."""
    max_gigabytes: float = 6
    """Memory that Pillow may take."""
    max_seconds: int = 120
    """Computing time that Pillow may take."""
    only: tuple[str, ...] = ()
    """Names of the files; all by default."""
    json: Path | None = None
    """File to write the figures to."""


@dataclass(frozen=True)
class Cost:
    """What decoding a file took: bytes above the idle process, seconds of computing time."""

    outcome: str
    memory: float = 0
    seconds: float = 0
    reserved: int = 0


class Meter:
    """Measures the highest memory and the computing time of a process from now on."""

    def __init__(self, pid: int) -> None:
        self.folder = Path(f"/proc/{pid}")
        (self.folder / "clear_refs").write_text("5")  # resets VmHWM
        self.start = self.read_bytes("VmRSS"), self.read_seconds()

    def stop(self, outcome: str, reserved: int = 0) -> Cost:
        """Return what the process took."""
        memory, seconds = self.read_bytes("VmHWM"), self.read_seconds()
        return Cost(outcome, memory - self.start[0], seconds - self.start[1], reserved)

    def read_bytes(self, name: str) -> int:
        """Read an entry of the process's status."""
        lines = (self.folder / "status").read_text().splitlines()
        return next(1024 * int(line.split()[1]) for line in lines if line.startswith(name))

    def read_seconds(self) -> float:
        """Read the computing time so far."""
        times = (self.folder / "stat").read_text().rsplit(")", 1)[1].split()[11:13]
        return sum(map(int, times)) / os.sysconf("SC_CLK_TCK")


def decode_by_pillow(file: str) -> None:
    """Decode a whole file as Pillow does by itself, and print the cost."""
    data, meter = Path(file).read_bytes(), Meter(os.getpid())
    Image.MAX_IMAGE_PIXELS = None
    try:
        with Image.open(io.BytesIO(data)) as image:
            image.convert("RGB")
        outcome = "decoded"
    except Exception as error:  # noqa: BLE001 - Pillow raises anything
        outcome = type(error).__name__
    print(json.dumps(asdict(meter.stop(outcome))))  # noqa: T201


def measure_pillow(file: Path, options: Options) -> Cost:
    """Decode a file by Pillow alone, in a process limited in memory and time."""

    def limit() -> None:
        memory = int(options.max_gigabytes * 1000 * MEGABYTE)
        resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
        resource.setrlimit(resource.RLIMIT_CPU, (options.max_seconds, options.max_seconds))

    done = subprocess.run(
        [sys.executable, __file__, PILLOW, file],
        stdout=subprocess.PIPE,
        preexec_fn=limit,
        check=False,
    )
    return Cost(**json.loads(done.stdout)) if done.stdout else Cost(f"exit {done.returncode}")


def measure_pool(data: bytes, pool: "DecoderPool", request: "DecodeRequest") -> Cost:
    """Decode a file as an upload is."""
    from model.image.decode import ImageError, estimate_memory, read_container

    pool.warm_up()
    (process,) = pool.running
    meter, reserved = Meter(process.process.pid), 0
    try:
        reserved = estimate_memory(read_container(data))
        pool.decode(data, request)
        outcome = "decoded"
    except ImageError as error:
        outcome = error.reason
    return meter.stop(outcome, reserved) if process.is_running() else Cost("ended", 0, pool.seconds)


def compare_latency(data: bytes, pool: "DecoderPool", request: "DecodeRequest", rounds: int) -> str:
    """Decode a file in turns in this process and by the pool; the medians, in milliseconds."""
    from app.decoding.child import decode_here

    times: dict[str, list[float]] = {"here": [], "pool": []}
    ways = {"here": decode_here, "pool": pool.decode}
    for _ in range(rounds):
        for name, decode in ways.items():
            start = time.perf_counter()
            decode(data, request)
            times[name].append(1000 * (time.perf_counter() - start))
    here, there = (median(some) for some in times.values())
    return f"{here:.1f} ms in this process, {there:.1f} ms by the pool"


def make_table(costs: dict[str, tuple[int, Cost, Cost]]) -> Table:
    """Lay the figures out."""
    table = Table(title="Pillow alone, and as an upload")
    for head in ("file", "KB", "Pillow", "MB", "s", "upload", "MB", "reserved", "s"):
        table.add_column(head, justify="left" if head in ("file", "Pillow", "upload") else "right")
    for name, (size, pillow, upload) in costs.items():
        own = [pillow.outcome, f"{pillow.memory / MEGABYTE:,.0f}", f"{pillow.seconds:.2f}"]
        sent = [f"{one / MEGABYTE:,.0f}" for one in (upload.memory, upload.reserved)]
        row = (*own, upload.outcome, *sent, f"{upload.seconds:.2f}")
        table.add_row(name, f"{size / 1000:,.0f}", *row)
    return table


def main() -> None:
    """Measure, then print and write the figures."""
    options = tyro.cli(Options)
    # Not above: the processes that measure Pillow should not hold torch.
    from app.config import Settings
    from app.decoding.child import DecodeRequest
    from app.decoding.pool import DecoderPool
    from storage.home import home_from_environment

    settings = Settings(home=home_from_environment({}), secret_key="")
    pool = DecoderPool(1, settings.decode_bytes, settings.decode_seconds)
    request = DecodeRequest(side=256, picture=True)
    console, costs = Console(width=120), {}
    with TemporaryDirectory() as folder:
        chosen = {name: FILES[name] for name in options.only or FILES}
        for name, make in track(chosen.items(), console=Console(stderr=True)):
            file, data = Path(folder, "image"), make(int(options.megapixels * MEGABYTE))
            file.write_bytes(data)
            pillow = measure_pillow(file, options)
            costs[name] = len(data), pillow, measure_pool(data, pool, request)
    console.print(make_table(costs))
    for name in list(FILES)[-2:]:
        latency = compare_latency(FILES[name](0), pool, request, options.rounds)
        console.print(f"{name}: {latency}")
    if options.json:
        rows = {
            name: {"bytes": size, "pillow": asdict(pillow), "upload": asdict(upload)}
            for name, (size, pillow, upload) in costs.items()
        }
        options.json.write_text(json.dumps(rows, indent=2) + "\n")


PILLOW = "--by-pillow"

if __name__ == "__main__":
    if sys.argv[1:2] == [PILLOW]:
        decode_by_pillow(sys.argv[2])
    else:
        main()

"""`python benchmarks/gpu.py --report DIR`: what a GPU makes of this project, in one report.

Each part is a process of its own with a deadline; what a part has measured before it fails or is
stopped stays in the report. The parts are listed in benchmarks/gpu_harness/job.py.
"""

import sys
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Literal

if not __package__:
    # Run as a script, Python puts this file's folder on the path, not the project's root.
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.gpu_harness.job import PARTS, ROOT, Job
from benchmarks.gpu_harness.run import measure_part, run_parts

DATA, WORK = ROOT / "data", ROOT / "var" / "gpu-work"


@dataclass(frozen=True, kw_only=True)
class Options:
    """Measure this project on a GPU, and leave a report: a JSON file, a page and pictures.

    `pack --data DIR --to DIR` packs what a bare machine lacks, `page --report DIR` writes
    docs/gpu.md from a report; `--help` after either lists their options.
    """

    report: Path
    """Folder for the report. Parts that ran before on this machine stay in it."""
    data: Path | None = None
    """Folder of photographs, such as Imagenette's; by default `data` beside this project's
    folders, where an unpacked pack has it."""
    device: Literal["cuda", "cpu"] = "cuda"
    """What to measure; the CPU is for rehearsals."""
    quick: bool = False
    """Tiny sizes, to rehearse."""
    only: tuple[str, ...] = ()
    """Names of the parts to run; without it all."""
    skip: tuple[str, ...] = ()
    """Names of parts to leave out."""
    seconds: float = 480.0
    """Seconds for all parts together."""
    work: Path = field(default=WORK)
    """Folder for files that the parts share, 15 GB at most."""


def main() -> int:
    """Run the parts, pack, or write the page."""
    command = sys.argv[1:2]
    if command == ["--part"]:
        return measure_part(sys.argv[2])
    import tyro

    if command in (["pack"], ["page"]):
        return run_command(sys.argv[1], sys.argv[2:])
    options = tyro.cli(Options)
    if unknown := {*options.only, *options.skip} - set(PARTS):
        sys.exit(f"unknown parts: {', '.join(sorted(unknown))}; choose from {', '.join(PARTS)}")
    names = [name for name in PARTS if name in (options.only or PARTS) and name not in options.skip]
    for folder in (options.report, options.work):
        folder.mkdir(parents=True, exist_ok=True)
    data = options.data or (DATA if DATA.is_dir() else None)
    job = Job(
        part="",
        device=options.device,
        quick=options.quick,
        data=data.resolve() if data else None,
        work=options.work.resolve(),
        report=options.report.resolve(),
        seconds=0,
    )
    run_parts([PARTS[name] for name in names], job, options.seconds, partial(print, flush=True))
    return 0


def run_command(name: str, arguments: list[str]) -> int:
    """Pack for a bare machine, or write the page of a report."""
    import tyro
    from rich.console import Console

    if name == "pack":
        from benchmarks.gpu_harness.pack import PackOptions, pack

        pack(tyro.cli(PackOptions, args=arguments), Console())
    else:
        from benchmarks.gpu_harness.page import PageOptions, write_page

        write_page(tyro.cli(PageOptions, args=arguments))
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""`python benchmarks/gpu.py page --report DIR`: docs/gpu.md, from what the parts measured."""

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.gpu_harness.job import PARTS, ROOT, Result
from benchmarks.gpu_harness.run import REPORT
from benchmarks.gpu_harness.sections import SECTIONS

PAGE, RESULTS = ROOT / "docs" / "gpu.md", ROOT / "benchmarks" / "results" / "gpu.json"
HOW_TO = Path(__file__).with_name("how_to.md")
Report = Mapping[str, Result]


@dataclass(frozen=True, kw_only=True)
class PageOptions:
    """Write docs/gpu.md and keep the report it is made of in benchmarks/results/gpu.json."""

    report: tuple[Path, ...] = ()
    """Folders of reports; of a part that is in several, the last that finished counts. Without
    any the page is written again from the report that is kept."""


def write_page(options: PageOptions) -> None:
    """Merge reports, keep them and write the page."""
    if options.report:
        merged = merge_reports([json.loads((f / REPORT).read_text()) for f in options.report])
        RESULTS.write_text(hide_folders(json.dumps(merged, indent=1, ensure_ascii=False)) + "\n")
    PAGE.write_text(make_page(read_report()))


def hide_folders(text: str) -> str:
    """Leave out the folders of absolute paths, which say something of the machine only."""
    return re.sub(r"(?<![\w.…])/(?:[\w.+@-]+/)+", "…/", text)


def read_report() -> Report:
    """Return the report that is kept; empty if there is none yet."""
    report: Report = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    return report


def merge_reports(reports: Sequence[Report]) -> Report:
    """Merge reports: of each part the last result that finished, else the last with figures."""
    merged: dict[str, Result] = {}
    for report in reports:
        for name, result in report.items():
            if name not in merged or rank(result) >= rank(merged[name]):
                merged[name] = result
    return {name: merged[name] for name in PARTS if name in merged}


def rank(result: Result) -> int:
    """Return how much a result is worth."""
    if result["status"] == "finished":
        return 2
    return 1 if result["figures"] else 0


def make_page(report: Report) -> str:
    """Return the page: what came out, if anything did, and how to measure."""
    parts = (
        f"| `{p.name}` | {p.purpose} | {p.expected:.0f} | {p.seconds:.0f} |" for p in PARTS.values()
    )
    how_to = HOW_TO.read_text().replace("PARTS\n", "".join(f"{line}\n" for line in parts))
    return "\n".join([*list_results(report), how_to])


def list_results(report: Report) -> Iterator[str]:
    """Yield the first half of the page."""
    yield "# On a GPU\n"
    yield "Written by `python benchmarks/gpu.py page`; do not edit it.\n"
    if not report:
        yield (
            "No report has been made yet: nothing in this project has been run on a GPU, neither "
            "images that cross to it as bytes nor float16 with a scaled loss nor TF32. What is "
            "described below prepares it, and was tried on a CPU."
        )
        yield ""
        return
    yield "What `python benchmarks/gpu.py` measured (benchmarks/results/gpu.json has all of it).\n"
    for name, result in report.items():
        yield f"## {PARTS[name].title}\n"
        yield from list_part(name, result)


def list_part(name: str, result: Result) -> Iterator[str]:
    """Yield a part's section; one that failed says how, after what it measured before."""
    section: Callable[[dict[str, Any]], Iterator[str]] = SECTIONS[name]
    if result["figures"]:
        try:
            yield from section(result["figures"])
        except (KeyError, TypeError, ValueError, IndexError) as error:
            # A part that was stopped lacks some figures.
            yield f"The rest is missing ({type(error).__name__}: {error}).\n"
    if result["status"] != "finished":
        lines = str(result["error"]).strip().splitlines() or ["no reason given"]
        yield f"This part {result['status']} after {result['seconds']:.0f} s: {lines[-1]}\n"

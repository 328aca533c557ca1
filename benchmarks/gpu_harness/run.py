"""Run parts one after another, each as a process with a deadline, and gather what they leave."""

import importlib
import json
import os
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

from benchmarks.gpu_harness.job import PARTS, ROOT, Job, Part, Result, result_file
from storage.files import write_atomically

MIN_SECONDS = 5.0
"""Below this a part is not started."""
REHEARSAL_FACTOR = 3
"""Of the deadlines when rehearsing, which may be on a slow or busy machine."""
MAX_LOG_CHARACTERS = 3000
"""Characters of a part's output that the report keeps if it did not finish."""
REPORT = "report.json"
SCRIPT = ROOT / "benchmarks/gpu.py"


def run_parts(
    parts: Sequence[Part],
    template: Job,
    seconds: float,
    say: Callable[[str], None],
) -> dict[str, Result]:
    """Run parts in `seconds` altogether; return every result that the machine has so far.

    template: a job with everything but the part and its deadline. What is written to its report
    folder after each part is whole, so the command can be stopped at any moment.
    """
    end = time.monotonic() + seconds
    results = read_results(template.work)
    for number, part in enumerate(parts):
        left = end - time.monotonic()
        result = refuse_part(part, template, left)
        if result is None:
            allowed = share_time(part, parts[number + 1 :], left, template.quick)
            say(f"{part.name}: at most {allowed:.0f} s")
            result = run_part(part, template, allowed)
        say(f"{part.name}: {result['status']} after {result['seconds']:.0f} s {result['error']}")
        results[part.name] = result
        write_report(results, template)
    return results


def share_time(part: Part, later: Sequence[Part], left: float, quick: bool) -> float:
    """Return the seconds that a part gets of those left; later parts keep what they should take."""
    factor = REHEARSAL_FACTOR if quick else 1
    free = max(part.expected, left - sum(other.expected for other in later))
    return min(factor * part.seconds, free, left)


def refuse_part(part: Part, template: Job, left: float) -> Result | None:
    """Return the result of a part that cannot be started; None if it can."""
    reason = ""
    if left < MIN_SECONDS:
        reason = "there was no time left"
    elif part.photographs and template.data is None:
        reason = "it needs photographs (--data)"
    if not reason:
        return None
    result = {"part": part.name, "status": "skipped", "seconds": 0.0}
    return result | {"error": reason, "figures": {}}


def run_part(part: Part, template: Job, seconds: float) -> Result:
    """Run one part in a process of its own, ended at its deadline with all that it started."""
    job = Job(**{**vars(template), "part": part.name, "seconds": seconds, "figures": {}})
    file, log = result_file(job.work, part.name), job.work / f"{part.name}.log"
    file.unlink(missing_ok=True)
    command = [sys.executable, str(SCRIPT), "--part", job.to_json()]
    started = time.monotonic()
    with log.open("wb") as out:
        process = subprocess.Popen(
            command, stdout=out, stderr=out, cwd=ROOT, start_new_session=True
        )
        try:
            code = process.wait(seconds)
            ended = "" if code == 0 else f"the process ended with {describe_exit(code)}"
        except subprocess.TimeoutExpired:
            ended = f"its deadline of {seconds:.0f} s passed"
        finally:
            end_group(process)
    return read_result(part.name, file, log, ended, time.monotonic() - started)


def end_group(process: "subprocess.Popen[bytes]") -> None:
    """End a process and those that it started."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def describe_exit(code: int) -> str:
    """Describe an exit code, negative for a signal."""
    return signal.Signals(-code).name if code < 0 else f"code {code}"


def read_result(name: str, file: Path, log: Path, ended: str, seconds: float) -> Result:
    """Read the result that a part left; `ended` says why it did not end by itself, if so."""
    empty = {"part": name, "status": "failed", "error": "", "figures": {}}
    result: Result = json.loads(file.read_text()) if file.exists() else empty
    result["seconds"] = round(seconds, 1)
    if ended:
        failed = result["status"] == "failed"
        result["status"] = "failed" if failed else "stopped"
        result["error"] = result["error"] or ended
        result["log"] = log.read_text(errors="replace")[-MAX_LOG_CHARACTERS:]
    return result


def read_results(work: Path) -> dict[str, Result]:
    """Read the results of parts that ran on this machine before, in their order."""
    files = {name: result_file(work, name) for name in PARTS}
    return {name: json.loads(f.read_text()) for name, f in files.items() if f.exists()}


def write_report(results: dict[str, Result], job: Job) -> None:
    """Write the results to the report's folder, in the parts' order, and keep them for later."""
    for name, result in results.items():
        write_atomically(result_file(job.work, name), json.dumps(result))
    ordered = {name: results[name] for name in PARTS if name in results}
    write_atomically(job.report / REPORT, json.dumps(ordered, indent=1) + "\n")


def measure_part(text: str) -> int:
    """Measure the part that a job names, in this process; return the exit code."""
    import benchmarks.gpu_harness.compat  # noqa: F401 - imports torch, which takes seconds

    job = Job.from_json(text)
    module, name = PARTS[job.part].function.split(":")
    try:
        measure = getattr(importlib.import_module(f"benchmarks.gpu_parts.{module}"), name)
        measure(job)
    except Exception:  # noqa: BLE001 - one part's failure stops no other
        traceback.print_exc()
        job.write("failed", traceback.format_exc())
        return 1
    job.write("finished")
    return 0

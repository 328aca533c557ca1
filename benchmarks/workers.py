"""Worker processes of a benchmark, which take turns.

Each contender runs in processes of its own, which wait for a line on their standard input and
answer each with a line of JSON. Turns go round, so that other load on the machine falls on all
contenders alike.
"""

import json
import subprocess
import sys
from collections.abc import Mapping
from typing import Any

Worker = subprocess.Popen[str]


def start_worker(script: str, *arguments: str) -> Worker:
    """Start a script of benchmarks/ as a worker."""
    return subprocess.Popen(
        [sys.executable, script, *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def start_turn(worker: Worker) -> None:
    """Let a worker take its turn."""
    assert worker.stdin is not None
    worker.stdin.write("go\n")
    worker.stdin.flush()


def read_answer(worker: Worker) -> dict[str, Any]:
    """Wait for a worker's next answer. Raises SystemExit if it has ended instead."""
    assert worker.stdout is not None
    line = worker.stdout.readline()
    if not line:
        raise SystemExit(f"{sys.argv[0]}: a process ended with {worker.wait()}")
    answer: dict[str, Any] = json.loads(line)
    return answer


def write_answer(values: Mapping[str, Any]) -> None:
    """In a worker, answer the process that started it."""
    print(json.dumps(values), flush=True)  # noqa: T201

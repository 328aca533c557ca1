"""The benchmark of serving measures what it says, in small."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from benchmarks.serving_parts.agreement import count_others, find_nearest, measure_error
from benchmarks.serving_parts.passes import time_alternately

ROOT = Path(__file__).resolve().parents[1]


def test_passes_take_turns() -> None:
    order: list[str] = []
    passes = {name: lambda name=name: order.append(name) for name in "ab"}
    times = time_alternately(passes, 2)
    assert order == ["a", "b"] * 3
    assert [len(some) for some in times.values()] == [2, 2]


def test_errors_and_neighbours_are_counted() -> None:
    probabilities = np.array([[0.5, 0.3, 0.2], [0.1, 0.2, 0.7]], np.float32)
    assert measure_error(probabilities, [0, 1], 1) == 0.5
    assert measure_error(probabilities, [0, 1], 2) == 0
    line = np.arange(9, dtype=np.float32)[:, None]
    near = find_nearest(line, line)
    assert near[0] == {1, 2, 3, 4, 5, 6}
    assert near[8] == {2, 3, 4, 5, 6, 7}
    assert count_others([{1, 2}], [{2, 3}]) == 0.5


@pytest.mark.slow
def test_the_server_answers_its_clients(narrow_weights: Path, tmp_path: Path) -> None:
    figures = tmp_path / "figures.json"
    words = ["--weights", narrow_weights, "--no-peers", "--rounds", "1", "--batches", "1", "2"]
    words += ["--clients", "2", "--seconds", "1", "--json", figures]
    done = subprocess.run(
        [sys.executable, "benchmarks/serving.py", *words],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(figures.read_text())
    assert found["passes"]["torch"][0] > 0
    assert set(found["milliseconds per image in batches"]) == {"1", "2"}
    assert found["server"]["clients_images_per_second"] > 0
    assert found["server"]["worker_mb"] > found["server"]["master_mb"] > 0

"""The real server under requests: throughput, waiting times, start and memory."""

import http.client
import io
import os
import re
import signal
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import quantiles

import numpy as np
from PIL import Image

from model.runtime.agreement import make_test_images
from storage.files import switch_link
from storage.home import Home
from storage.pretrained import keep_uninstalled

ROOT = Path(__file__).resolve().parents[2]
MEMORY_CLIENTS = 16
"""How many clients send before the memory is read: so many that each of two workers gets some."""


@dataclass(frozen=True, kw_only=True)
class ServerFigures:
    """What was measured. Milliseconds, images a second, and megabytes (Pss, of 10⁶ bytes).

    first_start, start: until the server says that it is ready, the first time in a home and later.
    second_worker: what a second worker and its decoders add to the whole.
    """

    first_start_ms: float
    start_ms: float
    one_client_p50_ms: float
    one_client_p99_ms: float
    clients_images_per_second: float
    clients_p50_ms: float
    clients_p99_ms: float
    refused: int
    master_mb: float
    worker_mb: float
    second_worker_mb: float


@dataclass
class Answers:
    """What clients got: milliseconds of each classification, and how many were refused."""

    milliseconds: list[float]
    refused: int = 0


def measure_server(weights: Path, root: Path, clients: int, seconds: float) -> ServerFigures:
    """Serve weights from a home of its own, without an index, and send it a photograph."""
    home = Home(root=root)
    keep_uninstalled(home)
    switch_link(home.weights, weights.resolve())
    body = make_upload()
    with serve(root, 1) as (_, _, first_start):
        pass
    with serve(root, 1) as (address, process, start):
        send(address, body, 1, min(2.0, seconds))  # the first images also prepare
        alone = send(address, body, 1, seconds)
        send(address, body, MEMORY_CLIENTS, min(4.0, seconds))
        master, workers = read_memory(process.pid)
        many = send(address, body, clients, seconds)
    with serve(root, 2) as (address, process, _):
        send(address, body, MEMORY_CLIENTS, min(4.0, seconds))
        both = sum(read_memory(process.pid))
    p50, p99 = read_quantiles(alone.milliseconds)
    many50, many99 = read_quantiles(many.milliseconds)
    return ServerFigures(
        first_start_ms=first_start,
        start_ms=start,
        one_client_p50_ms=p50,
        one_client_p99_ms=p99,
        clients_images_per_second=len(many.milliseconds) / seconds,
        clients_p50_ms=many50,
        clients_p99_ms=many99,
        refused=alone.refused + many.refused,
        master_mb=master,
        worker_mb=workers,
        second_worker_mb=both - master - workers,
    )


@contextmanager
def serve(root: Path, workers: int) -> Iterator[tuple[str, subprocess.Popen[str], float]]:
    """Run gunicorn until it is ready; yield its address, process, and the milliseconds it took."""
    command = [sys.executable, "-m", "gunicorn", "--bind", "127.0.0.1:0"]
    command += ["--workers", str(workers), "app:create_app()"]
    limits = {"ALEXNET_API_RATE": "0", "ALEXNET_UPLOAD_RATE": "0"}
    env = {**os.environ, "ALEXNET_HOME": str(root), "ALEXNET_DEVICE": "cpu", **limits}
    began = time.perf_counter()
    with subprocess.Popen(command, cwd=ROOT, env=env, stderr=subprocess.PIPE, text=True) as server:
        assert server.stderr
        line = server.stderr.readline()
        found = re.search(r"http://(127\.0\.0\.1:\d+)", line)
        if not found:
            raise SystemExit(line + server.stderr.read())
        reader = threading.Thread(target=server.stderr.read, daemon=True)
        reader.start()
        try:
            wait_until_ready(found[1], server)
            yield found[1], server, 1000 * (time.perf_counter() - began)
        finally:
            server.send_signal(signal.SIGINT)
            server.wait(60)
            reader.join()


def wait_until_ready(address: str, server: subprocess.Popen[str]) -> None:
    """Ask until the server says that it can answer. Raises SystemExit if it ends."""
    while server.poll() is None:
        try:
            with urllib.request.urlopen(f"http://{address}/readyz", timeout=120):
                return
        except (urllib.error.URLError, ConnectionError):
            time.sleep(0.02)
    raise SystemExit(f"the server ended with {server.returncode}")


def make_upload() -> bytes:
    """Make a JPEG of 500 × 375 pixels, as large as ImageNet's usual photograph."""
    picture, out = Image.fromarray(make_test_images(512, 1)[0, :375, :500]), io.BytesIO()
    picture.save(out, "JPEG", quality=90)
    return out.getvalue()


def send(address: str, body: bytes, clients: int, seconds: float) -> Answers:
    """Let clients send an upload again and again, each on a connection of its own."""
    answers, end = Answers([]), time.perf_counter() + seconds
    threads = [
        threading.Thread(target=send_in_turn, args=(address, body, end, answers))
        for _ in range(clients)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return answers


def send_in_turn(address: str, body: bytes, end: float, answers: Answers) -> None:
    """Send an upload until the time is over; what is answered later does not count.

    A client that is refused comes back when the answer says.
    """
    headers = {"Content-Type": "image/jpeg"}
    connection = http.client.HTTPConnection(address, timeout=120)
    while time.perf_counter() < end:
        began = time.perf_counter()
        connection.request("POST", "/api/classify", body, headers)
        answer = connection.getresponse()
        text, now = answer.read(), time.perf_counter()
        if answer.status == 503:
            answers.refused += 1
            time.sleep(max(0.0, min(float(answer.headers["Retry-After"]), end - now)))
        elif answer.status != 200:
            raise SystemExit(f"{answer.status}: {text.decode(errors='replace')}")
        elif now <= end:
            answers.milliseconds.append(1000 * (now - began))
    connection.close()


def read_quantiles(times: list[float]) -> tuple[float, float]:
    """Return the median and the 99th percentile; NaN without two values."""
    if len(times) < 2:
        return np.nan, np.nan
    cuts = quantiles(times, n=100, method="inclusive")
    return cuts[49], cuts[98]


def read_memory(pid: int) -> tuple[float, float]:
    """Return the Pss of a process, and of all processes below it, in megabytes."""
    return read_pss(pid), sum(map(read_pss, list_processes_below(pid)))


def read_pss(pid: int) -> float:
    """Return a process's proportional share of memory in megabytes."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return next(1024 * int(line.split()[1]) for line in lines if line.startswith("Pss:")) / 1e6


def list_processes_below(pid: int) -> Iterator[int]:
    """Yield the processes that a process started, and those that they started."""
    for task in Path(f"/proc/{pid}/task").iterdir():
        for child in (task / "children").read_text().split():
            yield int(child)
            yield from list_processes_below(int(child))

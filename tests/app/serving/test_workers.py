"""gunicorn with several workers: metrics that add up, and a log of JSON lines."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from storage.home import Home
from storage.pretrained import keep_uninstalled

ROOT = Path(__file__).resolve().parents[3]
COUNTED = re.compile(r'^alexnet_requests_total\{.*route="/livez".*\} ([\d.e+]+)$', re.MULTILINE)
WORKERS = 2


class Server:
    """gunicorn with two workers, JSON lines and metrics, in a folder of its own."""

    def __init__(self, folder: Path) -> None:
        self.temporary = folder / "tmp"
        self.temporary.mkdir()
        keep_uninstalled(Home(root=folder / "home"))
        self.log = folder / "log"
        options = ["--bind", "127.0.0.1:0", "--workers", str(WORKERS)]
        with self.log.open("w") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "gunicorn", *options, "app:create_app()"],
                cwd=ROOT,
                env={
                    **os.environ,
                    "ALEXNET_HOME": str(folder / "home"),
                    "ALEXNET_METRICS": "127.0.0.1",
                    "ALEXNET_LOG": "json",
                    "TMPDIR": str(self.temporary),
                    "OMP_NUM_THREADS": "1",
                },
                stderr=log,
            )
        self.address = ""

    def lines(self) -> list[dict[str, object]]:
        return [json.loads(line) for line in self.log.read_text().splitlines()]

    def find_address(self) -> str | None:
        assert self.process.poll() is None, self.log.read_text()
        found = re.search(r'"serving at (http://[\d.:]+)"', self.log.read_text())
        return found[1] if found else None

    def workers(self) -> list[int]:
        pid = self.process.pid
        return list(map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split()))

    def folder(self) -> Path:
        (found,) = self.temporary.glob("alexnet-metrics-*")
        return found

    def files_of(self, pid: int) -> list[Path]:
        return list(self.folder().glob(f"*_{pid}.db"))

    def ask(self, path: str, **headers: str) -> str:
        request = urllib.request.Request(f"{self.address}{path}", headers=headers)
        with urllib.request.urlopen(request, timeout=60) as answer:
            return answer.read().decode()

    def count(self) -> float:
        return sum(map(float, COUNTED.findall(self.ask("/metrics"))))

    def ask_all_workers(self) -> int:
        """Send requests until each worker has answered one; return how many were sent."""
        sent = 0
        while not all(self.files_of(pid) for pid in self.workers()) or not sent:
            assert sent < 5000
            self.ask("/livez")
            sent += 1
        return sent


def wait_for(look: Callable[[], object]) -> object:
    end = time.monotonic() + 120
    while not (found := look()):
        assert time.monotonic() < end
        time.sleep(0.05)
    return found


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    server = Server(tmp_path_factory.mktemp("server"))
    try:
        server.address = wait_for(server.find_address)
        yield server
    finally:
        if server.process.poll() is None:
            server.process.kill()
        server.process.wait()


@pytest.mark.slow
def test_counts_add_up_over_workers_and_outlive_them(server: Server) -> None:
    sent = server.ask_all_workers()
    assert [server.count() for _ in range(6)] == [sent] * 6
    victim = server.workers()[0]
    os.kill(victim, signal.SIGKILL)
    wait_for(lambda: victim not in server.workers() and len(server.workers()) == WORKERS)
    wait_for(lambda: not server.files_of(victim))
    assert server.count() == sent
    again = server.ask_all_workers()
    assert [server.count() for _ in range(6)] == [sent + again] * 6


@pytest.mark.slow
def test_every_line_is_json_and_names_its_request(server: Server) -> None:
    server.ask("/livez?a=%0Aforged", **{"X-Request-ID": "my-own-request-1"})
    wait_for(lambda: any(line.get("request_id") == "my-own-request-1" for line in server.lines()))
    with socket.create_connection(server.address.removeprefix("http://").split(":")) as client:
        client.sendall(b"GET /\x1b[2J\nforged HTTP/9.9\r\n\r\n")
        assert client.recv(12).startswith(b"HTTP/1.")
    (line,) = [one for one in server.lines() if one.get("request_id") == "my-own-request-1"]
    assert (line["event"], line["route"], line["status"]) == ("request", "/livez", 200)
    text = server.log.read_text()
    assert "forged" not in text
    # Only the address at which it listens.
    assert all("127.0.0.1" not in json.dumps(one) for one in server.lines() if "status" in one)


@pytest.mark.slow
def test_nothing_is_left_at_the_end(server: Server) -> None:
    assert server.folder().is_dir()
    server.process.send_signal(signal.SIGTERM)
    assert server.process.wait(60) == 0
    assert not list(server.temporary.glob("alexnet-metrics-*"))
    assert all(line["level"] in ("info", "warning", "error") for line in server.lines())

"""gunicorn with the worker: it starts, finishes what it has begun, and ends."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

APPLICATION = """
import os, time
from pathlib import Path
from types import SimpleNamespace

class Application:
    config = {"MAX_CONTENT_LENGTH": 1000}
    extensions = {"render_error": lambda status, path: Answer(), "metrics": SimpleNamespace(
        count_closed_connection=lambda reason: None
    )}

    def __call__(self, environ, start_response):
        if environ["PATH_INFO"] == "/slow":
            Path("begun").touch()
            time.sleep(1)
        start_response("200 OK", [("Content-Type", "text/plain")])
        return [str(os.getpid()).encode()]

class Answer:
    status, headers, body = "400 Error", [], b"the page"

application = Application()
"""
ROOT = Path(__file__).resolve().parents[3]


class Server:
    """gunicorn as a process, in a folder of its own."""

    def __init__(self, folder: Path, *options: str) -> None:
        (folder / "tiny.py").write_text(APPLICATION)
        listener = socket.create_server(("127.0.0.1", 0))
        self.port, self.folder = listener.getsockname()[1], folder
        listener.close()
        arguments = ["--bind", f"127.0.0.1:{self.port}", "--log-level", "warning", *options]
        worker = ["--worker-class", "app.serving.worker.BufferedWorker", "--threads", "4"]
        self.process = subprocess.Popen(
            [sys.executable, "-m", "gunicorn", *worker, *arguments, "tiny:application"],
            cwd=folder,
            env=os.environ | {"PYTHONPATH": str(ROOT)},
            stderr=subprocess.PIPE,
            text=True,
        )

    def ask(self, path: str = "/") -> str:
        """Send a request, as soon as the server listens."""
        end = time.monotonic() + 60
        while True:
            try:
                client = socket.create_connection(("127.0.0.1", self.port), timeout=60)
                break
            except ConnectionRefusedError:
                assert time.monotonic() < end
                assert self.process.poll() is None
                time.sleep(0.05)
        with client:
            client.sendall(f"GET {path} HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n".encode())
            return client.makefile("rb").read().decode()


@pytest.fixture
def started(tmp_path: Path) -> Iterator[Server]:
    server = Server(tmp_path, "--max-requests", "3", "--access-logfile", "access.log")
    yield server
    if server.process.poll() is None:
        server.process.kill()
    server.process.wait()
    assert server.process.stderr
    server.process.stderr.close()


def test_a_request_that_has_been_begun_is_answered_before_the_end(started: Server) -> None:
    assert "200 OK" in started.ask()
    assert started.ask("/a b").endswith("the page")
    with socket.create_connection(("127.0.0.1", started.port), timeout=60) as client:
        client.sendall(b"GET /slow HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n")
        while not (started.folder / "begun").exists():
            time.sleep(0.02)
        started.process.send_signal(signal.SIGTERM)
        assert b"200 OK" in client.makefile("rb").read()
    assert started.process.wait(60) == 0
    assert started.process.stderr
    assert started.process.stderr.read() == ""
    log = (started.folder / "access.log").read_text().splitlines()
    assert '"GET / HTTP/1.1" 200' in log[0]


def test_a_worker_is_replaced_after_its_number_of_requests(started: Server) -> None:
    workers = {started.ask().rsplit("\r\n", 1)[1] for _ in range(5)}
    assert len(workers) > 1

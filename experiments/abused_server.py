"""The real server on a home of its own, and clients that talk to it on this machine only."""

import http.client
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

import numpy as np

from experiments.photographs import Photographs, write_weights
from storage.files import switch_link
from storage.home import Home
from storage.pretrained import keep_uninstalled
from training.dataset.demo import make_demo

ROOT = Path(__file__).resolve().parents[1]
ADMIN_TOKEN = "the administrator's own token"
PATIENCE = 60.0
"""Seconds to wait for an answer, or for the server to start."""
SETTINGS = {
    "ALEXNET_DEVICE": "cpu",
    "ALEXNET_INDEX_DEVICE": "cpu",
    "ALEXNET_ADMIN_TOKEN": ADMIN_TOKEN,
    "ALEXNET_UPLOAD_RATE": "0",
    "ALEXNET_API_RATE": "0",
}


class NotLoopbackError(Exception):
    """An address that is not this machine's own."""


class Answer(NamedTuple):
    """status: 0 if the connection was closed without an answer."""

    status: int
    headers: dict[str, str]
    body: bytes
    seconds: float


def ask(
    address: str,
    path: str,
    body: bytes | None = None,
    *,
    method: str = "",
    **headers: str,
) -> Answer:
    """Send a request on a connection of its own. `_` in a header's name stands for a hyphen."""
    host, port = split_loopback(address)
    connection = http.client.HTTPConnection(host, port, timeout=PATIENCE)
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    began = time.perf_counter()
    try:
        connection.request(method or ("GET" if body is None else "POST"), path, body, named)
        response = connection.getresponse()
        found = {name.lower(): value for name, value in response.getheaders()}
        content = response.read()
        return Answer(response.status, found, content, time.perf_counter() - began)
    except (OSError, http.client.HTTPException):
        return Answer(0, {}, b"", time.perf_counter() - began)
    finally:
        connection.close()


def split_loopback(address: str) -> tuple[str, int]:
    """Return host and port. Raises NotLoopbackError unless it is this machine's own address."""
    parts = urlsplit(address)
    if parts.scheme != "http" or parts.hostname not in ("127.0.0.1", "::1", "localhost"):
        raise NotLoopbackError(f"{address} is not an address of this machine, http://127.0.0.1:…")
    return parts.hostname, parts.port or 80


def classify(address: str, image: bytes) -> Answer:
    """Send an image to the API."""
    return ask(address, "/api/classify", image, Content_Type="image/jpeg")


def make_form(token: str, image: bytes) -> tuple[bytes, str]:
    """Return the first page's form with an image, and its media type."""
    parts = (
        (b'name="csrf_token"', token.encode()),
        (b'name="image"; filename="a.jpg"\r\nContent-Type: image/jpeg', image),
    )
    head = b"--x\r\nContent-Disposition: form-data; "
    body = b"".join(head + name + b"\r\n\r\n" + data + b"\r\n" for name, data in parts)
    return body + b"--x--\r\n", "multipart/form-data; boundary=x"


@dataclass
class Browser:
    """A browser without a window: it keeps its cookie."""

    address: str
    cookie: str = field(default="")

    def ask(self, path: str, body: bytes | None = None, **headers: str) -> Answer:
        """Send a request with the cookie."""
        answer = ask(self.address, path, body, Cookie=self.cookie, **headers)
        if given := answer.headers.get("set-cookie"):
            self.cookie = given.split(";")[0]
        return answer

    def find_form_token(self, path: str = "/") -> str:
        """Read the forms' token of a page."""
        found = re.search(r'name="csrf_token" value="([^"]+)"', self.ask(path).body.decode())
        return found[1] if found else ""

    def upload(self, image: bytes) -> Answer:
        """Have an image classified and stored; the answer leads to the result."""
        body, kind = make_form(self.find_form_token(), image)
        return self.ask("/", body, Content_Type=kind)

    def send_form(self, path: str, **fields: str) -> Answer:
        """Send a form of fields, with the forms' token."""
        from urllib.parse import urlencode

        sent = urlencode({"csrf_token": self.find_form_token(), **fields}).encode()
        return self.ask(path, sent, Content_Type="application/x-www-form-urlencoded")


@dataclass(frozen=True)
class Server:
    """A running server: its address, its process, and what it has logged."""

    address: str
    process: subprocess.Popen[str]
    log: list[str] = field(default_factory=list)

    def find_processes(self) -> list[int]:
        """Return the server's processes, the first one being gunicorn's master."""
        found = [self.process.pid]
        for pid in found:
            try:
                children = Path(f"/proc/{pid}/task/{pid}/children").read_text()
            except OSError:
                continue
            found += map(int, children.split())
        return found

    def read_memory(self) -> int:
        """Return the memory of all processes, in bytes, what they share counted in each."""
        return sum(map(read_resident_bytes, self.find_processes()))


def read_resident_bytes(pid: int) -> int:
    """Return the memory of a process, in bytes; 0 if it has ended."""
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return 0


@contextmanager
def serve(home: Path, *options: str, **variables: str) -> Iterator[Server]:
    """Run the server as `make serve` does, on a free port; end it as Ctrl-C does."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith("ALEXNET_") and name not in ("DATABASE_URL", "INDEX_URL", "PORT")
    }
    process = subprocess.Popen(
        [sys.executable, "-m", "gunicorn", "--bind", "127.0.0.1:0", *options, "app:create_app()"],
        cwd=ROOT,
        env=kept | SETTINGS | {"ALEXNET_HOME": str(home)} | variables,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        server = Server(read_address(process), process)
        threading.Thread(target=collect_lines, args=(process, server.log), daemon=True).start()
        yield server
    finally:
        process.send_signal(signal.SIGINT)
        try:
            process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def read_address(process: subprocess.Popen[str]) -> str:
    """Wait until a server listens. Raises RuntimeError with its log if it does not."""
    assert process.stderr
    line = process.stderr.readline()
    found = re.match(r"Serving at (\S+) ", line)
    if not found:
        raise RuntimeError(line + process.stderr.read())
    return found[1]


def collect_lines(process: subprocess.Popen[str], log: list[str]) -> None:
    """Read the log to its end, so that the server never waits for that."""
    assert process.stderr
    log.extend(process.stderr)


def wait_for_port(address: str) -> None:
    """Wait until the server answers again, half a minute at most."""
    end = time.monotonic() + 30
    while ask(address, "/livez").status != 200 and time.monotonic() < end:
        time.sleep(0.2)


def make_home(
    place: Path,
    variables: Mapping[str, str],
    data: Path | None = None,
    weights: Path | None = None,
) -> Path:
    """Make a home with weights and an index over a few photographs.

    variables: further settings of the build. data: a folder of photographs, by default the demo
    photographs. weights: by default those of a whole network, not trained.
    """
    home = Home(root=place / "home")
    source = data or make_demo(place / "demo")
    random = np.random.default_rng(0)
    photographs = Photographs.of(source, place / "photographs", 24, random)
    file = home.runs / "abused" / "weights.safetensors"
    switch_link(home.weights, write_weights(weights, photographs.root, file))
    keep_uninstalled(home)
    subprocess.run(
        [sys.executable, "-m", "flask", "index", "build", "--kind", "exact"],
        cwd=ROOT,
        env={**os.environ, **SETTINGS, "ALEXNET_HOME": str(home.root), **variables},
        check=True,
        capture_output=True,
    )
    return home.root


def find_photograph(place: Path) -> bytes:
    """Return a photograph that is not in the index."""
    return next(iter(sorted((place / "photographs" / "val").rglob("*.jpg")))).read_bytes()


def at_once(jobs: Sequence[Callable[[], Answer]]) -> list[Answer]:
    """Do all of them at the same time."""
    with ThreadPoolExecutor(len(jobs)) as pool:
        return list(pool.map(lambda job: job(), jobs))


@contextmanager
def held_open(address: str, begun: Sequence[bytes]) -> Iterator[list[socket.socket]]:
    """Open a connection for each of these beginnings of requests, and keep them open."""
    where = split_loopback(address)
    clients: list[socket.socket] = []
    try:
        for data in begun:
            clients.append(socket.create_connection(where, timeout=PATIENCE))
            clients[-1].sendall(data)
        yield clients
    finally:
        for client in clients:
            client.close()


def exchange(address: str, data: bytes) -> bytes:
    """Send bytes, and return what comes back until the connection ends."""
    with socket.create_connection(split_loopback(address), timeout=PATIENCE) as client:
        try:
            client.sendall(data)
            parts = []
            while part := client.recv(65536):
                parts.append(part)
        except OSError:
            return b""
        return b"".join(parts)

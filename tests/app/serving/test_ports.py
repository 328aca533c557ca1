"""The server says in a sentence why it cannot listen, and listens where PORT says."""

import os
import re
import shlex
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from app.config import SettingsError
from app.serving.ports import check_free, read_port
from deploy.demo import SERVER
from storage.home import Home
from storage.pretrained import keep_uninstalled

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture
def taken() -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener.getsockname()[1]


def start(home: Path, *words: str, **variables: str) -> subprocess.Popen[str]:
    keep_uninstalled(Home(root=home))
    return subprocess.Popen(
        [sys.executable, "-m", "gunicorn", *words, "app:create_app()"],
        cwd=ROOT,
        env={**os.environ, "ALEXNET_HOME": str(home), **variables},
        stderr=subprocess.PIPE,
        text=True,
    )


def refused(home: Path, *words: str, **variables: str) -> str:
    process = start(home, *words, **variables)
    said = process.communicate(timeout=60)[1]
    assert process.returncode not in (0, None)
    assert "Traceback" not in said
    return said


@pytest.mark.parametrize("port", ["http", "-1", "65536", "80 80", "٨٠", "1e3"])
def test_what_is_no_port_is_refused_by_name(port: str) -> None:
    with pytest.raises(SettingsError, match="PORT"):
        read_port({"PORT": port})


def test_without_a_port_it_is_8000() -> None:
    assert read_port({}) == read_port({"PORT": ""}) == 8000


def test_a_wrong_or_taken_port_ends_the_server_with_one_sentence(
    tmp_path: Path, taken: int
) -> None:
    for port in ("eighty", str(taken)):
        said = refused(tmp_path, PORT=port)
        assert port in said
        assert len(said.splitlines()) == 1
    assert "99999" in refused(tmp_path, "--bind", "127.0.0.1:99999")
    assert str(taken) in refused(tmp_path, "--bind", f"127.0.0.1:{taken}")


def test_ports_are_free_as_long_as_nobody_listens(taken: int) -> None:
    check_free([("127.0.0.1", 0), ("::1", 0), "/run/a-file.sock"])
    with pytest.raises(SettingsError, match="in use"):
        check_free([("127.0.0.1", taken)])


def test_the_server_listens_on_its_port(tmp_path: Path) -> None:
    process = start(tmp_path, PORT="0")
    assert process.stderr
    line = process.stderr.readline()
    try:
        assert re.fullmatch(r"Serving at http://127\.0\.0\.1:\d+ .*\n", line)
    finally:
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=60)
    assert process.returncode == 0


def test_serve_starts_the_server_of_the_demo() -> None:
    words = ["make", "--dry-run", "serve", "PORT=8123"]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=True)
    (serve,) = [line for line in done.stdout.splitlines() if "gunicorn" in line]
    assert shlex.split(serve)[-2:] == [".venv/bin/gunicorn", SERVER[-1]]
    assert SERVER[-2] == "gunicorn"

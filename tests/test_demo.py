"""`make demo` serves at once and prepares meanwhile; what ends one ends the other."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from deploy.demo import list_steps
from storage.activity import read_activity

ROOT = Path(__file__).resolve().parents[1]
RUN = """
import json, pathlib, sys
from deploy.demo import DemoStep, serve_and_prepare
server, *commands = json.loads(sys.argv[1])
steps = [DemoStep(f"step {number}", command) for number, command in enumerate(commands)]
sys.exit(serve_and_prepare(server, steps, pathlib.Path(sys.argv[2])))
"""
SERVE = """
import pathlib, signal, sys, time
def end(*_):
    pathlib.Path("served").touch()
    sys.exit()
signal.signal(signal.SIGTERM, end)
signal.signal(signal.SIGINT, end)
pathlib.Path("serving").touch()
while not pathlib.Path("over").exists():
    time.sleep(0.02)
sys.exit(7)
"""
WORK = """
import pathlib, signal, sys
def save(*_):
    pathlib.Path("saved").touch()
    sys.exit(130)
signal.signal(signal.SIGTERM, save)
signal.signal(signal.SIGINT, save)
pathlib.Path("working").touch()
while True:
    signal.pause()
"""
ACTIVITY = "activity.json"
WAIT = """
import time
while not os.path.exists({!r}):
    time.sleep(0.01)
"""
StartProcess = Callable[..., subprocess.Popen[str]]


def python(code: str, folder: Path) -> list[str]:
    return [sys.executable, "-c", f"import os; os.chdir({str(folder)!r})\n{code}"]


def wait_for(file: Path, process: subprocess.Popen[str]) -> None:
    """Wait until the file is there; the tests' own limit of time ends it otherwise."""
    while not file.exists():
        assert process.poll() is None
        time.sleep(0.01)


@pytest.fixture
def demo(tmp_path: Path, start_process: StartProcess) -> Callable[..., subprocess.Popen[str]]:
    """Starts a server and steps, each Python code, that run in the test's folder."""

    def start(*codes: str) -> subprocess.Popen[str]:
        commands = json.dumps([python(code, tmp_path) for code in codes])
        return start_process(
            [sys.executable, "-c", RUN, commands, str(tmp_path / ACTIVITY)],
            cwd=ROOT,
            stdout=subprocess.PIPE,
        )

    return start


def test_the_steps_run_in_their_order_beside_the_server(demo: StartProcess, tmp_path: Path) -> None:
    first = "open('first', 'w').close()"
    second = "assert os.path.exists('first'); open('over', 'w').close()"
    process = demo(SERVE, first, second)
    said, _ = process.communicate()
    assert process.returncode == 7, "the server's status"
    assert [line for line in said.splitlines() if line.startswith("== ")][:2] == [
        "== step 0",
        "== step 1",
    ]


def test_a_step_that_fails_ends_the_server_and_gives_its_status(
    demo: StartProcess, tmp_path: Path
) -> None:
    fail = f"{WAIT.format('serving')}os._exit(3)"
    process = demo(SERVE, fail, "open('never', 'w').close()")
    assert process.wait() == 3
    assert (tmp_path / "served").exists()
    assert not (tmp_path / "never").exists()


def test_a_server_that_ends_stops_what_is_under_way(demo: StartProcess, tmp_path: Path) -> None:
    process = demo(f"{WAIT.format('working')}os._exit(2)", WORK)
    assert process.wait() == 2
    assert (tmp_path / "saved").exists()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_asked_to_end_both_end(demo: StartProcess, tmp_path: Path, number: signal.Signals) -> None:
    """Ctrl-C reaches all processes of a terminal, SIGTERM only the one it is sent to."""
    process = demo(SERVE, WORK)
    for file in ("serving", "working"):
        wait_for(tmp_path / file, process)
    under_way = read_activity(tmp_path / ACTIVITY)
    assert under_way
    assert under_way.step == "step 0"
    send = os.killpg if number == signal.SIGINT else os.kill
    send(process.pid, number)
    assert process.wait() in {0, 130}
    assert (tmp_path / "served").exists()
    assert (tmp_path / "saved").exists()
    assert read_activity(tmp_path / ACTIVITY) is None


def test_the_steps_are_the_documented_commands() -> None:
    train, index = list_steps("", "")
    assert train.command[1:] == ["training/run.py", "--if-needed", "--no-ten-crops"]
    assert index.command[1:] == ["-m", "flask", "index", "build", "--if-needed"]
    assert list_steps("a folder", "")[0].command[-2:] == ["--data", "a folder"]
    imported, index = list_steps("a folder", "imagenet")
    assert imported.command[-4:] == ["weights", "import", "imagenet", "--if-needed"]
    assert "training/photographs.py --data 'a folder'" in index.command[-1]

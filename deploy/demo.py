"""`make demo`: serve at once, and behind the page train the network and index its photographs.

The server says on its first page how far everything is, and puts network and index into service as
they are finished. Each part is a command that works alone, too: this only starts them in their
order. If one fails, the server ends with it; if the server ends, so does what is under way, and the
next `make demo` goes on from there.
"""

import argparse
import os
import shlex
import signal
import subprocess
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from types import FrameType
from typing import NamedTuple

if not __package__:
    # Run as a script, Python puts this file's folder on the path, not the project's root.
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from storage.activity import record_activity
from storage.home import home_from_environment
from storage.progress import ignore_progress

ROOT = Path(__file__).resolve().parents[1]
SERVER = (sys.executable, "-m", "gunicorn", "app:create_app()")
FLASK = (sys.executable, "-m", "flask")
STOP_SECONDS = 60.0
"""How long a part may take to save its work when it is asked to end; then it is killed."""


class DemoStep(NamedTuple):
    """A part of the preparation, and the command that does it, or finds it done."""

    title: str
    command: Sequence[str]


def main() -> None:
    """Serve and prepare."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--data", default="", help="folder of photographs, or imagenette")
    parser.add_argument("--weights", default="", help="weights to import instead of training")
    options = parser.parse_args()
    # The server believes whoever comes from this machine, the only address it listens on.
    os.environ.setdefault("ALEXNET_SWITCH_WITHOUT_TOKEN", "1")
    steps = list_steps(options.data, options.weights)
    sys.exit(serve_and_prepare(SERVER, steps, home_from_environment().demo_activity))


def list_steps(data: str, weights: str) -> list[DemoStep]:
    """List what is done behind the page."""
    named = ["--data", data] if data else []
    if not weights:
        training = [sys.executable, "training/run.py", "--if-needed"]
        return [
            DemoStep("1 of 2: train the network", [*training, *(named or ["--no-ten-crops"])]),
            DemoStep(
                "2 of 2: index the features of the training images",
                [*FLASK, "index", "build", "--if-needed"],
            ),
        ]
    find = shlex.join([sys.executable, "training/photographs.py", *named])
    index = shlex.join([*FLASK, "index", "build", "--if-needed", "--data"])
    return [
        DemoStep(
            f"1 of 2: import the weights {weights}; nothing is trained",
            [*FLASK, "weights", "import", weights, "--if-needed"],
        ),
        DemoStep(
            "2 of 2: index the features of the photographs",
            ["sh", "-c", f'folder=$({find}) && exec {index} "$folder"'],
        ),
    ]


def serve_and_prepare(server: Sequence[str], steps: Sequence[DemoStep], activity: Path) -> int:
    """Run the steps beside the server, then wait for it; return the exit status.

    It is the server's, or that of a step that failed. SIGTERM ends everything. activity: the file
    that tells the server's pages that something is under way, also while a step is starting.
    """
    children = [subprocess.Popen(server, cwd=ROOT)]
    asked: set[int] = set()

    def pass_on(signum: int, _frame: FrameType | None) -> None:
        asked.add(signum)
        for child in children:
            # A terminal sends Ctrl-C to all of them itself.
            if signum != signal.SIGINT and child.poll() is None:
                child.send_signal(signum)

    signals = (signal.SIGINT, signal.SIGTERM)
    before = {number: signal.signal(number, pass_on) for number in signals}
    try:
        with record_activity(activity, ignore_progress) as report:
            for step in steps:
                if asked:
                    return children[0].wait()
                announce(step.title)
                report(step.title, 0)
                children.append(subprocess.Popen(step.command, cwd=ROOT))
                wait_for_one_of(children)
                if children[0].poll() is not None:
                    return children[0].returncode
                if status := children.pop().returncode:
                    return status
        announce("The demo is ready; Ctrl-C ends the server")
        return children[0].wait()
    finally:
        for child in children:
            end(child, asked=bool(asked))
        for number, handler in before.items():
            signal.signal(number, handler)


def announce(title: str) -> None:
    """Write a heading to the terminal."""
    sys.stdout.write(f"\n== {title}\n")
    sys.stdout.flush()


def wait_for_one_of(children: Sequence[subprocess.Popen[bytes]]) -> None:
    """Wait until one of the processes has ended."""
    ended = threading.Event()

    def watch(child: subprocess.Popen[bytes]) -> None:
        child.wait()
        ended.set()

    for child in children:
        threading.Thread(target=watch, args=(child,), daemon=True).start()
    ended.wait()


def end(child: subprocess.Popen[bytes], *, asked: bool) -> None:
    """Ask a process to end, unless it was asked, and wait until it has."""
    if not asked and child.poll() is None:
        child.terminate()
    try:
        child.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        child.kill()
        child.wait()


if __name__ == "__main__":
    main()

"""`python experiments/soak.py --minutes 20`: everything at once, for as long as one likes.

On a server with two workers and a home of its own: uploads and pages all the time, index builds one
after the other, a worker killed and the database restarted now and then (PostgreSQL if it is
installed; else SQLite, locked for a while). At the end every upload that was acknowledged is there,
no answer was a 500 or a 503 without its reason, and memory has not grown. Exit code 1 otherwise.
Requests go to this machine's own address only.
"""

import os
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

if not __package__:
    # Run as a script, Python puts this file's folder on the path, not the project's root.
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
import tyro
from rich.console import Console

from experiments.abused_server import (
    ROOT,
    SETTINGS,
    Answer,
    Browser,
    Server,
    ask,
    find_photograph,
    make_home,
    serve,
    wait_for_port,
)

PAGES = ("/", "/models", "/map", "/filters", "/training", "/api/classes", "/readyz", "/explore")
NAMED = (b'"type": "/api#', b"<h1", b'"reason"')
"""What an answer with 503 contains when it says why."""
GROWTH = 1.25
"""How much more memory than in its first third the server may take in the last."""
PAUSE = 0.2
OWNER = "postgres"


@dataclass(frozen=True, kw_only=True)
class Options:
    """Keep a server busy, and disturb it."""

    minutes: float = 20
    """How long."""
    uploaders: int = 2
    """Browsers that upload at once."""
    kill_seconds: float = 40
    """Seconds between two kills of a worker."""
    restart_seconds: float = 30
    """Seconds between two disturbances of the database."""
    seed: int = 0
    """Of every choice."""


@dataclass
class Log:
    """What was seen. Written by several threads, each entry by one step."""

    statuses: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)
    kept: list[tuple[Browser, str]] = field(default_factory=list)
    """Uploads that were acknowledged: whose, and where the result is."""
    memory: list[int] = field(default_factory=list)
    disturbed: Counter[str] = field(default_factory=Counter)

    def note(self, what: str, answer: Answer) -> None:
        """Count an answer, and note it if it is one that must not be."""
        self.statuses[f"{what} {answer.status or 'closed'}"] += 1
        named = any(part in answer.body for part in NAMED) and "retry-after" in answer.headers
        if answer.status == 500 or (answer.status == 503 and not named):
            self.wrong.append(f"{what}: {answer.status} {answer.body[:200]!r}")


def main() -> None:
    """Soak, and say by the exit code whether all held."""
    options = tyro.cli(Options)
    console = Console(width=110, highlight=False)
    place = Path(tempfile.mkdtemp(prefix="soak-"))
    try:
        with database(place) as (url, disturb):
            log = soak(options, place, url, disturb)
    finally:
        shutil.rmtree(place, ignore_errors=True)
    for name, count in sorted(log.statuses.items()):
        console.print(f"{count:>7} {name}")
    third = max(1, len(log.memory) // 3)
    first, last = (float(np.median(part)) for part in (log.memory[:third], log.memory[-third:]))
    console.print(f"disturbed: {dict(log.disturbed)}")
    console.print(f"memory: {first / 1e6:.0f} MB in the first third, {last / 1e6:.0f} in the last")
    if last > GROWTH * first:
        log.wrong.append("memory has grown")
    console.print(f"{len(log.kept)} uploads acknowledged; {len(log.wrong)} things that must not be")
    for one in log.wrong[:20]:
        console.print(f"  {one}", soft_wrap=True)
    sys.exit(1 if log.wrong else 0)


def soak(options: Options, place: Path, url: str, disturb: Callable[[], None]) -> Log:
    """Do everything at once, then look whether every upload is there."""
    variables = {"DATABASE_URL": url} if url else {}
    home, log = make_home(place, variables), Log()
    random = np.random.default_rng(options.seed)
    with serve(home, "--workers", "2", **variables) as server:
        ask(server.address, "/readyz")
        end = time.monotonic() + 60 * options.minutes
        photograph = find_photograph(place)
        jobs = [lambda: upload(server, photograph, log) for _ in range(options.uploaders)]
        jobs += [
            lambda: look(server, random, log),
            lambda: build(home, variables, log),
            lambda: kill_worker(server, options.kill_seconds, end, log),
            lambda: restart(disturb, options.restart_seconds, end, log),
            lambda: measure(server, log),
        ]
        threads = [threading.Thread(target=repeat, args=(job, end, log)) for job in jobs]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        wait_for_port(server.address)
        for browser, path in log.kept:
            answer = browser.ask(path)
            log.note("a result afterwards", answer)
            if answer.status != 200:
                log.wrong.append(f"lost: {path} is {answer.status}")
    return log


def repeat(job: Callable[[], None], end: float, log: Log) -> None:
    """Do a job again and again until the end."""
    while time.monotonic() < end:
        try:
            job()
        except Exception as error:  # noqa: BLE001 - whatever it is, the soak has found it
            log.wrong.append(f"{type(error).__name__}: {error}")
        time.sleep(PAUSE)


def upload(server: Server, photograph: bytes, log: Log) -> None:
    """Upload an image as a new browser would."""
    browser = Browser(server.address)
    answer = browser.upload(photograph)
    log.note("upload", answer)
    if answer.status == 303:
        log.kept.append((browser, answer.headers["location"]))


def look(server: Server, random: np.random.Generator, log: Log) -> None:
    """Ask for a page."""
    path = PAGES[int(random.integers(len(PAGES)))]
    log.note(path, ask(server.address, path))


def build(home: Path, variables: dict[str, str], log: Log) -> None:
    """Build an index; while the database is away it may fail, in words."""
    done = subprocess.run(
        [sys.executable, "-m", "flask", "index", "build", "--kind", "exact"],
        cwd=ROOT,
        env=os.environ | SETTINGS | {"ALEXNET_HOME": str(home)} | variables,
        capture_output=True,
        text=True,
        check=False,
    )
    log.statuses[f"build {'succeeded' if done.returncode == 0 else 'gave up'}"] += 1
    if "Traceback" in done.stderr:
        log.wrong.append(f"build: {done.stderr[-300:]}")


def kill_worker(server: Server, seconds: float, end: float, log: Log) -> None:
    """Kill one of the workers, after a while."""
    wait(seconds, end)
    master = server.process.pid
    workers = Path(f"/proc/{master}/task/{master}/children").read_text().split()
    if len(workers) > 1:  # never all of them
        os.kill(int(workers[0]), signal.SIGKILL)
        log.disturbed["workers killed"] += 1


def restart(disturb: Callable[[], None], seconds: float, end: float, log: Log) -> None:
    """Disturb the database, after a while."""
    wait(seconds, end)
    disturb()
    log.disturbed["database disturbed"] += 1


def measure(server: Server, log: Log) -> None:
    """Note the memory of all processes."""
    log.memory.append(server.read_memory())
    time.sleep(1)


def wait(seconds: float, end: float) -> None:
    """Wait, not beyond the end."""
    time.sleep(max(0.0, min(seconds, end - time.monotonic())))


@contextmanager
def database(place: Path) -> Iterator[tuple[str, Callable[[], None]]]:
    """Start a PostgreSQL server if there is one: its address, and what restarts it.

    Otherwise the address is empty, for SQLite, which is locked for two seconds instead.
    """
    programs = sorted(Path("/usr/lib/postgresql").glob("*/bin"))
    if not programs or (os.geteuid() == 0 and not shutil.which("runuser")):
        yield "", lambda: lock_sqlite(place / "home" / "app.sqlite3")
        return
    folder = Path(tempfile.mkdtemp(prefix="soak-pg-"))
    if os.geteuid() == 0:
        shutil.chown(folder, OWNER)
    tool, data, port = programs[-1], folder / "data", find_free_port()
    options = f"-p {port} -k {folder} -c listen_addresses=127.0.0.1 -c fsync=off"
    start = (tool / "pg_ctl", "-D", data, "-o", options, "-l", folder / "log", "-w")
    try:
        run(tool / "initdb", "-D", data, "-U", "me", "-A", "trust", "-E", "UTF8", "--no-sync")
        run(*start, "start")
        try:
            yield (
                f"postgresql://me@127.0.0.1:{port}/postgres",
                lambda: run(*start, "-m", "fast", "restart"),
            )
        finally:
            run(tool / "pg_ctl", "-D", data, "-m", "immediate", "-w", "stop")
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def run(*command: str | Path) -> None:
    """Run one of PostgreSQL's programs, which refuse to run as root."""
    as_owner = ["runuser", "-u", OWNER, "--"] if os.geteuid() == 0 else []
    nothing = subprocess.DEVNULL
    subprocess.run(
        [*as_owner, *map(str, command)], cwd="/", stdout=nothing, stderr=nothing, check=True
    )


def find_free_port() -> int:
    """Return a port that nobody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        return int(free.getsockname()[1])


def lock_sqlite(file: Path) -> None:
    """Keep others from writing to the database for two seconds."""
    with closing(sqlite3.connect(file, timeout=30)) as other:
        other.execute("BEGIN IMMEDIATE")
        time.sleep(2)
        other.rollback()


if __name__ == "__main__":
    main()

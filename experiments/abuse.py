"""`python experiments/abuse.py`: what strangers may do to the server, and whether it holds.

Starts the real server on a temporary home, or takes one on this machine by --url, abuses it in
twelve ways, one after the other, and prints what was sent and what was seen. Exit code 1 if one of
them did not hold. Everything is bounded in number and time, and goes to this machine's own address.
docs/serving.md says what is promised.
"""

import json
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

if not __package__:
    # Run as a script, Python puts this file's folder on the path, not the project's root.
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import tyro
from rich.console import Console
from rich.table import Table

from experiments import abuses_of_requests, abuses_of_storage
from experiments.abuse_scene import Outcome, Scene, draw_photograph
from experiments.abused_server import (
    NotLoopbackError,
    find_photograph,
    make_home,
    serve,
    split_loopback,
)


class Point(NamedTuple):
    """A way to abuse the server."""

    abuse: Callable[[Scene], Outcome]
    needs_home: bool = True


POINTS = {
    "slow": Point(abuses_of_requests.send_slowly, needs_home=False),
    "files": Point(abuses_of_requests.send_costly_files),
    "burst": Point(abuses_of_requests.send_many_at_once, needs_home=False),
    "weights": Point(abuses_of_storage.change_weights),
    "health": Point(abuses_of_storage.remove_database),
    "lock": Point(abuses_of_storage.lock_database),
    "malformed": Point(abuses_of_requests.send_malformed, needs_home=False),
    "ownership": Point(abuses_of_requests.take_others_uploads, needs_home=False),
    "disk": Point(abuses_of_storage.fill_disk),
    "tokens": Point(abuses_of_requests.guess_token, needs_home=False),
    "hosts": Point(abuses_of_requests.claim_hosts),
    "clock": Point(abuses_of_storage.set_clock),
}
"""The points by name, in the order in which they are tried."""


@dataclass(frozen=True, kw_only=True)
class Options:
    """Abuse the server."""

    url: str = ""
    """Address of a running server on this machine; only what needs no access to its home is done.
    Its limits on how often an address may ask should be off."""
    only: tuple[str, ...] = ()
    """Names of the points; all by default."""
    data: Path | None = None
    """Folder of photographs, of which some are indexed; by default the demo photographs."""
    weights: Path | None = None
    """Weights of the network; by default those of the whole network, not trained."""
    minutes: float = 10
    """Time after which no further point begins."""
    json: Path | None = None
    """File to write the outcomes to."""


def main() -> None:
    """Abuse, print, and say by the exit code whether all of it held."""
    options = tyro.cli(Options)
    if unknown := set(options.only) - set(POINTS):
        sys.exit(f"There is no {', '.join(sorted(unknown))}; the points are {', '.join(POINTS)}.")
    console = Console(width=130, highlight=False)
    place = Path(tempfile.mkdtemp(prefix="abuse-"))
    try:
        outcomes = run(options, place, console)
    except NotLoopbackError as error:
        sys.exit(str(error))
    finally:
        shutil.rmtree(place, ignore_errors=True)
    console.print(make_table(outcomes))
    if options.json:
        found = {name: outcome._asdict() for name, outcome in outcomes.items()}
        options.json.write_text(json.dumps(found, indent=2) + "\n")
    broken = [name for name, outcome in outcomes.items() if outcome.held is False]
    skipped = [name for name, outcome in outcomes.items() if outcome.held is None]
    console.print(
        f"{len(outcomes) - len(broken) - len(skipped)} held, {len(broken)} did not, "
        f"{len(skipped)} were skipped"
    )
    sys.exit(1 if broken else 0)


def run(options: Options, place: Path, console: Console) -> dict[str, Outcome]:
    """Do each point. Raises NotLoopbackError."""
    if options.url:
        split_loopback(options.url)
    end = time.monotonic() + 60 * options.minutes
    outcomes: dict[str, Outcome] = {}
    with ExitStack() as running:
        if options.url:
            scene = Scene(options.url.rstrip("/"), draw_photograph(), place)
        else:
            home = make_home(place, {}, options.data, options.weights)
            server = running.enter_context(serve(home))
            scene = Scene(server.address, find_photograph(place), place, home, server)
        for name in options.only or POINTS:
            point = POINTS[name]
            if time.monotonic() > end:
                outcomes[name] = Outcome("", f"not begun within {options.minutes:g} minutes")
            elif point.needs_home and scene.home is None:
                outcomes[name] = Outcome("", "needs a server that this command starts itself")
            else:
                outcomes[name] = point.abuse(scene)
            console.print(f"{name}: {describe(outcomes[name])}", soft_wrap=True)
    return outcomes


def describe(outcome: Outcome) -> str:
    """Say in a word whether it held."""
    return {True: "held", False: "DID NOT HOLD", None: "skipped"}[outcome.held]


def make_table(outcomes: dict[str, Outcome]) -> Table:
    """Lay the outcomes out."""
    table = Table(title="What was sent, and what was seen", show_lines=True)
    for head in ("point", "sent", "seen", ""):
        table.add_column(head)
    for name, outcome in outcomes.items():
        table.add_row(name, outcome.sent, outcome.seen, describe(outcome))
    return table


if __name__ == "__main__":
    main()

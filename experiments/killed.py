"""`python experiments/killed.py --times 50`: kill -9 at random moments of `flask index …`.

A real home, real processes, the whole network: builds, updates, rollbacks and prunes are killed,
at moments drawn over a command's whole life or aimed at one of its phases. After every kill

- what is served verifies, and is what was served before or what the command was to serve;
- every version on disk is whole;
- the same command succeeds, goes on from the blocks that were finished, and leaves nothing hidden,
  no more versions than are kept, and a database that lists those on disk and no other.

The phase that a kill fell into is read off what the dead process left. The exit code is 1 at the
first promise that does not hold; then the home is kept.
"""

import json
import shutil
import sys
import tempfile
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

if not __package__:
    # Run as a script, Python puts this file's folder on the path, not the project's root.
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
import tyro
from rich.console import Console
from rich.table import Table

from experiments.commands import (
    AIMS,
    DELETING,
    KINDS,
    SWITCHING,
    BrokenError,
    Command,
    Scene,
    kill,
    phase_of,
)
from experiments.photographs import Photographs, write_weights
from experiments.promises import check_next, check_served, vectors_left
from storage.home import home_from_environment
from training.dataset.demo import make_demo

CYCLE = ("build", "update", "rollback", "update", "build", "update", "update", "prune")
"""What is killed in turn, each time in a new home."""


@dataclass(frozen=True, kw_only=True)
class Options:
    """Kill the commands of the index at random moments, and see that nothing breaks."""

    times: int = 50
    """Kills."""
    data: Path | None = None
    """Folder of photographs, of which some are copied; by default the demo photographs."""
    weights: Path | None = None
    """Weights of the network; by default those of the whole network, not trained."""
    images: int = 48
    """Photographs for training, about."""
    commands: tuple[str, ...] = CYCLE
    """What is killed, in turn: build, update, rollback, prune."""
    aims: tuple[str, ...] = ()
    """Phases that are aimed at, in turn; by default two of three kills are aimed, at any phase."""
    seed: int = 0
    """Of every choice."""
    json: Path | None = None
    """File to write the kills to."""


@dataclass(frozen=True, kw_only=True)
class Kill:
    """One kill. finished: vectors that the dead process left; saved: those not computed again."""

    command: str
    kind: str
    aimed: str
    seconds: float
    phase: str
    served: str
    finished: int
    saved: int
    again: float
    """Seconds that the same command took afterwards."""

    def line(self) -> str:
        """The kill for people."""
        what = f"{self.command} {self.kind}".strip()
        saved = f"; {self.saved} of {self.finished} vectors saved" if self.finished else ""
        return (
            f"{what:<12} killed after {self.seconds:5.2f} s, {self.phase:<16} → serves "
            f"{self.served:<6} again {self.again:4.1f} s{saved}"
        )


def main() -> None:
    """Kill, check, print."""
    options = tyro.cli(Options)
    place = Path(tempfile.mkdtemp(prefix="killed-"))
    console = Console(width=110, highlight=False)
    try:
        kills = run(options, place, partial(console.print, soft_wrap=True))
    except BrokenError as broken:
        console.print(f"Broken: {broken}\nThe home is kept in {place}")
        sys.exit(1)
    shutil.rmtree(place)
    console.print(table(kills))
    if options.json:
        options.json.write_text(json.dumps([asdict(k) for k in kills], indent=2))


def run(options: Options, place: Path, say: Callable[[str], object]) -> list[Kill]:
    """As many kills as are asked for. Raises BrokenError."""
    random = np.random.default_rng(options.seed)
    source = options.data or make_demo(home_from_environment().demo)
    photographs = Photographs.of(source, place / "photographs", options.images, random)
    weights = write_weights(options.weights, photographs.root, place / "weights.safetensors")
    lengths = {} if options.aims else measure(place / "measured", weights, photographs)
    kills: list[Kill] = []
    turn = 0
    scene = Scene.new(place / "home-0", weights)
    while len(kills) < options.times:
        round_, step = divmod(turn, len(options.commands))
        if step == 0 and turn:
            shutil.rmtree(scene.settings.home.root)
            scene = Scene.new(place / f"home-{round_}", weights)
        builds = options.commands[:step].count("build")
        command = Command.of(options.commands[step], list(KINDS)[(builds + round_) % 2], scene)
        turn += 1
        if command.name == "update":
            photographs.change()
        aim = drawn(command, options.aims, len(kills), lengths, random)
        done = kill_and_check(command, scene, photographs, aim)
        if isinstance(done, float):
            # The machine has become faster than when the command was measured.
            lengths[command.label] = done
            say(f"{'':>6} {command.label:<12} was over after {done:.2f} s, before the kill")
            continue
        kills.append(done)
        say(f"{len(kills):>3}/{options.times} {done.line()}")
    return kills


@dataclass(frozen=True, kw_only=True)
class Aim:
    """When to kill: so many seconds after the beginning of a phase, or of the process."""

    phase: str
    seconds: float


def drawn(
    command: Command,
    aims: tuple[str, ...],
    number: int,
    lengths: dict[str, float],
    random: np.random.Generator,
) -> Aim:
    """A moment for the next kill."""
    if not aims and random.random() < 1 / 3:
        return Aim(phase="", seconds=random.uniform(0, lengths[command.label]))
    phase = aims[number % len(aims)] if aims else str(random.choice(list(command.phases)))
    return Aim(phase=phase, seconds=random.uniform(0, command.phases[phase]))


def kill_and_check(
    command: Command, scene: Scene, photographs: Photographs, aim: Aim
) -> Kill | float:
    """Kill a command, and check all that is promised; its seconds where it was over before.

    Raises BrokenError.
    """
    seconds, killed = kill(command, scene, aim.phase, aim.seconds)
    phase = phase_of(command, scene)
    served = check_served(command, scene, photographs)
    finished = len(vectors_left(command, scene))
    said, again = scene.finish(command.words)
    published = command.makes and served == "new"
    saved = check_next(command, scene, photographs, said, 0 if published else finished)
    if not killed:
        return seconds
    return Kill(
        command=command.name,
        kind=command.kind,
        aimed=aim.phase,
        seconds=seconds,
        phase=phase,
        served=served,
        finished=finished,
        saved=saved,
        again=again,
    )


def measure(home: Path, weights: Path, photographs: Photographs) -> dict[str, float]:
    """The seconds that each command takes when nobody kills it."""
    scene = Scene.new(home, weights)
    lengths: dict[str, float] = {}
    steps = [("build", kind) for kind in KINDS]
    for name, kind in [*steps, ("update", ""), ("rollback", ""), ("prune", "")]:
        if name == "update":
            photographs.change()
        command = Command.of(name, kind, scene)
        _, lengths[command.label] = scene.finish(command.words)
    shutil.rmtree(home)
    return lengths


def table(kills: list[Kill]) -> Table:
    """How many kills fell into which phase of which command, and what they cost."""
    made = Table(title=f"{len(kills)} kills, and every promise held")
    labels = sorted({f"{k.command} {k.kind}".strip() for k in kills})
    for heading in ("phase", *labels, "all"):
        made.add_column(heading, justify="left" if heading == "phase" else "right")
    order = dict.fromkeys(["starting", *AIMS, *SWITCHING, *DELETING, "ending"])
    for phase in (phase for phase in order if any(k.phase == phase for k in kills)):
        own = [k for k in kills if k.phase == phase]
        counts = (sum(f"{k.command} {k.kind}".strip() == label for k in own) for label in labels)
        made.add_row(phase, *(str(count or "") for count in counts), str(len(own)))
    finished, saved = sum(k.finished for k in kills), sum(k.saved for k in kills if k.finished)
    made.caption = (
        f"{sum(k.served == 'new' for k in kills)} served the new version already; "
        f"{sum(k.finished > 0 for k in kills)} left finished blocks, {finished:,} vectors, and "
        f"{saved:,} were not computed again"
    )
    return made


if __name__ == "__main__":
    main()

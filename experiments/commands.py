"""Commands of `flask index` as processes of their own, and how far one is, or was when it died."""

import multiprocessing
import os
import sys
import time
from dataclasses import dataclass
from functools import partial
from multiprocessing.context import ForkServerProcess
from pathlib import Path

from flask.cli import main as flask

from app.config import Settings
from app.database.images import list_version_names
from app.database.session import DatabaseError, Sessions, session_factory
from app.indexing import build
from index import store
from index.manifest import MANIFEST_FILE as MANIFEST
from storage.files import switch_link

ROOT = Path(__file__).resolve().parents[1]
BLOCK, SHARD, NEAR = 8, 24, 4
"""Files a block, vectors a shard, photographs for the distance of near-duplicates: a small build
then has many blocks and several shards, as a large one has."""
KEPT = 3
KINDS = {
    "exact": ("--kind", "exact"),
    "pq": ("--kind", "pq", "--set", "lists=4", "--set", "dimensions=16", "--set", "bytes=8"),
}
AIMS = {
    "computing": 2.0,
    "putting together": 0.05,
    "entering images": 0.05,
    "making the kind": 0.5,
    "sealing": 0.05,
    "recording": 0.02,
    "publishing": 0.01,
    "clearing": 0.02,
}
"""Phases of a build and an update between `starting` and `ending`. A kill that is aimed at one
comes at most so many seconds after its beginning."""
SWITCHING = {"switching": 0.02}
DELETING = {"deleting": 0.02}
LONGEST = 240
"""Seconds a command may take."""


class BrokenError(Exception):
    """A promise that does not hold."""


@dataclass(frozen=True, kw_only=True)
class Scene:
    """A home and what is asked of it."""

    settings: Settings
    sessions: Sessions

    @classmethod
    def new(cls, home: Path, weights: Path) -> "Scene":
        """A home with weights and nothing else."""
        settings = Settings.from_environment(variables(home))
        settings.home.root.mkdir(exist_ok=True)
        switch_link(settings.home.weights, weights)
        return cls(settings=settings, sessions=session_factory(settings))

    @property
    def said(self) -> Path:
        """What the last command said."""
        return self.settings.home.root / "said.txt"

    @property
    def root(self) -> Path:
        """The folder of the index."""
        return self.settings.home.index

    @property
    def served(self) -> str | None:
        """The version that is served."""
        return store.read_current_version(self.root)

    def listed(self) -> set[str]:
        """The versions that the database lists."""
        if not self.settings.home.database.exists():
            return set()
        try:
            return list_version_names(self.sessions)
        except DatabaseError as error:
            # The first build dies before the tables are there.
            if "not up to date" in str(error):
                return set()
            raise

    def start(self, words: tuple[str, ...]) -> ForkServerProcess:
        """Run `flask index …` as a process of its own, forked from one that has the libraries."""
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(["__main__"])
        process = context.Process(
            target=flask_in_small, args=(words, variables(self.settings.home.root), self.said)
        )
        process.start()
        return process

    def finish(self, words: tuple[str, ...]) -> tuple[str, float]:
        """Run `flask index …` to its end: what it says, and its seconds. Raises BrokenError."""
        began = time.perf_counter()
        process = self.start(words)
        process.join(LONGEST)
        said = self.said.read_text()
        if process.exitcode:
            raise BrokenError(
                f"flask index {' '.join(words)} ended with {process.exitcode}:\n{said}"
            )
        if process.exitcode is None:
            process.kill()
            raise BrokenError(f"flask index {' '.join(words)} does not end:\n{said}")
        return said, time.perf_counter() - began


def variables(home: Path) -> dict[str, str]:
    """What a process needs to know of a home."""
    return {
        "ALEXNET_HOME": str(home),
        "ALEXNET_DEVICE": "cpu",
        "ALEXNET_INDEX_DEVICE": "cpu",
        "ALEXNET_INDEX_KEPT": str(KEPT),
        # No moment of a command belongs to measuring which runtime is faster.
        "ALEXNET_RUNTIME": "torch",
    }


def flask_in_small(words: tuple[str, ...], environ: dict[str, str], said: Path) -> None:
    """`flask index …` in this process, with small blocks and shards; its output goes to a file."""
    for name in [*os.environ]:
        if name.startswith(("ALEXNET_", "FLASK_")) or name in ("DATABASE_URL", "INDEX_URL"):
            del os.environ[name]
    os.environ.update(environ)
    os.chdir(ROOT)
    output = os.open(said, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(output, 1)
    os.dup2(output, 2)
    small = partial(build.gather_features, batch=BLOCK, block=BLOCK, rows=SHARD)  # type: ignore[attr-defined]
    build.gather_features = small  # type: ignore[attr-defined]
    measure = partial(build.measure_near_duplicate_distance, sample=NEAR)  # type: ignore[attr-defined]
    build.measure_near_duplicate_distance = measure  # type: ignore[attr-defined]
    sys.argv = ["flask", "index", *words]
    flask()


@dataclass(frozen=True, kw_only=True)
class Command:
    """A command as it is given, and what there was before."""

    name: str
    kind: str
    words: tuple[str, ...]
    before: str | None
    versions: tuple[str, ...]
    locked: int
    """When the lock was taken last."""

    @classmethod
    def of(cls, name: str, kind: str, scene: Scene) -> "Command":
        """The command in a scene; only builds have a kind."""
        served, versions = scene.served, tuple(store.list_versions(scene.root))
        words: tuple[str, ...] = (name,)
        if name == "build":
            words += KINDS[kind]
        elif name == "rollback":
            words += (max(v for v in versions if served is None or v < served),)
        elif name == "prune":
            words += ("--keep", "1")
        return cls(
            name=name,
            kind=kind if name == "build" else "",
            words=words,
            before=served,
            versions=versions,
            locked=taken(scene.root),
        )

    @property
    def label(self) -> str:
        """Its name and kind."""
        return f"{self.name} {self.kind}".strip()

    @property
    def makes(self) -> bool:
        """Whether it makes a version."""
        return self.name in ("build", "update")

    @property
    def phases(self) -> dict[str, float]:
        """What can be aimed at."""
        return AIMS if self.makes else SWITCHING if self.name == "rollback" else DELETING

    @property
    def kept(self) -> int:
        """How many versions it leaves at most."""
        return 1 if self.name == "prune" else KEPT


def taken(root: Path) -> int:
    """When the right to build was taken last, in nanoseconds; 0: never."""
    try:
        return (root / store.LOCK_FILE).stat().st_mtime_ns
    except FileNotFoundError:
        return 0


def phase_of(command: Command, scene: Scene) -> str:
    """How far a command is, or was when it died."""
    names = contents(scene.root)
    if taken(scene.root) == command.locked and scene.served == command.before:
        return "starting"
    if command.name == "rollback":
        return "ending" if scene.served == command.words[1] else "switching"
    whole = {name for name in names if store.VERSION_NAME.fullmatch(name)}
    hidden = [name for name in names if name.startswith(".") and name != store.LOCK_FILE]
    if command.name == "prune":
        tidy = len(whole) == 1 and not hidden and scene.listed() == whole
        return "ending" if tidy else "deleting"
    new = whole - set(command.versions)
    if not new:
        return phase_before(scene.root, hidden)
    if scene.served not in new:
        return "publishing" if new <= scene.listed() else "recording"
    tidy = not hidden and len(whole) <= KEPT and scene.listed() == whole
    return "ending" if tidy else "clearing"


def phase_before(root: Path, hidden: list[str]) -> str:
    """How far a version is that is not there yet."""
    drafts = [name for name in hidden if store.VERSION_NAME.fullmatch(name[1:])]
    if drafts:
        there = (root / drafts[0] / MANIFEST).exists()
        return "sealing" if there else "making the kind"
    work = [file for name in hidden if name.startswith(".work") for file in contents(root / name)]
    if not any(file.startswith("shard") for file in work):
        return "computing"
    blocks = any(file.startswith("block") for file in work)
    return "putting together" if blocks else "entering images"


def contents(folder: Path) -> list[str]:
    """The names in a folder, none where there is no such folder."""
    try:
        return os.listdir(folder)  # noqa: PTH208
    except FileNotFoundError:
        return []


def kill(command: Command, scene: Scene, phase: str, seconds: float) -> tuple[float, bool]:
    """Start a command and kill it so long after a phase began, or after its start.

    The seconds that it lived, and whether it was killed, not over before. Raises BrokenError where
    it failed.
    """
    began = time.perf_counter()
    process = scene.start(command.words)
    order = [*command.phases, "ending"]
    wanted = order[order.index(phase) :] if phase else []
    while wanted and process.is_alive() and phase_of(command, scene) not in wanted:
        time.sleep(0.0005)
    process.join(seconds)
    process.kill()
    lived = time.perf_counter() - began
    process.join(LONGEST)
    if process.exitcode and process.exitcode > 0:
        said = scene.said.read_text()
        raise BrokenError(f"{command.label} ended with {process.exitcode}:\n{said}")
    return lived, process.exitcode != 0

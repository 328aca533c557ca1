"""The commands, run as a person runs them: what they say, and what they leave behind."""

import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result
from PIL import Image as Pillow

from app import create_app
from app.config import Settings
from app.database.images import find_version, read_class_folders_by_image
from app.database.session import session_factory
from app.inference.loader import ModelLoader
from app.inference.state import Ready
from index import store
from index.draft import VersionDraft
from model.weights import checkpoint
from storage.files import switch_link
from storage.home import Home

PROJECT = Path(__file__).parents[3]


@pytest.fixture
def home(tmp_path: Path, narrow_settings: Settings, root: Path) -> Settings:
    """A home with weights made of that folder, and nothing else."""
    old = checkpoint.load_weights(narrow_settings.home.weights)
    weights = replace(old, provenance=replace(old.provenance, data=str(root)))
    home = Home(root=tmp_path / "home")
    checkpoint.save_weights(weights, home.runs / "one" / "weights.safetensors")
    switch_link(home.weights, home.runs / "one" / "weights.safetensors")
    return replace(narrow_settings, home=home)


def flask(settings: Settings, *args: str) -> Result:
    return create_app(settings).test_cli_runner().invoke(args=list(args))


def serves(settings: Settings) -> Ready:
    state = ModelLoader(settings, session_factory(settings)).get_state()
    assert isinstance(state, Ready)
    return state


def check_one_line(done: Result, *parts: str) -> None:
    """It ended with exit code 2 and one line on the error stream."""
    assert done.exit_code == 2, done.output
    (line,) = done.stderr.strip().splitlines()
    assert all(part in line for part in parts), line


def test_build_makes_everything_and_serves_it(home: Settings) -> None:
    done = flask(home, "index", "build")
    assert done.exit_code == 0, done.output
    assert "Indexed 27 images" in done.stdout
    assert "27 images added" in done.stdout
    assert "images/s" in done.stdout
    state = serves(home)
    assert len(state.index) == state.version.count == 27
    listed = read_class_folders_by_image(session_factory(home), state.version.id)
    assert set(listed) == set(state.index.id_map.ids.tolist())


def test_if_needed(home: Settings, root: Path) -> None:
    def build_if_needed() -> str:
        done = flask(home, "index", "build", "--if-needed")
        assert done.exit_code == 0, done.output
        return store.read_current_version(home.home.index) or ""

    first = build_if_needed()
    assert first
    assert build_if_needed() == first
    Pillow.new("RGB", (9, 9)).save(root / "train/coffee/new.png")
    second = build_if_needed()
    assert second != first
    (home.home.index / second / "ids.npy").write_bytes(b"damaged")
    third = build_if_needed()
    assert third != second
    home.home.database.unlink()
    fourth = build_if_needed()
    assert fourth != third
    assert build_if_needed() == fourth
    old = checkpoint.load_weights(home.home.weights)
    checkpoint.save_weights(replace(old, mean=old.mean + 1), home.home.weights.resolve())
    assert build_if_needed() != fourth
    serves(home)


def test_if_needed_serves_a_version_that_was_built_before(home: Settings) -> None:
    assert flask(home, "index", "build").exit_code == 0
    first = store.read_current_version(home.home.index)
    before = home.home.weights.resolve()
    other = home.home.runs / "other" / "weights.safetensors"
    old = checkpoint.load_weights(before)
    checkpoint.save_weights(replace(old, mean=old.mean + 1), other)
    # An index of other weights is built beside the one that is served.
    done = flask(home, "index", "build", "--weights", str(other))
    assert done.exit_code == 0, done.output
    assert store.read_current_version(home.home.index) == first
    (second,) = set(store.list_versions(home.home.index)) - {first}
    for weights, version in ((other, second), (before, first), (other, second)):
        switch_link(home.home.weights, weights)
        assert flask(home, "index", "build", "--if-needed").exit_code == 0
        assert store.read_current_version(home.home.index) == version
        serves(home)
    assert len(store.list_versions(home.home.index)) == 2


def test_bad_images_are_listed_and_skipped(home: Settings, root: Path) -> None:
    folder = root / "train/chelsea"
    (folder / "empty.jpg").touch()
    (folder / "cut.jpg").write_bytes((folder / "00.jpg").read_bytes()[:1500])
    (folder / "folder.jpg").mkdir()
    done = flask(home, "index", "build")
    assert done.exit_code == 0, done.output
    assert "Left out: train/chelsea/empty.jpg: The file is empty" in done.stdout
    assert "Left out: train/chelsea/cut.jpg: " in done.stdout
    assert "left out 2" in done.stdout
    assert serves(home).version.unreadable == 2


def test_nothing_readable_is_an_error(home: Settings, root: Path) -> None:
    for file in (root / "train").rglob("*.jpg"):
        file.write_bytes(b"")
    check_one_line(flask_after_bars(home), "nothing to index")
    assert store.read_current_version(home.home.index) is None


def flask_after_bars(settings: Settings) -> Result:
    """Build, taking the finished progress bars out of the error stream."""
    done = flask(settings, "index", "build")
    lines = [line for line in done.stderr.splitlines() if "━" not in line]
    done.stderr_bytes = "\n".join(lines).encode()
    return done


def test_ids_stay_over_builds(home: Settings, root: Path) -> None:
    flask(home, "index", "build")
    before = serves(home)
    Pillow.new("RGB", (50, 50), "red").save(root / "train/coffee/05.jpg")
    flask(home, "index", "build")
    after = serves(home)
    gone, new = (
        set(before.index.id_map.ids) - set(after.index.id_map.ids),
        set(after.index.id_map.ids) - set(before.index.id_map.ids),
    )
    assert len(gone) == len(new) == 1
    assert min(new) > max(before.index.id_map.ids)


def test_the_last_versions_are_kept(home: Settings) -> None:
    home = replace(home, index_kept=2)
    names = []
    for _ in range(3):
        flask(home, "index", "build")
        names.append(store.read_current_version(home.home.index) or "")
    assert store.list_versions(home.home.index) == names[1:]
    sessions = session_factory(home)
    assert find_version(sessions, names[0]) is None
    assert find_version(sessions, names[1])


def test_without_weights(tmp_path: Path, settings: Settings) -> None:
    nothing = replace(settings, home=Home(root=tmp_path / "home"))
    check_one_line(flask(nothing, "index", "build"), "python training/run.py")
    check_one_line(flask(nothing, "index", "precision"), "python training/run.py")


def test_a_vanished_training_folder(home: Settings, root: Path) -> None:
    shutil.rmtree(root)
    check_one_line(flask(home, "index", "build"), str(root), "does not exist")


def test_a_locked_database(home: Settings) -> None:
    flask(home, "db", "upgrade")
    url = f"sqlite:///{home.home.database}?timeout=0.1"
    with sqlite3.connect(home.home.database, isolation_level=None) as other:
        other.execute("BEGIN IMMEDIATE")
        check_one_line(flask(replace(home, database_url=url), "index", "build"), "locked")
    other.close()


def test_the_database_goes_back_for_an_earlier_release(home: Settings) -> None:
    flask(home, "db", "upgrade")
    assert flask(home, "db", "downgrade", "0005").exit_code == 1  # nobody has agreed
    assert "0005" in flask(home, "db", "downgrade", "0005", "--yes").output
    check_one_line(flask(home, "db", "downgrade", "0005", "--yes"), "not after 0005")
    assert flask(home, "db", "upgrade").exit_code == 0


def test_an_unreachable_database(home: Settings) -> None:
    away = replace(home, database_url="postgresql://me:hidden@127.0.0.1:1/name")
    for command in (("index", "build"), ("db", "upgrade")):
        done = flask(away, *command)
        check_one_line(done, "cannot be used")
        assert "hidden" not in done.output


def test_a_database_that_fails_at_the_end_leaves_no_version(
    home: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    flask(home, "index", "build")
    name = store.read_current_version(home.home.index)
    lock = sqlite3.connect(home.home.database, isolation_level=None)
    commit = VersionDraft.commit

    def commit_then_lock(*args: Any, **facts: Any) -> store.Manifest:
        committed = commit(*args, **facts)
        lock.execute("BEGIN IMMEDIATE")
        return committed

    monkeypatch.setattr(VersionDraft, "commit", commit_then_lock)
    short = replace(home, database_url=f"sqlite:///{home.home.database}?timeout=0.1")
    check_one_line(flask_after_bars(short), "locked")
    lock.close()
    assert store.read_current_version(home.home.index) == name
    assert store.list_versions(home.home.index) == [name]
    serves(home)


def test_a_wrong_setting_is_told_in_a_line(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "flask", "index", "build"],
        cwd=PROJECT,
        env=os.environ | {"ALEXNET_HOME": str(tmp_path), "ALEXNET_PAGE_SIZE": "none"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert done.stderr.strip().splitlines() == [
        "Error: ALEXNET_PAGE_SIZE must be a whole number from 1 to 1000"
    ]


def test_the_precision_of_retrieval(home: Settings, root: Path) -> None:
    flask(home, "index", "build")
    shutil.rmtree(root / "val")
    shutil.copytree(root / "train", root / "val")
    (root / "val/coffee/bad.jpg").write_bytes(b"bad")
    done = flask(home, "index", "precision")
    assert done.exit_code == 0, done.output
    assert "27 of 27 validation images (100.0%)" in done.stdout
    assert "Left out: " in done.stdout
    said = json.loads(flask(home, "index", "precision", "--json").stdout)
    assert (said["images"], said["share"], len(said["unreadable"])) == (27, 1.0, 1)
    assert said["weights"] == checkpoint.load_weights(home.home.weights).identity
    # Another folder whose classes are those of the index turned round: now every one is wrong.
    other = root.parent / "other"
    for split in ("train", "val"):
        shutil.copytree(root / "train/astronaut", other / split / "coffee")
        shutil.copytree(root / "train/coffee", other / split / "unheard-of")
    done = flask(home, "index", "precision", "--data", str(other))
    assert "0 of 18 validation images (0.0%)" in done.stdout


Start = Callable[[], "subprocess.Popen[str]"]


@pytest.fixture
def start(home: Settings, start_process: Callable[..., "subprocess.Popen[str]"]) -> Start:
    """Starts `flask index build` as a process of its own."""
    return lambda: start_process(
        [sys.executable, "-m", "flask", "index", "build"],
        cwd=PROJECT,
        env=os.environ | {"ALEXNET_HOME": str(home.home.root), "ALEXNET_DEVICE": "cpu"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


def more_photographs(root: Path) -> None:
    """Give the build work for some seconds."""
    for number in range(150):
        shutil.copy(root / "train/coffee/00.jpg", root / "train/coffee" / f"copy{number}.jpg")


def wait_until(holds: Callable[[], bool], process: "subprocess.Popen[str]") -> None:
    """Wait until something holds while a process runs."""
    while not holds():
        assert process.poll() is None, process.communicate()
        time.sleep(0.01)


def registered(home: Settings, count: int) -> bool:
    """Whether the build has entered its images, so that it computes features now."""
    with sqlite3.connect(home.home.database) as connection:
        (found,) = connection.execute("SELECT count(*) FROM image").fetchone()
    connection.close()
    return bool(found > count)


@pytest.mark.parametrize("ending", [signal.SIGKILL, signal.SIGINT])
def test_a_build_that_is_ended_leaves_what_was_served(
    home: Settings, root: Path, start: Start, ending: signal.Signals
) -> None:
    assert flask(home, "index", "build").exit_code == 0
    name = store.read_current_version(home.home.index)
    more_photographs(root)
    with start() as process:
        wait_until(lambda: registered(home, 100), process)
        process.send_signal(ending)
        _, said = process.communicate()
    assert process.returncode == (130 if ending == signal.SIGINT else -ending)
    if ending == signal.SIGINT:
        assert said.strip().splitlines()[-1].startswith("Interrupted")
        assert "Traceback" not in said
    assert store.read_current_version(home.home.index) == name
    assert serves(home).manifest.name == name
    assert flask(home, "index", "build").exit_code == 0
    assert len(serves(home).index) == 177
    assert [e.name for e in home.home.index.iterdir() if e.name.startswith(".")] == [".lock"]


# `exec` as dataclasses use it, and so the import of a library; `-m` as in `python -m flask`.
INTERRUPTED_COMMAND = """
import click
from app.cli.terminal import handle_cli_errors

@click.command
@handle_cli_errors
def interrupted():
    exec("import signal; signal.raise_signal(signal.SIGINT)")

interrupted()
"""


def test_ctrl_c_while_a_library_is_imported_ends_with_its_exit_code_too(tmp_path: Path) -> None:
    (tmp_path / "interrupted.py").write_text(INTERRUPTED_COMMAND)
    done = subprocess.run(
        [sys.executable, "-m", "interrupted"],
        cwd=PROJECT,
        env=os.environ | {"PYTHONPATH": f"{tmp_path}{os.pathsep}{PROJECT}"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 130
    (line,) = done.stderr.splitlines()
    assert line.startswith("Interrupted")


def test_two_builds_at_once(home: Settings, root: Path, start: Start) -> None:
    more_photographs(root)
    flask(home, "db", "upgrade")
    with start() as process:
        wait_until(lambda: registered(home, 0), process)
        assert flask(home, "index", "build").exit_code == 2
        process.communicate()
    assert process.returncode == 0
    serves(home)

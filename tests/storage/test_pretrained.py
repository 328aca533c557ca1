"""The run that ships: copied into a home once, whole, and never against somebody's will."""

import json
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from storage.home import Home
from storage.pretrained import (
    EVALUATION_FILE,
    PRETRAINED_DATA,
    PRETRAINED_RUN,
    find_training_folder,
    install_pretrained,
    keep_uninstalled,
)
from storage.runs import RunFolder, read_runs

CREATED = "2026-11-27T09:25:34Z"
EVALUATED = "2026-11-27T10:00:00Z"


@pytest.fixture
def shipped(tmp_path: Path) -> RunFolder:
    """A folder as training/ship.py leaves it, as far as its files' names go."""
    run = RunFolder(tmp_path / "project" / "imagenette")
    run.conv1.mkdir(parents=True)
    run.update_description(finished=True, pretrained=True, created=CREATED, preset="small")
    run.epochs.write_text("")
    run.weights.write_bytes(b"weights")
    run.conv1_picture(1).write_bytes(b"picture")
    (run.path / EVALUATION_FILE).write_text(json.dumps({"created": EVALUATED}))
    return run


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(root=tmp_path / "home")


def read_files(folder: Path) -> dict[str, bytes]:
    """The content of every file in a folder, by its path in it."""
    files = (path for path in folder.rglob("*") if path.is_file())
    return {file.relative_to(folder).as_posix(): file.read_bytes() for file in files}


def test_the_copy_is_a_run_like_any_other(shipped: RunFolder, home: Home) -> None:
    run = install_pretrained(home, shipped=shipped)
    assert run is not None
    assert read_files(run.path) == read_files(shipped.path)
    (found,) = read_runs(home)
    assert (found.name, found.pretrained, found.finished) == (PRETRAINED_RUN, True, True)
    # It is as old as its weights, however late it is copied.
    assert found.last_write_at is not None
    assert f"{found.last_write_at:%Y-%m-%dT%H:%M:%SZ}" == CREATED
    (evaluation,) = home.evaluations.glob("*.json")
    assert json.loads(evaluation.read_text())["root"] == str(home.imagenette)


def test_what_is_there_is_left_alone_and_what_differs_is_replaced(
    shipped: RunFolder, home: Home
) -> None:
    run = install_pretrained(home, shipped=shipped)
    assert run is not None
    inode = run.weights.stat().st_ino
    install_pretrained(home, shipped=shipped)
    assert run.weights.stat().st_ino == inode
    shipped.weights.write_bytes(b"newer weights")
    install_pretrained(home, shipped=shipped)
    assert run.weights.read_bytes() == b"newer weights"


def test_a_deleted_copy_comes_back_only_when_it_is_asked_for(
    shipped: RunFolder, home: Home
) -> None:
    run = install_pretrained(home, shipped=shipped)
    assert run is not None
    shutil.rmtree(run.path)
    assert install_pretrained(home, shipped=shipped, restore=False) is None
    assert not run.path.exists()
    assert install_pretrained(home, shipped=shipped) == run
    assert run.weights.exists()


def test_a_home_can_be_kept_without_it(shipped: RunFolder, home: Home) -> None:
    keep_uninstalled(home)
    assert install_pretrained(home, shipped=shipped, restore=False) is None
    assert read_runs(home) == []


def test_a_copy_that_was_cut_off_is_made_again(shipped: RunFolder, home: Home) -> None:
    part = home.runs / f".{PRETRAINED_RUN}.part"
    part.mkdir(parents=True)
    (part / "weights.safetensors").write_bytes(b"wei")
    run = install_pretrained(home, shipped=shipped, restore=False)
    assert run is not None
    assert read_files(run.path) == read_files(shipped.path)
    assert not part.exists()


def test_without_weights_that_ship_nothing_is_copied(home: Home, tmp_path: Path) -> None:
    assert install_pretrained(home, shipped=RunFolder(tmp_path / "nothing")) is None
    assert not home.root.exists()


def test_of_several_that_copy_at_once_all_get_a_whole_run(shipped: RunFolder, home: Home) -> None:
    with ThreadPoolExecutor(4) as pool:
        runs = list(pool.map(lambda _: install_pretrained(home, shipped=shipped), range(4)))
    assert len({run.path for run in runs if run}) == 1
    assert read_files(home.runs / PRETRAINED_RUN) == read_files(shipped.path)


def test_its_photographs_are_those_in_the_home_once_they_are_there(home: Home) -> None:
    assert find_training_folder("/a/folder", home) == Path("/a/folder")
    assert find_training_folder("ILSVRC-2012", home) is None
    assert find_training_folder(PRETRAINED_DATA, home) is None
    home.imagenette.mkdir(parents=True)
    assert find_training_folder(PRETRAINED_DATA, home) == home.imagenette

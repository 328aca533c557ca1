"""The index of the weights that ship is built beside the requests, by one process at a time."""

import logging
import pickle
import shutil
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from app.database.ingest import Registration, register_images
from app.database.session import session_factory
from app.indexing import build, pretrained
from app.indexing.pretrained import PretrainedIndexing
from app.indexing.pretrained_build import ServerEndedError, build_pretrained_index
from app.inference.state import Ready
from app.inference.weights_files import find_index_versions_by_weights
from index import store
from model.weights.checkpoint import load_weights, save_weights
from storage.home import Home
from storage.pretrained import PRETRAINED_RUN
from storage.runs import RunFolder

ROOT = Path(__file__).resolve().parents[3]


def indexing(shop) -> PretrainedIndexing:
    """What a process of the server starts."""
    return PretrainedIndexing(shop.settings, session_factory(shop.settings), shop.loader())


@pytest.fixture
def demo(shop) -> RunFolder:
    """A shop whose photographs are the demo's, and other weights as if they had shipped."""
    home: Home = shop.settings.home
    home.demo.symlink_to(shop.photographs)
    shop.right("build", "--data", str(home.demo))
    run = RunFolder(home.runs / PRETRAINED_RUN)
    weights = load_weights(home.weights)
    save_weights(replace(weights, mean=weights.mean + 1), run.weights)
    run.update_description(pretrained=True, finished=True)
    return run


def indexed(shop) -> set[str]:
    """The identities of the weights that have an index."""
    sessions = session_factory(shop.settings)
    return set(find_index_versions_by_weights(shop.settings.home, sessions))


def test_it_is_built_once_and_what_is_served_stays(
    shop, demo: RunFolder, caplog: pytest.LogCaptureFixture
) -> None:
    served = shop.name
    first = indexing(shop)
    first.start()
    first.thread.join()
    assert [record for record in caplog.records if record.name == pretrained.__name__] == []
    assert load_weights(demo.weights).identity in indexed(shop)
    assert shop.name == served
    versions = store.list_versions(shop.index)
    second = indexing(shop)
    second.start()
    second.thread.join()
    assert store.list_versions(shop.index) == versions


def test_while_another_process_builds_it_waits_and_then_takes_over(
    shop, demo: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pretrained, "RETRY_SECONDS", 0.05)
    waiting = indexing(shop)
    with store.acquire_build_lock(shop.index):
        waiting.start()
        while not waiting.is_running:
            time.sleep(0.01)
        # Requests are answered meanwhile.
        assert isinstance(waiting.loader.get_state(), Ready)
        assert load_weights(demo.weights).identity not in indexed(shop)
    waiting.thread.join()
    assert load_weights(demo.weights).identity in indexed(shop)


def test_one_that_waits_ends_with_the_server(shop, demo: RunFolder) -> None:
    waiting = indexing(shop)
    with store.acquire_build_lock(shop.index):
        waiting.start()
        while not waiting.is_running:
            time.sleep(0.01)
        waiting.stop()
        assert not waiting.thread.is_alive()
    assert load_weights(demo.weights).identity not in indexed(shop)


def test_a_build_that_fails_is_logged_and_nothing_else_changes(
    shop, demo: RunFolder, caplog: pytest.LogCaptureFixture
) -> None:
    demo.weights.write_bytes(demo.weights.read_bytes()[:-1000])
    served, versions = shop.name, store.list_versions(shop.index)
    building = indexing(shop)
    with caplog.at_level(logging.WARNING):
        building.start()
        building.thread.join()
    assert PRETRAINED_RUN in caplog.text
    assert not building.is_running
    assert (shop.name, store.list_versions(shop.index)) == (served, versions)
    assert isinstance(building.loader.get_state(), Ready)


@pytest.mark.parametrize("change", ["other photographs", "no weights"])
def test_without_the_demo_or_the_weights_nothing_is_built(
    shop, demo: RunFolder, change: str
) -> None:
    if change == "no weights":
        shutil.rmtree(demo.path)
    else:
        shop.right("build", "--data", str(shop.photographs))
    before = store.list_versions(shop.index)
    building = indexing(shop)
    building.start()
    building.thread.join()
    assert store.list_versions(shop.index) == before
    assert isinstance(building.loader.get_state(), Ready)


def test_weights_switched_to_during_a_build_are_served_with_its_index(
    shop, demo: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A version is published if its weights are in service at the end, not at the beginning."""

    def switch(*arguments: Any) -> Registration:
        store.publish_weights(shop.index, demo.weights)
        return register_images(*arguments)

    monkeypatch.setattr(build, "register_images", switch)
    build_pretrained_index(shop.settings, threading.Event())
    state = shop.state()
    assert state.manifest.weights == load_weights(demo.weights).identity


def test_a_build_ends_with_the_server(shop, demo: RunFolder) -> None:
    ended = threading.Event()
    ended.set()
    with pytest.raises(ServerEndedError):
        build_pretrained_index(shop.settings, ended)
    assert load_weights(demo.weights).identity not in indexed(shop)


def test_a_build_ends_when_the_server_is_killed(shop, demo: RunFolder) -> None:
    """Nothing stays behind of a server that could not say that it ends: its pipe closes."""
    process = subprocess.Popen(
        [sys.executable, "-m", "app.indexing.pretrained_build"], stdin=subprocess.PIPE, cwd=ROOT
    )
    process.communicate(pickle.dumps(shop.settings), timeout=250)
    assert process.returncode == 0
    assert load_weights(demo.weights).identity not in indexed(shop)

"""Weights and index are published as a pair: a run that finishes takes over nothing."""

import io
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from flask import Flask
from flask.testing import FlaskClient

from app.database.session import session_factory
from app.inference.loader import ModelLoader
from app.inference.state import NotReady, Ready
from index import store
from index.manifest import read_manifest, write_manifest
from model.weights.checkpoint import load_weights
from storage.files import switch_link

Answer = tuple[str, str | None]


def ask(client: FlaskClient, jpeg: bytes) -> Answer:
    """Which weights and which index answer."""
    sent = client.post("/api/classify", data={"image": (io.BytesIO(jpeg), "cat.jpg")})
    assert sent.status_code == 200, sent.get_data(as_text=True)
    (answer,) = sent.json["answers"]
    assert len(answer["neighbours"]) == (6 if answer["index"] else 0)
    return answer["weights"], answer["index"]


def wait_for(client: FlaskClient, jpeg: bytes, wanted: Answer, before: Answer) -> None:
    """Ask until the new pair answers; until then only the old one does."""
    end = time.monotonic() + 30
    while (answer := ask(client, jpeg)) != wanted:
        assert answer == before
        assert time.monotonic() < end


@pytest.fixture
def servers(shop, open_app: Callable[..., Flask], jpeg: bytes) -> list[FlaskClient]:
    """Two servers of the same home, both of which have answered."""
    clients = [open_app(shop.settings).test_client() for _ in range(2)]
    for client in clients:
        ask(client, jpeg)
    return clients


def test_a_run_that_finishes_takes_over_no_server(
    shop, servers: list[FlaskClient], jpeg: bytes
) -> None:
    old = (load_weights(shop.settings.home.weights).identity, shop.name)
    loaders = [client.application.extensions["loader"] for client in servers]
    states = [loader.current for loader in loaders]
    finished: list[str] = []
    run = threading.Thread(target=lambda: finished.append(shop.finish_run("new", 1.0)))
    run.start()
    while run.is_alive():
        assert [ask(client, jpeg) for client in servers] == [old, old]
    run.join()
    assert [ask(client, jpeg) for client in servers] == [old, old]
    # Nothing was read again, not even aside.
    for loader, state in zip(loaders, states, strict=True):
        assert loader.is_up_to_date()
        assert loader.current is state
    # Nor does a server that starts now take them.
    assert shop.state().predictor.identity == old[0]
    shop.right("build")
    new = (finished[0], shop.name)
    assert new[1] != old[1]
    for client in servers:
        wait_for(client, jpeg, new, old)
    # Going back is one switch too, and selects the weights for the next build.
    shop.right("rollback")
    for client in servers:
        wait_for(client, jpeg, old, new)
    assert load_weights(shop.settings.home.weights).identity == old[0]
    shop.right("build", "--if-needed")
    assert shop.name == old[1]


def test_a_build_without_a_change_of_weights_serves_the_selected_ones(shop, jpeg: bytes) -> None:
    """`make demo` ends in this: train if needed, then build if needed."""
    home, first = shop.settings.home, shop.name
    before = home.weights.resolve()
    shop.finish_run("new", 1.0)
    shop.right("build", "--if-needed")
    assert shop.name != first
    switch_link(home.weights, before)
    shop.right("build", "--if-needed")
    assert shop.name == first


KILLED = """
import os, sys
from app import create_app
from app.config import Settings
from index import store
store.publish_version = lambda *_: os._exit(9)
create_app(Settings.from_environment()).test_cli_runner().invoke(args=["index", "build"])
"""


def test_a_build_that_is_killed_before_it_publishes_leaves_the_old_pair(
    shop, environment: dict[str, str], jpeg: bytes
) -> None:
    home, old = shop.settings.home, shop.name
    identity = load_weights(home.weights).identity
    shop.finish_run("new", 1.0)
    done = subprocess.run(
        [sys.executable, "-c", KILLED],
        env={**environment, "ALEXNET_HOME": str(home.root), "OMP_NUM_THREADS": "1"},
        cwd=Path(__file__).parents[3],
        check=False,
    )
    assert done.returncode == 9
    assert len(store.list_versions(home.index)) == 2
    assert (shop.name, shop.state().predictor.identity) == (old, identity)
    assert "no earlier version" in shop.refused("rollback")


def test_weights_that_are_deleted_go_on_where_they_are_loaded(
    shop, servers: list[FlaskClient], open_app: Callable[..., Flask], page, jpeg: bytes
) -> None:
    home, first = shop.settings.home, shop.name
    shop.finish_run("new", 1.0)
    shop.right("build")
    new = (load_weights(home.weights).identity, shop.name)
    old = (read_manifest(shop.index / first).weights, first)
    wait_for(servers[0], jpeg, new, old)
    shop.finish_run("newer", 1.0)
    shutil.rmtree(home.runs / "new")
    loader = servers[0].application.extensions["loader"]
    with loader.lock:
        pass
    assert ask(servers[0], jpeg) == new
    # A new process says what is wrong and which command helps, and serves nothing else.
    client = open_app(shop.settings).test_client()
    told = client.get("/readyz")
    assert (told.status_code, told.json["reason"]) == (503, "mismatch")
    assert page(client.get("/")).one("code").text == "flask index build"
    assert "Wrong: " in shop.run("verify", "--no-files").stderr
    shop.right("rollback", first)
    assert shop.state().predictor.identity == old[0]
    assert ask(client, jpeg) == old


def test_weights_that_moved_are_found_by_their_identity(shop) -> None:
    home = shop.settings.home
    shop.finish_run("new", 1.0)
    shop.right("build")
    served = shop.state().predictor.identity
    assert read_manifest(shop.version).weights_file == "runs/new/weights.safetensors"
    shop.finish_run("newer", 1.0)
    (home.runs / "new").rename(home.runs / "renamed")
    assert shop.state().predictor.identity == served
    # So are those of a manifest that names no file, as earlier versions of the project wrote it.
    write_manifest(replace(read_manifest(shop.version), weights_file=""), shop.version)
    assert shop.state().predictor.identity == served


def test_a_home_that_moves_takes_its_pair_along(shop, tmp_path: Path, copy_home) -> None:
    home = shop.settings.home
    shop.finish_run("new", 1.0)
    shop.right("build")
    moved = replace(shop.settings, home=copy_home(home, tmp_path / "moved"))
    shutil.rmtree(home.runs)
    state = ModelLoader(moved, session_factory(moved)).get_state()
    assert isinstance(state, Ready)


def test_weights_that_change_in_place_are_not_served_with_the_old_index(shop) -> None:
    shop.finish_run("new", 1.0)
    shop.right("build")
    loader = shop.loader()
    old = loader.get_state()
    shop.finish_run("new", 2.0)
    loader.get_state()
    with loader.lock:
        assert loader.current is old
    state = shop.loader().get_state()
    assert isinstance(state, NotReady)
    assert (state.reason, state.command) == ("mismatch", "flask index build")

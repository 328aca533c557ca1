"""What may happen to an index and around it: it is told, and what was served before still is."""

import io
import json
import os
import re
import shutil
import sqlite3
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from functools import partial
from importlib.util import find_spec
from pathlib import Path

import pytest
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from app.database.images import find_version, list_version_names, read_class_ids_by_image
from app.database.session import session_factory
from app.indexing import build
from app.inference.state import Ready
from index import store
from index.building.checkpoint import BuildCheckpoint
from index.building.pipeline import gather_features
from index.manifest import MANIFEST_FILE
from index.store import PUBLISHED_MARK
from storage.files import switch_link


def flip(file: Path) -> None:
    """Change one byte in the middle of a file."""
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)


def findings(shop, *words: str) -> list[str]:
    """What `verify` finds wrong, which is its exit code too."""
    done = shop.run("verify", *words)
    found = done.stderr.splitlines()
    assert done.exit_code == (1 if found else 0), done.output
    assert all(line.startswith("Wrong: ") for line in found)
    return [line.removeprefix("Wrong: ") for line in found]


LISTS = {
    *(
        "ids.npy",
        "rows.npy",
        "classes.npy",
        "checksums.npy",
        "files.npz",
        "sample.npz",
        "units.npz",
    ),
    *("validation.npz", "validation_files.npz", "nearest.npz", "calibration.npz", "review.npz"),
    "neighbourhood.npz",
}


@pytest.mark.parametrize("file", [*sorted(LISTS), "vectors-00000.npy"])
def test_a_flipped_byte_is_found_in_every_file(shop, file: str) -> None:
    flip(shop.version / file)
    (line,) = findings(shop)
    assert str(shop.version / file) in line
    (shop.version / file).unlink()
    assert "No such file" in findings(shop)[0]


def test_every_file_of_a_version_was_flipped(shop) -> None:
    files = {file.name for file in shop.version.iterdir()}
    assert files == LISTS | {"vectors-00000.npy", MANIFEST_FILE, PUBLISHED_MARK}
    flip(shop.version / MANIFEST_FILE)
    done = shop.run("verify")
    assert done.exit_code in (1, 2)
    assert str(shop.version) in done.stderr


def change(shop, statement: str) -> None:
    """Change the database behind the application's back."""
    with closing(sqlite3.connect(shop.settings.home.database)) as connection, connection:
        assert connection.execute(statement).rowcount == 1


@pytest.mark.parametrize(
    ("statement", "told"),
    [
        ("DELETE FROM index_image WHERE image_id = 5", "image 5 .*index.*database"),
        ("INSERT INTO index_image SELECT 1, max(id), 1, 0, 0, 0 FROM image", "database.*index"),
        ("UPDATE image SET class_id = 2 WHERE id = 3", "image 3 .*class"),
    ],
)
def test_a_database_that_disagrees_is_found(shop, statement: str, told: str) -> None:
    assert findings(shop, "--no-files") == []
    change(shop, statement)
    (line,) = findings(shop, "--no-files")
    assert re.search(told, line)


@pytest.mark.parametrize("command", [["update"], ["build", "--if-needed"], ["build"]])
def test_a_wrong_class_in_the_database_is_mended(shop, command: list[str]) -> None:
    change(shop, "UPDATE image SET class_id = 2 WHERE id = 3")
    assert len(findings(shop, "--no-files")) == 1
    shop.right(*command)
    assert findings(shop, "--no-files") == []
    with closing(sqlite3.connect(shop.settings.home.database)) as connection:
        counts = (
            "SELECT images FROM index_class JOIN index_version ON id = version_id WHERE name = ?"
        )
        version = store.read_current_version(shop.settings.home.index)
        assert connection.execute(counts, (version,)).fetchall() == [(9,)] * 3


def test_training_files_that_are_not_as_they_were_are_found(shop) -> None:
    folder = shop.photographs / "train/coffee"
    flip(folder / "01.jpg")
    (folder / "02.jpg").unlink()
    shutil.copy(folder / "03.jpg", folder / "new.jpg")
    changed, missing, new = findings(shop)
    assert str(folder / "01.jpg") in changed
    assert str(folder / "02.jpg") in missing
    assert "1; `flask index update`" in new
    assert findings(shop, "--no-files") == []


def send(client: FlaskClient, jpeg: bytes, token: str | None = None) -> TestResponse:
    """Ask the API, or the page where there is a form's token."""
    form = {"image": (io.BytesIO(jpeg), "cat.jpg")}
    if token is None:
        return client.post("/api/classify", data=form)
    return client.post("/", data=form | {"csrf_token": token})


def token_of(client: FlaskClient) -> str:
    """The forms' token, which the first page holds."""
    text = client.get("/").get_data(as_text=True)
    return text.split('name="csrf_token" value="')[1].split('"')[0]


def check_later(answer: TestResponse) -> None:
    """It is a 503 that says when to ask again."""
    assert answer.status_code == 503
    assert int(answer.headers["Retry-After"]) > 0
    assert "Traceback" not in answer.get_data(as_text=True)


def test_a_data_set_that_vanishes_is_told(shop, open_app, jpeg: bytes) -> None:
    client, name = open_app(shop.settings).test_client(), shop.name
    assert client.get("/healthz").status_code == 200
    shop.photographs.rename(shop.photographs.with_name("elsewhere"))
    try:
        for command in ("build", "update"):
            assert re.search(f"{shop.photographs}(/train)? does not exist", shop.refused(command))
        assert f"{shop.photographs} does not exist" in findings(shop)[0]
        assert shop.name == name
        assert send(client, jpeg).status_code == 200
        assert client.get("/explore").status_code == 200
        assert client.get("/").status_code == 200
    finally:
        shutil.rmtree(shop.photographs.with_name("elsewhere"))


def test_a_database_that_is_locked_or_gone_is_told(shop, open_app, jpeg: bytes) -> None:
    home = shop.settings.home
    url = f"sqlite:///{home.database}?timeout=0.1"
    app = open_app(replace(shop.settings, database_url=url))
    client = app.test_client()
    token = token_of(client)
    with closing(sqlite3.connect(home.database, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        check_later(send(client, jpeg, token))
        assert send(client, jpeg).status_code == 200  # it only reads
    assert send(client, jpeg, token).status_code == 303
    for file in home.root.glob("app.sqlite3*"):
        file.unlink()
    check_later(send(client, jpeg, token))
    check_later(send(client, jpeg))
    check_later(client.get("/explore"))
    # Started now it has nothing to answer with, and says so to people and to programs.
    client = open_app(shop.settings).test_client()
    for address in ("/healthz", "/explore", "/images/1"):
        check_later(client.get(address))


def ask_on(client: FlaskClient, jpeg: bytes, done: threading.Event, seen: list) -> None:
    """Ask again and again until it is done: what came, by the API and by a page."""
    while not done.is_set():
        found = send(client, jpeg)
        answers = (found.get_json() or {}).get("answers", [])
        ids = {n["id"] for a in answers for n in (*a["neighbours"], *a["by_pixels"])}
        seen.append((found.status_code, ids))
        seen.append((client.get("/explore").status_code, set()))
        seen.append((client.get("/healthz").status_code, set()))
        time.sleep(0.05)


def test_answers_during_build_update_and_rollback_are_of_one_version(
    shop, open_app, jpeg: bytes
) -> None:
    shop = replace(shop, settings=replace(shop.settings, index_kept=9))
    app = open_app(shop.settings)
    assert app.test_client().get("/healthz").status_code == 200
    # Made before the threads start: CPython 3.11 may fail to parse routes while others run.
    runner = open_app(shop.settings).test_cli_runner()
    done, seen = threading.Event(), []
    sessions = session_factory(shop.settings)

    def ids_in(version: str) -> set[int]:
        return set(read_class_ids_by_image(sessions, find_version(sessions, version).id))

    def run(*words: str) -> None:
        """Run a command, and wait until its version has answered."""
        before = len(seen)
        result = runner.invoke(args=["index", *words])
        assert result.exit_code == 0, result.output
        expected, deadline = ids_in(shop.name), time.monotonic() + 120
        while not any(ids and ids <= expected for _, ids in seen[before:]):
            assert time.monotonic() < deadline, seen[before:]
            time.sleep(0.05)

    threads = [
        threading.Thread(target=ask_on, args=(app.test_client(), jpeg, done, seen))
        for _ in range(2)
    ]
    for thread in threads:
        thread.start()
    try:
        # Every file gets other bytes and its pixels stay: no version has an image of another.
        for command in ("update", "build"):
            for file in (shop.photographs / "train").rglob("*.jpg"):
                with file.open("ab") as out:
                    out.write(b" ")
            run(command)
            newest = shop.name
        run("rollback")
        run("rollback")
        run("rollback", newest)
    finally:
        done.set()
        for thread in threads:
            thread.join()
    assert {status for status, _ in seen} == {200}
    lists = [ids_in(name) for name in list_version_names(sessions)]
    assert len(lists) == 3
    assert len(set.union(*lists)) == 3 * 27
    asked = [ids for _, ids in seen if ids]
    assert all(any(ids <= some for some in lists) for ids in asked)


@pytest.mark.skipif(
    not (find_spec("pymilvus") and find_spec("milvus_lite")), reason="needs Milvus Lite"
)
def test_an_index_in_milvus(shop, open_app, jpeg: bytes, tmp_path: Path) -> None:
    exact = shop.classify(jpeg).neighbours
    first, url = shop.name, str(tmp_path / "m.db")
    shop = replace(shop, settings=replace(shop.settings, index_url=url))
    shop.right("build")
    assert json.loads(shop.right("stats", "--json"))["kind"] == "milvus"
    assert "Milvus" in shop.right("verify")
    found = shop.classify(jpeg).neighbours
    assert [n.id for n in found] == [n.id for n in exact]
    assert "set INDEX_URL" in shop.refused("verify", index_url="")
    away = replace(shop.settings, index_url="http://127.0.0.1:1")
    client = open_app(away).test_client()
    check_later(client.get("/healthz"))
    check_later(send(client, jpeg))
    check_later(send(client, jpeg, token_of(client)))
    check_later(client.get(f"/images/{found[0].id}"))
    second = shop.name
    shop.right("rollback", first)
    assert shop.right("prune", "--keep", "1").splitlines()[0] == f"Deleted {second}."
    from pymilvus import MilvusClient

    with closing(MilvusClient(url)) as milvus:
        assert milvus.list_collections() == []


@pytest.fixture
def on_small_disk(shop, small_disk, copy_home) -> Iterator:
    """The home of the shop on a disk of a few megabytes."""
    with small_disk("9m") as disk:
        home = copy_home(shop.settings.home, disk / "home")
        home.weights.unlink()
        switch_link(home.weights, shop.settings.home.weights.resolve())
        yield replace(shop, settings=replace(shop.settings, home=home))


def fill(disk: Path) -> Path:
    """Take all the room there is."""
    ballast = disk / "ballast"
    with ballast.open("wb", buffering=0) as out:
        try:
            while out.write(bytes(4096)):
                pass
        except OSError:
            return ballast


def test_a_full_disk_is_told_and_the_build_goes_on_later(
    on_small_disk, photographs: Path, jpeg: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    shop, disk = on_small_disk, on_small_disk.settings.home.root.parent
    for name in ("brick", "grass", "rocket"):
        for file in sorted((photographs / "train" / name).iterdir())[:8]:
            shutil.copy(file, shop.photographs / "train/coffee" / f"{name}{file.name}")
    monkeypatch.setattr(build, "gather_features", partial(gather_features, batch=4, block=8))
    engine, first = shop.loader(), shop.name
    before = shop.classify(jpeg, engine).neighbours
    ballast = fill(disk)
    os.truncate(ballast, ballast.stat().st_size - 400_000)
    line = shop.refused("update")
    assert f"MB under {shop.index}, which has" in line
    ballast.unlink()
    write, written = BuildCheckpoint.write_segment, []

    def write_and_fill(*args, **named):
        shard = write(*args, **named)
        written.append(shard.rows)
        if sum(written) > 8:
            fill(disk)
        return shard

    with monkeypatch.context() as patch:
        patch.setattr(BuildCheckpoint, "write_segment", write_and_fill)
        line = shop.refused("update")
    assert "No space left on device. What was finished is kept" in line
    assert shop.name == first
    assert isinstance(engine.get_state(), Ready)
    assert shop.classify(jpeg, engine).neighbours == before
    subprocess.run(["mount", "-o", "remount,size=16m", str(disk)], check=True)
    there = sum(written)
    said = shop.right("update")
    assert 8 < there < 24
    assert f" {there} vectors" in said
    shop.right("verify")
    assert len(shop.state().index) == 51

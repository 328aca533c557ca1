"""Results of uploads: whose they are, what several give together, how they end."""

import csv
import errno
import io
import logging
import sqlite3
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flask import Flask
from flask.testing import FlaskClient
from PIL import Image
from sqlalchemy import select, update
from werkzeug.test import TestResponse

from app.config import Settings
from app.database import images
from app.database.session import (
    DatabaseError,
    downgrade_database,
    read_session,
    session_factory,
    upgrade_database,
    write_session,
)
from app.database.tables import UploadBatch, UploadResult, utc_now
from app.inference.classify import classify_image
from app.serving.log import make_discreet
from app.uploads import expiry, picture_files
from app.uploads.results import delete_result
from model.image.decode import decode_image
from model.image.preprocess import cut_central_square

Page = Callable[[TestResponse], Any]
Send = Callable[..., TestResponse]
NAMES = ("first.jpg", "notes.jpg", "second.png", "empty.jpg", "large.jpg")


def png() -> bytes:
    """A picture that is not the photograph."""
    out = io.BytesIO()
    Image.effect_noise((80, 60), 60).convert("RGB").save(out, "PNG")
    return out.getvalue()


def token_of(location: str) -> str:
    """The token at the end of an address."""
    return location.rsplit("/", 1)[1]


def csrf_of(client: FlaskClient, page: Page) -> str:
    """The forms' token of a client's session."""
    return page(client.get("/")).all("input")[0].attributes["value"]


def rows(app: Flask) -> set[str]:
    """The tokens of all results in the database."""
    with read_session(app.extensions["sessions"]) as session:
        return set(session.scalars(select(UploadResult.token)))


def pictures(settings: Settings) -> set[str]:
    """The names of all files among the uploads."""
    return {file.name for file in settings.home.uploads.glob("*")}


@pytest.fixture
def send_together(client: FlaskClient, page: Page, jpeg: bytes) -> Callable[..., TestResponse]:
    """Sends several files by the form of the first page; by default good and bad ones."""
    mixed = dict(
        zip(NAMES, (jpeg, b"text", png(), b"", b"\xff\xd8" + bytes(1_000_001)), strict=True)
    )

    def send(files: dict[str, bytes] = mixed) -> TestResponse:
        form = [(io.BytesIO(data), name) for name, data in files.items()]
        return client.post("/", data={"csrf_token": csrf_of(client, page), "image": form})

    return send


def small(square: Any) -> Any:
    """Each 8×8 pixels' mean, by NumPy alone: float64 [32, 32, 3]."""
    return np.floor(square.reshape(32, 8, 32, 8, 3).mean((1, 3)) + 0.5)


def test_the_nearest_by_pixels_are_those_of_brute_force(
    app: Flask, client: FlaskClient, page: Page, send: Send, jpeg: bytes, photographs: Path
) -> None:
    asked = small(cut_central_square(decode_image(jpeg)))
    distances = sorted(
        float(np.linalg.norm(small(cut_central_square(decode_image(file.read_bytes()))) - asked))
        for file in photographs.glob("train/*/*.jpg")
    )
    shown = page(client.get(send(jpeg).location))
    tiles = shown.one("ol", "pixels").all("a", "tile")
    written = [t.one("span", "number").text.removeprefix("distance ") for t in tiles]
    assert written == [f"{round(d):,}" if d >= 1000 else f"{d:.1f}" for d in distances[:6]]
    labels = [tile.one("span", "caption").all("span")[0].text for tile in tiles]
    for tile, label in zip(tiles, labels, strict=True):
        assert (
            page(client.get(tile.attributes["href"])).one("h1").text
            == label.rpartition(" image of ")[2]
        )
    assert "of a sample" not in shown.text


def test_an_index_without_a_sample_answers_without_pixels(app: Flask, jpeg: bytes) -> None:
    loader = app.extensions["loader"]
    ready = loader.require_ready()
    found = classify_image(replace(ready, sample=None), loader.sessions, jpeg)[0]
    assert (found.by_pixels, found.sampled) == ([], None)
    assert list(found.milliseconds) == ["decode", "network", "search"]
    part = replace(ready, sample=replace(ready.sample, whole=False))
    assert classify_image(part, loader.sessions, jpeg)[0].sampled == 54


def test_a_result_says_when_not_all_images_were_compared(
    app: Flask, client: FlaskClient, page: Page, send: Send, jpeg: bytes
) -> None:
    location = send(jpeg).location
    change = update(UploadResult).where(UploadResult.token == token_of(location))
    with write_session(app.extensions["sessions"]) as session:
        session.execute(change.values(sampled=10_000))
    assert "sample of 10,000" in page(client.get(location)).text
    with write_session(app.extensions["sessions"]) as session:
        session.execute(change.values(by_pixels=[]))  # as one made by an older index
    assert "Nearest by pixels" not in page(client.get(location)).text


def test_a_result_leads_on_and_names_its_link(
    client: FlaskClient, page: Page, send: Send, jpeg: bytes
) -> None:
    location = send(jpeg).location
    shown = page(client.get(location))
    links = {a.attributes["href"] for a in shown.all("a")}
    assert {f"/layers?of={token_of(location)}", f"/filters?of={token_of(location)}"} <= links
    assert shown.one("code").text == f"http://localhost{location}"


def test_whoever_made_a_result_finds_and_deletes_it(
    app: Flask, client: FlaskClient, page: Page, send: Send, settings: Settings, jpeg: bytes
) -> None:
    first, second = send(jpeg, "one.jpg").location, send(jpeg, "two.jpg").location
    small = page(client.get("/")).one("ul", "result-list")
    assert [a.attributes["href"] for a in small.all("a", "tile")] == [second, first]
    asked = small.all("a", "delete")[1].attributes["href"]
    assert client.get(asked).status_code == 200
    assert first in page(client.get("/")).one("ul", "result-list").all("a")[2].attributes["href"]
    done = client.post(asked, data={"csrf_token": csrf_of(client, page)})
    assert (done.status_code, done.location) == (303, "/results/deleted")
    assert client.get(done.location).status_code == 200
    for gone in (first, f"{first}/picture.jpg", f"{first}/thumbnail.jpg", f"{first}/delete"):
        assert client.get(gone).status_code == 404
    assert token_of(first) not in rows(app)
    assert not [name for name in pictures(settings) if token_of(first) in name]
    assert client.get(second).status_code == 200
    tiles = page(client.get("/")).one("ul", "result-list").all("a", "tile")
    assert [a.attributes["href"] for a in tiles] == [second]


def test_nobody_else_can_delete_a_result_or_finds_it(
    app: Flask, client: FlaskClient, page: Page, send: Send, jpeg: bytes
) -> None:
    location = send(jpeg).location
    other = app.test_client()
    assert "Delete" in client.get(location).get_data(as_text=True)
    assert "Delete" not in other.get(location).get_data(as_text=True)
    form = {"csrf_token": csrf_of(other, page)}
    assert other.get(f"{location}/delete").status_code == 403
    assert other.post(f"{location}/delete", data=form).status_code == 403
    assert client.post(f"{location}/delete", data=form).status_code == 400  # another's form
    assert client.post(f"{location}/delete").status_code == 400
    assert client.get(location).status_code == 200
    for address in (
        "/",
        "/explore",
        "/map",
        "/filters",
        "/layers",
        "/figure-4",
        "/api",
        "/healthz",
    ):
        assert token_of(location) not in other.get(address).get_data(as_text=True)


def test_results_stay_out_of_search_engines_and_of_caches(
    client: FlaskClient, page: Page, send: Send, jpeg: bytes
) -> None:
    location = send(jpeg).location
    for address in (location, f"{location}/picture.jpg", f"{location}/thumbnail.jpg"):
        headers = client.get(address).headers
        assert "noindex" in headers["X-Robots-Tag"]
        assert headers["Cache-Control"] == "no-store"
        assert headers["Referrer-Policy"] == "same-origin"


def test_a_thumbnail_is_the_square(client: FlaskClient, send: Send, jpeg: bytes) -> None:
    address = f"{send(jpeg).location}/thumbnail.jpg"
    answer = client.get(address)
    with Image.open(io.BytesIO(answer.data)) as picture:
        assert picture.size == (256, 256)
        drawn = np.asarray(picture).astype(float)
    assert np.abs(drawn - cut_central_square(decode_image(jpeg))).mean() < 5


def test_deleting_leaves_both_or_neither(
    app: Flask, client: FlaskClient, send: Send, settings: Settings, jpeg: bytes
) -> None:
    location = send(jpeg).location
    token = token_of(location)
    hasty = replace(settings, database_url=f"sqlite:///{settings.home.database}?timeout=0.1")
    lock = sqlite3.connect(settings.home.database, isolation_level=None)
    lock.execute("BEGIN IMMEDIATE")
    try:
        with pytest.raises(DatabaseError, match="locked"):
            delete_result(token, hasty, session_factory(hasty))
    finally:
        lock.close()
    assert token in rows(app)
    assert client.get(f"{location}/picture.jpg").status_code == 200


@pytest.mark.parametrize("days", [7, 0])
def test_what_a_crash_left_of_a_deletion_is_finished(
    app: Flask, send: Send, settings: Settings, jpeg: bytes, days: int, monkeypatch: Any
) -> None:
    token = token_of(send(jpeg).location)
    picture = settings.home.uploads / f"{token}.jpg"
    picture.rename(picture.with_name(f"{token}.jpg.erased"))
    own = replace(settings, upload_days=days)
    expiry.clean_uploads(own, app.extensions["sessions"])
    assert token in rows(app)  # another process may just be at it
    monkeypatch.setattr(expiry, "SECONDS_PER_MINUTE", -1)
    expiry.clean_uploads(own, app.extensions["sessions"])
    assert token not in rows(app)
    assert not [name for name in pictures(settings) if token in name]


def test_several_images_lead_to_a_page_of_their_own(
    client: FlaskClient, page: Page, send_together: Callable[..., TestResponse]
) -> None:
    sent = send_together()
    assert sent.status_code == 303
    shown = page(client.get(sent.location))
    items = shown.one("ol", "batch").all("li")
    assert [item.one("span", "filename").text for item in items] == list(NAMES)
    for item in (items[0], items[2]):
        alone = page(client.get(item.one("a").attributes["href"]))
        assert item.one("span", "label").text == alone.one("h1").text
        best = alone.one("ol", "bars").all("li")[0].one("span", "number").text
        assert item.one("span", "number").text == best
        assert client.get(item.one("img").attributes["src"]).mimetype == "image/jpeg"
    for number, words in ((1, "JPEG, PNG and WebP"), (3, "empty"), (4, "1 MB")):
        assert words in items[number].text
        assert not items[number].all("a")
    assert "noindex" in client.get(sent.location).headers["X-Robots-Tag"]
    first = page(client.get("/"))
    assert len(first.one("ul", "result-list").all("a", "tile")) == 2
    # Found again from the first page, and saved with the same labels.
    assert [a.attributes["href"] for a in first.one("ul", "batches").all("a")] == [sent.location]
    saved = client.get(f"{sent.location}.csv")
    assert "attachment" in saved.headers["Content-Disposition"]
    lines = list(csv.DictReader(io.StringIO(saved.get_data(as_text=True))))
    assert [line["file"] for line in lines] == list(NAMES)
    assert lines[0]["label_1"] in items[0].one("span", "label").text  # or: unsure, this or another
    assert float(lines[0]["probability_1"]) == pytest.approx(
        float(items[0].one("span", "number").text.split("\u2009")[0]) / 100, abs=0.0006
    )
    assert "empty" in lines[3]["error"]
    assert not lines[3]["label_1"]


def test_files_none_of_which_is_an_image_are_each_told_why(
    client: FlaskClient, page: Page, send_together: Callable[..., TestResponse]
) -> None:
    shown = page(client.get(send_together({"a.txt": b"text", "b.txt": b"text"}).location))
    assert len(shown.one("ol", "batch").all("li", "no-result")) == 2


def test_what_was_sent_together_is_deleted_one_by_one_or_all(
    app: Flask,
    client: FlaskClient,
    page: Page,
    settings: Settings,
    send_together: Callable[..., TestResponse],
) -> None:
    before, kept = rows(app), pictures(settings)
    location = send_together().location
    links = page(client.get(location)).one("ol", "batch").all("a")
    form = {"csrf_token": csrf_of(client, page)}
    client.post(f"{links[0].attributes['href']}/delete", data=form)
    items = page(client.get(location)).one("ol", "batch").all("li")
    assert not items[0].all("a")
    assert "first.jpg" not in items[0].text
    other = app.test_client()
    theirs = {"csrf_token": csrf_of(other, page)}
    assert other.post(f"{location}/delete", data=theirs).status_code == 403
    assert len(page(client.get(f"{location}/delete")).one("ul", "result-list").all("li")) == 1
    assert client.post(f"{location}/delete", data=form).location == "/results/deleted"
    assert client.get(location).status_code == 404
    assert client.get(links[1].attributes["href"]).status_code == 404
    assert (rows(app), pictures(settings)) == (before, kept)


def test_a_disk_that_fills_up_on_the_way_keeps_none_of_them(
    app: Flask,
    page: Page,
    settings: Settings,
    send_together: Callable[..., TestResponse],
    monkeypatch: Any,
) -> None:
    before, kept = rows(app), pictures(settings)
    written = []

    def fill(descriptor: int) -> None:
        written.append(descriptor)
        if len(written) == 2:
            raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(picture_files.os, "fsync", fill)
    answer = send_together()
    assert answer.status_code == 507
    assert (rows(app), pictures(settings)) == (before, kept)


def test_a_page_of_several_expires_too(
    app: Flask,
    client: FlaskClient,
    settings: Settings,
    send_together: Callable[..., TestResponse],
) -> None:
    location = send_together().location
    sessions = app.extensions["sessions"]
    change = update(UploadBatch).where(UploadBatch.token == token_of(location))
    with write_session(sessions) as session:
        session.execute(change.values(created_at=utc_now() - timedelta(days=7.1)))
    assert client.get(location).status_code == 404
    expiry.clean_uploads(settings, sessions)
    with read_session(sessions) as session:
        assert session.get(UploadBatch, token_of(location)) is None


def test_without_an_end_nothing_expires(
    settings: Settings, open_app: Callable[[Settings], Flask], page: Page, jpeg: bytes
) -> None:
    app = open_app(replace(settings, upload_days=0))
    client = app.test_client()
    form = {"csrf_token": csrf_of(client, page), "image": (io.BytesIO(jpeg), "cat.jpg")}
    location = client.post("/", data=form).location
    with write_session(app.extensions["sessions"]) as session:
        change = update(UploadResult).where(UploadResult.token == token_of(location))
        session.execute(change.values(created_at=utc_now() - timedelta(days=4000)))
    shown = page(client.get(location))
    assert "until" not in shown.text
    client.post(f"{location}/delete", data={"csrf_token": csrf_of(client, page)})
    assert client.get(location).status_code == 404


def test_an_example_may_be_larger_than_an_upload(
    settings: Settings, open_app: Callable[[Settings], Flask], page: Page, jpeg: bytes
) -> None:
    client = open_app(replace(settings, upload_megapixels=0)).test_client()
    shown = page(client.get("/"))
    form = shown.one("ul", "examples").all("form")[0]
    data = {"csrf_token": form.one("input").attributes["value"]}
    assert client.post(form.attributes["action"], data=data).status_code == 303
    refused = client.post("/", data={**data, "image": (io.BytesIO(jpeg), "cat.jpg")})
    assert refused.status_code == 413


def test_an_example_too_large_to_be_decoded_is_not_offered(
    client: FlaskClient, page: Page, monkeypatch: Any
) -> None:
    monkeypatch.setattr(images, "MAX_PIXELS", 120 * 120 - 1)
    assert not page(client.get("/")).all("ul", "examples")


def test_tables_of_an_earlier_version_name_the_command(
    settings: Settings, tmp_path: Path, open_app: Callable[[Settings], Flask], page: Page
) -> None:
    file = tmp_path / "app.sqlite3"
    with sqlite3.connect(settings.home.database) as now_, sqlite3.connect(file) as earlier:
        now_.backup(earlier)
    now_.close()
    earlier.close()
    old = replace(settings, database_url=f"sqlite:///{file}")
    downgrade_database(old, "0001")
    client = open_app(old).test_client()
    answer = client.get("/")
    assert answer.status_code == 503
    assert page(answer).one("code").text == "flask db upgrade"
    upgrade_database(old)
    assert client.get("/").status_code == 200


def test_no_log_line_holds_a_token(
    client: FlaskClient, page: Page, send: Send, jpeg: bytes, caplog: Any, monkeypatch: Any
) -> None:
    location = send(jpeg).location
    token = token_of(location)

    def fail(*_: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied", f"/uploads/{token}.jpg")

    monkeypatch.setattr(Path, "rename", fail)
    with caplog.at_level(logging.DEBUG):
        form = {"csrf_token": csrf_of(client, page)}
        assert client.post(f"{location}/delete", data=form).status_code == 500
    assert "Permission denied" in caplog.text
    assert token not in caplog.text
    said = f"GET /layers/conv1?of={token} /results/together/{token}?x"
    record = logging.LogRecord("gunicorn.access", logging.INFO, "", 0, "%s", (said,), None)
    assert make_discreet(record)
    assert record.getMessage() == "GET /layers/conv1?of=… /results/together/…?x"


def test_an_address_cannot_forge_a_line_of_the_log() -> None:
    said = "GET /a\nWARNING in app: forged\x1b[2K\u2028"
    record = logging.LogRecord("app", logging.WARNING, "", 0, "%s", (said,), None)
    assert make_discreet(record)
    assert record.getMessage() == r"GET /a\nWARNING in app: forged\x1b[2K\u2028"

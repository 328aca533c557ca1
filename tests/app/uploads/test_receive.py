"""What is taken, what is refused and why, and what is kept how long."""

import dataclasses
import errno
import io
import os
import shutil
import sqlite3
import struct
import threading
import zlib
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from flask import Flask
from PIL import Image
from sqlalchemy import event, func, select, update

from app.config import Settings
from app.database.session import (
    get_engine,
    read_session,
    session_factory,
    upgrade_database,
    write_session,
)
from app.database.tables import Dataset, IndexVersion, UploadResult, utc_now
from app.decoding.child import DecodedImage
from app.decoding.process import DecoderProcess
from app.uploads import picture_files
from app.uploads.expiry import clean_uploads, delete_expired_uploads, delete_old_files
from app.uploads.receive import make_display_name
from storage.files import switch_link
from storage.home import Home

ACCEPTED = "JPEG, PNG"


def png_of(width: int, height: int) -> bytes:
    """A PNG that says it has that many pixels, without holding them."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        crc = zlib.crc32(kind + data)
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", crc)

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    body = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0" * 1000))
    return b"\x89PNG\r\n\x1a\n" + body + chunk(b"IEND", b"")


def encoded(kind: str, **options: object) -> bytes:
    """A small picture in a format."""
    out = io.BytesIO()
    Image.effect_noise((64, 48), 60).convert("RGB").save(out, kind, **options)
    return out.getvalue()


BAD = {
    "empty": (b"", 400, "empty"),
    "text": (b"this is not an image, though it is called one", 415, ACCEPTED),
    "html": (b"<html><script>alert(1)</script></html>", 415, ACCEPTED),
    "svg": (b'<svg xmlns="http://www.w3.org/2000/svg"/>', 415, ACCEPTED),
    "gif": (encoded("GIF"), 415, ACCEPTED),
    "tiff": (encoded("TIFF"), 415, ACCEPTED),
    "truncated": (encoded("JPEG")[:400], 400, "damaged"),
    "only a header": (b"\xff\xd8\xff\xe0", 400, "damaged"),
    "bomb": (png_of(50_000, 50_000), 413, "pixels"),
    "too many pixels": (png_of(2_001, 1_000), 413, "pixels"),
    "too many bytes": (b"\xff\xd8" + bytes(1_000_001), 413, "1 MB"),
    "far too many bytes": (b"\xff\xd8" + bytes(3_000_000), 413, "1 MB"),
}


@pytest.mark.parametrize("case", BAD)
def test_a_bad_upload_is_refused_in_words(client, page, send, settings: Settings, case):
    data, status, word = BAD[case]
    before = set(settings.home.uploads.glob("*"))
    answer = send(data, f"{case}.jpg")
    assert answer.status_code == status
    shown = page(answer)
    assert word in shown.one("div", "message").text
    assert ACCEPTED in shown.text
    assert "Traceback" not in shown.text
    assert shown.one("form", "upload")  # and another can be sent from there
    assert set(settings.home.uploads.glob("*")) == before


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
def test_what_is_accepted_is_told_by_its_bytes_not_by_its_name(send, kind):
    assert send(encoded(kind), "report.txt").status_code == 303


def test_a_form_without_a_file_is_refused(client, page, token):
    answer = client.post("/", data={"csrf_token": token})
    assert answer.status_code == 400
    assert "“image”" in page(answer).one("div", "message").text


def test_a_form_sent_before_anything_was_chosen_is_refused(client, page, token):
    answer = client.post("/", data={"csrf_token": token, "image": (io.BytesIO(b""), "")})
    assert answer.status_code == 400
    assert page(answer).one("form", "upload")


def test_text_in_the_field_is_refused(client, page, token):
    answer = client.post("/", data={"csrf_token": token, "image": "hello"})
    assert answer.status_code == 400
    assert "“image”" in page(answer).text


def test_a_file_in_another_field_is_refused(client, page, token, jpeg):
    form = {"csrf_token": token, "image": (io.BytesIO(jpeg), "cat.jpg")}
    answer = client.post("/", data={**form, "another": (io.BytesIO(jpeg), "dog.jpg")})
    assert answer.status_code == 400
    assert "“another”" in page(answer).one("div", "message").text


def test_more_images_than_may_be_sent_together_are_refused(client, page, settings, token, jpeg):
    before = set(settings.home.uploads.glob("*"))
    files = [(io.BytesIO(jpeg), f"{n}.jpg") for n in range(13)]
    answer = client.post("/", data={"csrf_token": token, "image": files})
    assert answer.status_code == 413
    assert {"13", "12"} <= set(page(answer).one("div", "message").text.split())
    assert set(settings.home.uploads.glob("*")) == before


def test_a_request_larger_than_all_images_together_may_be_is_refused(client, page, token):
    form = {"csrf_token": token, "image": (io.BytesIO(bytes(12_100_000)), "cat.jpg")}
    answer = client.post("/", data=form)
    assert answer.status_code == 413
    assert "12 MB" in page(answer).one("div", "message").text


def test_a_chooser_that_was_not_used_is_no_image(client, token, jpeg):
    # As a browser sends it: the field of the camera beside that of the chooser.
    files = [(io.BytesIO(jpeg), "cat.jpg"), (io.BytesIO(b""), "")]
    for sent in (files, files[::-1]):
        again = [(io.BytesIO(data.getvalue()), name) for data, name in sent]
        answer = client.post("/", data={"csrf_token": token, "image": again})
        assert (answer.status_code, len(answer.location)) == (303, len("/results/") + 22)


def test_a_broken_multipart_body_is_refused(client, token):
    answer = client.post(
        "/",
        data=b"--x\r\nContent-Disposition: form-data; name=",
        content_type="multipart/form-data; boundary=x",
        headers={"X-CSRFToken": token},
    )
    assert answer.status_code == 400


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("cat.jpg", "cat.jpg"),
        ("../../etc/passwd", "passwd"),
        ("C:\\photos\\cat.jpg", "cat.jpg"),
        ("a\u202egpj.exe", "agpj.exe"),
        ("a\nb\0c.jpg", "abc.jpg"),
        ("", "unnamed image"),
        (None, "unnamed image"),
        ("..", ".."),
        ("x" * 300 + ".jpeg", "x" * 108 + "….jpeg"),
        ("x" * 300, "x" * 108 + "…"),
    ],
)
def test_a_name_is_reduced_to_what_can_be_shown(name, shown):
    assert make_display_name(name) == shown


def test_a_name_never_decides_where_something_is_written(send, settings: Settings, jpeg):
    before = {p for p in settings.home.root.rglob("*") if p.is_file()}
    assert send(jpeg, "../../../escape.jpg").status_code == 303
    new = {p for p in settings.home.root.rglob("*") if p.is_file()} - before
    pictures = {p for p in new if p.suffix == ".jpg"}
    assert {p.parent for p in pictures} == {settings.home.uploads}
    assert not any("escape" in p.name for p in new)


def test_markup_in_a_name_is_shown_as_it_is(client, page, send, jpeg):
    answer = client.get(send(jpeg, "<img src=x onerror=alert(1)>.jpg").location)
    assert b"<img src=x" not in answer.data
    assert "<img src=x onerror=alert(1)>.jpg" in page(answer).text


def test_eight_at_once_are_all_answered(app: Flask, jpeg):
    start = threading.Barrier(8)

    def one(number: int) -> tuple[int, str]:
        client = app.test_client()
        start.wait(60)
        sent = client.post("/api/classify", data={"image": (io.BytesIO(jpeg), f"{number}.jpg")})
        return sent.status_code, str(sent.get_json()["answers"][0]["top5"])

    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(one, range(8)))
    assert {status for status, _ in answers} == {200}
    assert len({top5 for _, top5 in answers}) == 1


def test_eight_forms_at_once_are_all_kept(app: Flask, jpeg, send, settings: Settings):
    before = len(list(settings.home.uploads.glob("*.jpg")))

    def one(number: int) -> str:
        client = app.test_client()
        location: str = send(jpeg, f"{number}.jpg", client).location
        assert f"{number}.jpg" in client.get(location).get_data(as_text=True)
        return location

    with ThreadPoolExecutor(8) as pool:
        locations = set(pool.map(one, range(8)))
    assert len(locations) == 8
    assert len(list(settings.home.uploads.glob("*.jpg"))) == before + 8


def age(app: Flask, token: str, days: float) -> None:
    """Make a result that many days old."""
    with app.extensions["sessions"].begin() as session:
        then = utc_now() - timedelta(days=days)
        session.execute(
            update(UploadResult).where(UploadResult.token == token).values(created_at=then)
        )


def test_a_result_expires_and_is_deleted_when_the_next_is_stored(
    app: Flask, client, send, settings: Settings, jpeg
):
    location = send(jpeg).location
    token = location.rsplit("/", 1)[1]
    picture = settings.home.uploads / f"{token}.jpg"
    age(app, token, 6.9)
    assert client.get(location).status_code == 200
    age(app, token, 7.1)
    assert client.get(location).status_code == 404
    assert client.get(f"{location}/picture.jpg").status_code == 404
    assert picture.exists()
    clean_uploads(settings, app.extensions["sessions"])
    assert not picture.exists()
    with app.extensions["sessions"]() as session:
        assert session.get(UploadResult, token) is None


def test_pictures_that_a_crash_left_behind_are_deleted_in_time(app: Flask, settings: Settings):
    settings.home.uploads.mkdir(exist_ok=True)
    old, new = settings.home.uploads / "old.jpg.part", settings.home.uploads / "new.jpg"
    for file in (old, new):
        file.write_bytes(b"left")
    eight_days_ago = (utc_now() - timedelta(days=8.5)).timestamp()
    os.utime(old, (eight_days_ago, eight_days_ago))
    delete_expired_uploads(settings, app.extensions["sessions"])
    assert not old.exists()
    assert new.exists()
    new.unlink()


def test_more_results_expire_at_once_than_a_statement_has_parameters(
    tmp_path: Path, settings: Settings
):
    own = dataclasses.replace(settings, home=Home(root=tmp_path))
    upgrade_database(own)
    sessions = session_factory(own)
    few = sqlite3.SQLITE_LIMIT_VARIABLE_NUMBER, 40  # in place of SQLite's 32,766
    event.listen(get_engine(sessions), "checkout", lambda c, *_: c.setlimit(*few))
    then = utc_now() - timedelta(days=9)
    with write_session(sessions) as session:
        session.add(Dataset(id=1, root="/photographs"))
        session.flush()
        counts = {"count": 1, "unreadable": 0}
        version = IndexVersion(id=1, name="v", dataset_id=1, weights="w", created_at=then, **counts)
        session.add(version)
        session.flush()
        for n in range(60):
            picture = {"filename": "cat.jpg", "sha256": "s", "width": 1, "height": 1}
            found: dict[str, Any] = {"top5": [], "neighbours": [], "milliseconds": {}}
            session.add(
                UploadResult(
                    token=f"old{n}",
                    created_at=then,
                    weights="w",
                    index_version_id=1,
                    **picture,
                    **found,
                )
            )
            session.flush()
    delete_expired_uploads(own, sessions)
    with read_session(sessions) as session:
        assert session.scalar(select(func.count()).select_from(UploadResult)) == 0


def test_a_picture_renamed_while_old_ones_are_sought_is_no_error(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
):
    settings.home.uploads.mkdir(exist_ok=True)
    part = settings.home.uploads / "other.jpg.part"
    part.write_bytes(b"another upload")
    stat = Path.stat

    def renamed(self: Path, **options: Any) -> os.stat_result:
        if self == part:
            part.unlink(missing_ok=True)  # another thread has finished with it
        return stat(self, **options)

    monkeypatch.setattr(Path, "stat", renamed)
    delete_old_files(settings.home.uploads, 7)
    assert not part.exists()


def test_the_folder_of_uploads_may_go_while_serving(client, send, settings: Settings, jpeg):
    first = send(jpeg).location
    shutil.rmtree(settings.home.uploads)
    assert client.get(first).status_code == 200
    assert client.get(f"{first}/picture.jpg").status_code == 404
    second = send(jpeg).location
    assert client.get(f"{second}/picture.jpg").status_code == 200


def test_a_result_shows_its_picture_which_nobody_keeps(client, page, send, jpeg):
    location = send(jpeg).location
    token = location.rsplit("/", 1)[1]
    address = page(client.get(location)).one("div", "input-image").one("img").attributes["src"]
    for shown in (address, f"{location}/picture.jpg?v={token[:12]}"):
        answer = client.get(shown)
        assert answer.mimetype == "image/jpeg"
        assert answer.headers["Cache-Control"] == "no-store"


def test_an_upload_is_decoded_once(send, jpeg, monkeypatch: pytest.MonkeyPatch):
    decoded = []
    decode = DecoderProcess.decode

    def count(process: DecoderProcess, data: bytes, *rest: Any) -> DecodedImage:
        decoded.append(data)
        return decode(process, data, *rest)

    monkeypatch.setattr(DecoderProcess, "decode", count)
    assert send(jpeg).status_code == 303
    assert decoded == [jpeg]


def test_a_full_disk_keeps_nothing_and_says_so(
    app: Flask, client, page, send, settings: Settings, jpeg, monkeypatch
):
    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    before = set(settings.home.uploads.glob("*"))
    monkeypatch.setattr(picture_files.os, "fsync", full)
    answer = send(jpeg)
    assert answer.status_code == 507
    assert set(settings.home.uploads.glob("*")) == before


def test_a_full_database_leaves_no_picture(app: Flask, page, send, settings: Settings, jpeg):
    def fill(connection: Any, *_: object) -> None:
        connection.execute("PRAGMA max_page_count = 1")  # means: no more than there are

    def rows() -> int:
        with app.extensions["sessions"]() as session:
            return session.scalar(select(func.count()).select_from(UploadResult))

    engine = app.extensions["sessions"].kw["bind"]
    before, pictures = rows(), len(list(settings.home.uploads.glob("*")))
    event.listen(engine, "checkout", fill)
    try:
        answers = [send(jpeg, "x" * 100 + ".jpg") for _ in range(12)]
    finally:
        event.remove(engine, "checkout", fill)
        engine.dispose()
    # The last page may have had room for a few; not for all.
    kept = sum(answer.status_code == 303 for answer in answers)
    assert kept < 12
    assert {answer.status_code for answer in answers} <= {303, 507}
    assert len(list(settings.home.uploads.glob("*"))) == pictures + kept
    assert rows() == before + kept


def test_a_picture_lost_from_the_disk_leaves_the_answer(client, page, send, settings, jpeg):
    location = send(jpeg).location
    (settings.home.uploads / f"{location.rsplit('/', 1)[1]}.jpg").unlink()
    assert page(client.get(location)).one("ol", "bars")
    picture = client.get(f"{location}/picture.jpg")
    assert (picture.status_code, picture.mimetype) == (404, "image/svg+xml")


def test_uploads_that_cannot_be_written_are_no_traceback(
    tmp_path: Path, settings: Settings, page, jpeg, open_app
):
    home = Home(root=tmp_path)
    switch_link(home.weights, settings.home.weights.resolve())
    home.index.symlink_to(settings.home.index)
    home.uploads.write_text("a file where the folder should be")
    other = dataclasses.replace(
        settings, home=home, database_url=f"sqlite:///{settings.home.database}"
    )
    client = open_app(other).test_client()
    token = page(client.get("/")).all("input")[0].attributes["value"]
    answer = client.post("/", data={"csrf_token": token, "image": (io.BytesIO(jpeg), "cat.jpg")})
    assert answer.status_code == 500

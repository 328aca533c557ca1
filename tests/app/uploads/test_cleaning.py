"""Uploads are cleaned up in time: by age, by quota, never by a clock that leapt."""

import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from flask import Flask

from app.config import Settings
from app.database.session import DatabaseError, read_session
from app.database.tables import UploadResult
from app.uploads import expiry, results
from app.uploads.clock import ClockReading
from app.uploads.expiry import UploadCleaner, clean_uploads
from storage.files import lock_file
from storage.home import Home


@pytest.fixture
def sent(send: Callable, jpeg: bytes) -> list[str]:
    """Three uploads, the oldest first."""
    return [send(jpeg).location.rsplit("/", 1)[1] for _ in range(3)]


def exists(app: Flask, settings: Settings, token: str) -> tuple[bool, bool]:
    """Whether its row is there, and its picture."""
    with read_session(app.extensions["sessions"]) as session:
        row = session.get(UploadResult, token) is not None
    return row, (settings.home.uploads / f"{token}.jpg").exists()


def quota(settings: Settings, monkeypatch: pytest.MonkeyPatch, count: float) -> None:
    """Allow as much as the newest `count` uploads take."""
    files = sorted(settings.home.uploads.glob("*.jpg"), key=lambda file: file.stat().st_mtime)
    size = files[-1].stat().st_size
    monkeypatch.setattr(Settings, "upload_quota", int(count * size / expiry.QUOTA_SHARE))


def test_the_oldest_go_when_the_quota_is_used_up(
    app, settings, sent: list[str], monkeypatch
) -> None:
    quota(settings, monkeypatch, 2.2)
    left = clean_uploads(settings, app.extensions["sessions"])
    assert exists(app, settings, sent[0]) == (False, False)
    assert [exists(app, settings, token) for token in sent[1:]] == [(True, True)] * 2
    assert left is not None
    assert left <= settings.upload_quota


def test_the_upload_that_exceeds_the_quota_has_others_cleaned_away(
    app, settings, sent: list[str], send, jpeg, monkeypatch
) -> None:
    quota(settings, monkeypatch, 2.2)
    cleaner: UploadCleaner = app.extensions["upload_cleaner"]
    cleaner.clean()
    send(jpeg)
    assert cleaner.thread
    cleaner.thread.join(30)
    assert exists(app, settings, sent[1]) == (False, False)
    assert exists(app, settings, sent[2]) == (True, True)


def test_nothing_is_scanned_before_it_is_time(app, send, jpeg, monkeypatch) -> None:
    cleaner: UploadCleaner = app.extensions["upload_cleaner"]
    cleaned = threading.Event()
    monkeypatch.setattr(expiry, "clean_uploads", lambda *_: cleaned.set())
    send(jpeg)
    assert not cleaned.is_set()
    cleaner.due_at = time.monotonic() - 1
    send(jpeg)
    assert cleaned.wait(30)
    assert cleaner.due_at > time.monotonic()


def test_a_leap_of_the_clock_deletes_nothing(app, settings, sent: list[str], monkeypatch) -> None:
    leapt = ClockReading(boot="a", running=5.0, clock=5.0, leapt_at=5.0)
    monkeypatch.setattr(expiry, "note_clock", lambda _: leapt)
    monkeypatch.setattr(
        results, "utc_now", lambda: results.datetime.max.replace(tzinfo=results.UTC)
    )
    clean_uploads(settings, app.extensions["sessions"])
    assert [exists(app, settings, token) for token in sent] == [(True, True)] * 3


def test_one_process_cleans_at_a_time(app, settings) -> None:
    with lock_file(settings.home.root / expiry.LOCK_FILE):
        assert clean_uploads(settings, app.extensions["sessions"]) is None


def test_a_home_without_anything_has_nothing_to_clean(
    settings, open_app: Callable[[Settings], Flask], tmp_path: Path, caplog
) -> None:
    app = open_app(replace(settings, home=Home(root=tmp_path / "new")))
    app.extensions["upload_cleaner"].clean()
    assert caplog.messages == []
    assert not (tmp_path / "new").exists()


def test_an_error_is_logged_and_the_next_time_is_tried_again(app, monkeypatch, caplog) -> None:
    cleaner: UploadCleaner = app.extensions["upload_cleaner"]

    def fail(*_: object) -> None:
        raise DatabaseError("The database is away")

    monkeypatch.setattr(expiry, "clean_uploads", fail)
    cleaner.clean()
    assert "The database is away" in caplog.text


def test_on_a_full_disk_the_picture_makes_room_for_its_rows_deletion(
    app, settings, sent: list[str], monkeypatch
) -> None:
    delete, tries = results.delete_row, []

    def delete_if_there_is_room(token: str, sessions) -> None:
        tries.append(list(settings.home.uploads.glob(f"{token}*")))
        if tries[-1]:
            raise DatabaseError("The database x cannot be used: database or disk is full")
        delete(token, sessions)

    monkeypatch.setattr(results, "delete_row", delete_if_there_is_room)
    results.delete_result(sent[0], settings, app.extensions["sessions"])
    assert exists(app, settings, sent[0]) == (False, False)
    assert [len(files) for files in tries] == [1, 0]


def test_other_errors_of_the_database_keep_the_picture(
    app, settings, sent: list[str], monkeypatch
) -> None:
    def fail(*_: object) -> None:
        raise DatabaseError("locked")

    monkeypatch.setattr(results, "delete_row", fail)
    with pytest.raises(DatabaseError):
        results.delete_result(sent[0], settings, app.extensions["sessions"])
    assert exists(app, settings, sent[0]) == (True, True)


def test_uploads_are_their_owners_alone(settings, sent) -> None:
    assert settings.home.uploads.stat().st_mode & 0o777 == 0o700


def test_a_full_disk_is_said_in_words_not_with_a_command(app, client, page, monkeypatch) -> None:
    def fail(*_: object) -> None:
        raise DatabaseError("The database x cannot be used: database or disk is full")

    monkeypatch.setattr("app.inference.loader.find_version", fail)
    answer = client.get("/readyz")
    assert (answer.status_code, answer.get_json()["reason"]) == (503, "disk")
    assert answer.get_json()["command"] == ""

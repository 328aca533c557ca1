"""Uploaded images: taken from a request, kept with their result for a while, then deleted."""

import hashlib
import os
import re
import secrets
import time
import unicodedata
from contextlib import suppress
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from pathlib import Path

from flask import Request
from sqlalchemy import delete

from app import catalogue
from app.config import Settings
from app.db import Sessions, reading, writing
from app.engine import Answer
from app.tables import IndexVersion, Result, now

FIELD = "image"
LONGEST_NAME = 120
TOKEN = re.compile(r"[A-Za-z0-9_-]{22}")
"""What `secrets.token_urlsafe(16)` gives."""
FORM_BYTES = 64 * 1024
"""Room in a request for what surrounds the file: boundaries, names, the form's token."""


class UploadError(ValueError):
    """An upload that cannot be taken; the message is a sentence for people."""

    def __init__(self, message: str, status: int = 400) -> None:
        super().__init__(message)
        self.status = status


@dataclass(frozen=True, kw_only=True)
class Upload:
    """A file as it was sent: its bytes, and a name that is only ever shown."""

    data: bytes
    filename: str


def take_upload(request: Request, settings: Settings) -> Upload:
    """Read the one image of a form. Raises UploadError: none, several, empty, too large."""
    sent = [file for name, file in request.files.items(multi=True) if name == FIELD]
    if len(sent) > 1 or len(request.files) > max(1, len(sent)):
        raise UploadError("More than one file was sent; one image at a time can be classified.")
    if not sent:
        raise UploadError(missing(request))
    data = sent[0].read()
    if not data:
        chosen = f"{shown_name(sent[0].filename)} is empty." if sent[0].filename else ""
        raise UploadError(chosen or "No image was chosen.")
    if len(data) > settings.upload_bytes:
        raise UploadError(too_many_bytes(settings), 413)
    return Upload(data=data, filename=shown_name(sent[0].filename))


def missing(request: Request) -> str:
    """Say why a request holds no image."""
    if FIELD in request.form:
        return f"The field “{FIELD}” held text, not a file."
    if request.mimetype != "multipart/form-data":
        return f"No file was sent; a multipart form with the field “{FIELD}” is expected."
    return f"No image was sent; it is expected in the field “{FIELD}”."


def too_many_bytes(settings: Settings) -> str:
    """Say what the limit in bytes is."""
    return f"The file is larger than {settings.upload_megabytes} MB, the most that is accepted."


def accepted(settings: Settings) -> str:
    """Say in one sentence what is accepted."""
    return (
        f"JPEG, PNG or WebP, up to {settings.upload_megabytes} MB "
        f"and {settings.upload_megapixels} megapixels."
    )


def shown_name(name: str | None) -> str:
    """Reduce what the browser called the file to a short name fit for showing."""
    last = re.split(r"[/\\]", name or "")[-1]
    visible = "".join(c for c in last if c == " " or unicodedata.category(c)[0] not in "CZ").strip()
    if len(visible) > LONGEST_NAME:
        visible = f"{visible[: LONGEST_NAME - 12]}…{Path(visible).suffix[:12]}"
    return visible or "unnamed image"


def store(
    upload: Upload, answer: Answer, picture: bytes, settings: Settings, sessions: Sessions
) -> str:
    """Keep an answer and its picture, a JPEG encoded here; give the token they are found by.

    Both are kept or neither. Raises OSError when the picture cannot be written, and
    DatabaseError.
    """
    delete_expired(settings, sessions)
    token = secrets.token_urlsafe(16)
    file = picture_file(settings, token)
    try:
        write_whole(file, picture)
        with writing(sessions) as session:
            session.add(row(token, upload, answer))
    except BaseException:
        file.unlink(missing_ok=True)
        raise
    return token


def row(token: str, upload: Upload, answer: Answer) -> Result:
    """Make the row that keeps an answer."""
    return Result(
        token=token,
        filename=upload.filename,
        sha256=hashlib.sha256(upload.data).hexdigest(),
        width=answer.width,
        height=answer.height,
        weights=answer.weights,
        index_version_id=answer.version.id,
        top5=[asdict(guess) for guess in answer.top5],
        crops=[asdict(guess) for guess in answer.crops],
        neighbours=[asdict(neighbour) for neighbour in answer.neighbours],
        milliseconds=answer.milliseconds,
    )


def find(token: str, settings: Settings, sessions: Sessions) -> Result | None:
    """Give the result of that token, unless there is none or it has expired."""
    if not TOKEN.fullmatch(token):
        return None
    with reading(sessions) as session:
        found = session.get(Result, token)
    if found is None or (settings.upload_days and found.created_at < oldest(settings)):
        return None
    return found


def oldest(settings: Settings) -> datetime:
    """Say when a result must have been made to be kept still."""
    return now() - timedelta(days=settings.upload_days)


def correct_label(result: Result, sessions: Sessions) -> str | None:
    """Give the label of the example that was sent, if it was one of them."""
    with reading(sessions) as session:
        version = session.get(IndexVersion, result.index_version_id)
    known = catalogue.examples(sessions, version.dataset_id) if version else []
    return next((e.label for e in known if e.sha256 == result.sha256), None)


def picture_file(settings: Settings, token: str) -> Path:
    """Say where the picture of a result lies; the token is one made or found here."""
    return settings.home.uploads / f"{token}.jpg"


def delete_expired(settings: Settings, sessions: Sessions) -> None:
    """Delete results that are too old, and pictures that outlived their row."""
    if not settings.upload_days:
        return
    with writing(sessions) as session:
        expired = delete(Result).where(Result.created_at < oldest(settings))
        old = list(session.scalars(expired.returning(Result.token)))
    for token in old:
        picture_file(settings, token).unlink(missing_ok=True)
    delete_old_files(settings.home.uploads, settings.upload_days)


def delete_old_files(folder: Path, days: int) -> None:
    """Delete pictures older than any result can be: what a crash left behind."""
    oldest = time.time() - (days + 1) * 24 * 3600
    for file in folder.glob("*.jpg*"):
        # Another request may have renamed or deleted it since it was listed.
        with suppress(FileNotFoundError):
            if file.stat().st_mtime < oldest:
                file.unlink()


def write_whole(file: Path, data: bytes) -> None:
    """Write a file beside its place and rename it into it: whole or not at all."""
    file.parent.mkdir(parents=True, exist_ok=True)
    part = file.with_name(f"{file.name}.part")
    try:
        with part.open("wb") as out:
            out.write(data)
            out.flush()
            os.fsync(out.fileno())
        part.replace(file)
    finally:
        part.unlink(missing_ok=True)

"""Results of uploads: kept with their picture for a while, found by a token, deleted."""

import hashlib
import re
import secrets
from collections.abc import Iterable
from dataclasses import asdict
from datetime import datetime, timedelta
from pathlib import Path

from sqlalchemy import ColumnElement, delete, select, true

from app.config import Settings
from app.database import images
from app.database.session import Sessions, reading, writing
from app.database.tables import IndexVersion, Result, Together, now
from app.inference.answers import Answer
from app.uploads.picture_files import put_aside, written_aside
from app.uploads.receive import Upload

TOKEN = re.compile(r"[A-Za-z0-9_-]{22}")
"""What `new_token` gives."""
Item = dict[str, str]


def new_token() -> str:
    """Make a token that cannot be guessed: 128 bits."""
    return secrets.token_urlsafe(16)


def picture_file(settings: Settings, token: str) -> Path:
    """Say where the picture of a result lies; the token is one made or found here."""
    return settings.home.uploads / f"{token}.jpg"


def store(
    upload: Upload, answer: Answer, picture: bytes, settings: Settings, sessions: Sessions
) -> str:
    """Keep an answer and its picture, a JPEG encoded here; give the token they are found by.

    Both are kept or neither. Raises OSError when the picture cannot be written, and
    DatabaseError.
    """
    token = new_token()
    file = picture_file(settings, token)
    with written_aside(file, picture) as part, writing(sessions) as session:
        session.add(row(token, upload, answer))
        session.flush()  # what the database refuses shows before the picture has its name
        part.replace(file)
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
        by_pixels=[asdict(neighbour) for neighbour in answer.by_pixels],
        sampled=answer.sampled,
        milliseconds=answer.milliseconds,
    )


def store_together(items: list[Item], sessions: Sessions) -> str:
    """Keep what came of images sent together (`Together.items`); give the token of their page.

    Raises DatabaseError.
    """
    token = new_token()
    with writing(sessions) as session:
        session.add(Together(token=token, items=items))
    return token


def find(token: str, settings: Settings, sessions: Sessions) -> Result | None:
    """Give the result of that token, unless there is none or it has expired."""
    return find_several([token], settings, sessions).get(token)


def find_several(
    tokens: Iterable[str], settings: Settings, sessions: Sessions
) -> dict[str, Result]:
    """Give the results of those tokens, by token, in their order; what is gone is left out."""
    asked = [token for token in tokens if TOKEN.fullmatch(token)]
    query = select(Result).where(Result.token.in_(asked), kept(Result, settings))
    with reading(sessions) as session:
        found = {result.token: result for result in session.scalars(query)}
    return {token: found[token] for token in asked if token in found}


def find_together(token: str, settings: Settings, sessions: Sessions) -> Together | None:
    """Give what was sent together under that token, unless there is none or it has expired."""
    if not TOKEN.fullmatch(token):
        return None
    query = select(Together).where(Together.token == token, kept(Together, settings))
    with reading(sessions) as session:
        return session.scalars(query).one_or_none()


def kept(table: type[Result | Together], settings: Settings) -> ColumnElement[bool]:
    """The condition that a row's time is not up."""
    return table.created_at >= oldest(settings) if settings.upload_days else true()


def oldest(settings: Settings) -> datetime:
    """Say when a result must have been made to be kept still."""
    return now() - timedelta(days=settings.upload_days)


def correct_label(result: Result, sessions: Sessions) -> str | None:
    """Give the label of the validation image that was sent, if it was one of those entered."""
    with reading(sessions) as session:
        version = session.get(IndexVersion, result.index_version_id)
    known = images.validation_images(sessions, version.dataset_id) if version else []
    return next((e.label for e in known if e.sha256 == result.sha256), None)


def erase(token: str, settings: Settings, sessions: Sessions) -> None:
    """Delete a result and its picture: both, or neither when this raises.

    The picture is put aside before the row is gone for good: where this process dies between the
    two, `expiry.clean` goes on from there. Raises OSError and DatabaseError.
    """
    with put_aside(picture_file(settings, token)), writing(sessions) as session:
        session.execute(delete(Result).where(Result.token == token))


def erase_together(found: Together, settings: Settings, sessions: Sessions) -> None:
    """Delete what was sent together, each result and then their page. Raises as `erase`."""
    for item in found.items:
        if "token" in item:
            erase(item["token"], settings, sessions)
    with writing(sessions) as session:
        session.execute(delete(Together).where(Together.token == found.token))

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
from app.database.images import find_validation_images
from app.database.session import Sessions, read_session, write_session
from app.database.tables import IndexVersion, UploadBatch, UploadResult, utc_now
from app.inference.classify import Classification
from app.uploads.picture_files import delete_on_success, write_then_rename
from app.uploads.receive import Upload

TOKEN = re.compile(r"[A-Za-z0-9_-]{22}")
"""What `new_token` gives."""
BatchItem = dict[str, str]


def new_token() -> str:
    """Make a token that cannot be guessed: 128 bits."""
    return secrets.token_urlsafe(16)


def result_picture_file(settings: Settings, token: str) -> Path:
    """Say where the picture of a result lies; the token is one made or found here."""
    return settings.home.uploads / f"{token}.jpg"


def store_result(
    upload: Upload, answer: Classification, picture: bytes, settings: Settings, sessions: Sessions
) -> str:
    """Keep an answer and its picture, a JPEG encoded here; give the token they are found by.

    Both are kept or neither. Raises OSError when the picture cannot be written, and
    DatabaseError.
    """
    token = new_token()
    file = result_picture_file(settings, token)
    with write_then_rename(file, picture) as part, write_session(sessions) as session:
        session.add(result_row(token, upload, answer))
        session.flush()  # what the database refuses shows before the picture has its name
        part.replace(file)
    return token


def result_row(token: str, upload: Upload, answer: Classification) -> UploadResult:
    """Make the row that keeps an answer."""
    return UploadResult(
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


def store_batch(items: list[BatchItem], sessions: Sessions) -> str:
    """Keep what came of images sent together (`Together.items`); give the token of their page.

    Raises DatabaseError.
    """
    token = new_token()
    with write_session(sessions) as session:
        session.add(UploadBatch(token=token, items=items))
    return token


def find_result(token: str, settings: Settings, sessions: Sessions) -> UploadResult | None:
    """Give the result of that token, unless there is none or it has expired."""
    return find_results([token], settings, sessions).get(token)


def find_results(
    tokens: Iterable[str], settings: Settings, sessions: Sessions
) -> dict[str, UploadResult]:
    """Give the results of those tokens, by token, in their order; what is gone is left out."""
    asked = [token for token in tokens if TOKEN.fullmatch(token)]
    query = select(UploadResult).where(
        UploadResult.token.in_(asked), not_expired(UploadResult, settings)
    )
    with read_session(sessions) as session:
        found = {result.token: result for result in session.scalars(query)}
    return {token: found[token] for token in asked if token in found}


def find_batch(token: str, settings: Settings, sessions: Sessions) -> UploadBatch | None:
    """Give what was sent together under that token, unless there is none or it has expired."""
    if not TOKEN.fullmatch(token):
        return None
    query = select(UploadBatch).where(
        UploadBatch.token == token, not_expired(UploadBatch, settings)
    )
    with read_session(sessions) as session:
        return session.scalars(query).one_or_none()


def not_expired(table: type[UploadResult | UploadBatch], settings: Settings) -> ColumnElement[bool]:
    """The condition that a row's time is not up."""
    return table.created_at >= expiry_cutoff(settings) if settings.upload_days else true()


def expiry_cutoff(settings: Settings) -> datetime:
    """Say when a result must have been made to be kept still."""
    return utc_now() - timedelta(days=settings.upload_days)


def find_true_label(result: UploadResult, sessions: Sessions) -> str | None:
    """Give the label of the validation image that was sent, if it was one of those entered."""
    with read_session(sessions) as session:
        version = session.get(IndexVersion, result.index_version_id)
    known = find_validation_images(sessions, version.dataset_id) if version else []
    return next((e.label for e in known if e.sha256 == result.sha256), None)


def delete_result(token: str, settings: Settings, sessions: Sessions) -> None:
    """Delete a result and its picture: both, or neither when this raises.

    The picture is put aside before the row is gone for good: where this process dies between the
    two, `expiry.clean` goes on from there. Raises OSError and DatabaseError.
    """
    with (
        delete_on_success(result_picture_file(settings, token)),
        write_session(sessions) as session,
    ):
        session.execute(delete(UploadResult).where(UploadResult.token == token))


def delete_batch(found: UploadBatch, settings: Settings, sessions: Sessions) -> None:
    """Delete what was sent together, each result and then their page. Raises as `erase`."""
    for item in found.items:
        if "token" in item:
            delete_result(item["token"], settings, sessions)
    with write_session(sessions) as session:
        session.execute(delete(UploadBatch).where(UploadBatch.token == found.token))

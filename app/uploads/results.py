"""Results of uploads: stored with their picture, found by a token, deleted."""

import hashlib
import re
import secrets
from collections.abc import Iterable
from dataclasses import asdict
from datetime import datetime, timedelta
from pathlib import Path

from sqlalchemy import ColumnElement, delete, exists, select, true, update
from sqlalchemy.orm import aliased, joinedload

from app.config import Settings
from app.database.session import DatabaseError, Sessions, read_session, write_session
from app.database.tables import Class, Image, IndexVersion, UploadBatch, UploadResult, utc_now
from app.inference.classify import Classification
from app.uploads.picture_files import delete_on_success, write_then_rename
from app.uploads.receive import Upload

TOKEN_PATTERN = re.compile(r"[A-Za-z0-9_-]{22}")
"""The form of what `make_token` returns."""
MAX_OWN_RESULTS = 48
"""Results of a browser that are shown to it again."""
MAX_OWN_BATCHES = 12
"""Batches of a browser that are shown to it again."""
BatchItem = dict[str, str]


def make_token() -> str:
    """Make a token of 128 random bits, which cannot be guessed."""
    return secrets.token_urlsafe(16)


def locate_result_picture(settings: Settings, token: str) -> Path:
    """Return the path of a result's picture; the token must come from this module."""
    return settings.home.uploads / f"{token}.jpg"


def store_result(
    upload: Upload,
    answer: Classification,
    picture: bytes,
    settings: Settings,
    sessions: Sessions,
    *,
    owner: str,
    original_sha256: str = "",
) -> str:
    """Store a result and its picture, a JPEG encoded by the server; return the token.

    owner: the browser that sent it. original_sha256: of the file that was sent, if `upload` is the
    picture that was kept of it.
    Stores both or neither. Raises OSError if the picture cannot be written, and DatabaseError.
    """
    token = make_token()
    file = locate_result_picture(settings, token)
    with write_then_rename(file, picture) as part, write_session(sessions) as session:
        row = make_result_row(token, upload, answer, owner)
        row.sha256 = original_sha256 or row.sha256
        session.add(row)
        session.flush()  # an error of the database comes before the picture gets its name
        part.replace(file)
    return token


def make_result_row(token: str, upload: Upload, answer: Classification, owner: str) -> UploadResult:
    """Return a classification as a row."""
    return UploadResult(
        token=token,
        owner=owner,
        filename=upload.filename,
        sha256=hashlib.sha256(upload.data).hexdigest(),
        width=answer.width,
        height=answer.height,
        weights=answer.weights,
        index_version_id=answer.version.id if answer.version else None,
        top5=[asdict(guess) for guess in answer.top5],
        crops=[asdict(guess) for guess in answer.crops],
        neighbours=[asdict(neighbour) for neighbour in answer.neighbours],
        by_pixels=[asdict(neighbour) for neighbour in answer.by_pixels],
        sampled=answer.sampled,
        sureness=asdict(answer.sureness) if answer.sureness else None,
        milliseconds=answer.milliseconds,
    )


def store_batch(items: list[BatchItem], sessions: Sessions, *, owner: str) -> str:
    """Store the outcomes of images sent together (`UploadBatch.items`); return the token.

    Raises DatabaseError.
    """
    token = make_token()
    with write_session(sessions) as session:
        session.add(UploadBatch(token=token, items=items, owner=owner))
    return token


def find_result(token: str, settings: Settings, sessions: Sessions) -> UploadResult | None:
    """Return the result of a token, or None if there is none or it has expired."""
    return find_results([token], settings, sessions).get(token)


def find_results(
    tokens: Iterable[str], settings: Settings, sessions: Sessions
) -> dict[str, UploadResult]:
    """Return the results of tokens, by token and in order, without those that are gone."""
    asked = [token for token in tokens if TOKEN_PATTERN.fullmatch(token)]
    query = (
        select(UploadResult)
        .where(UploadResult.token.in_(asked), make_unexpired_condition(UploadResult, settings))
        .options(joinedload(UploadResult.index_version))
    )
    with read_session(sessions) as session:
        found = {result.token: result for result in session.scalars(query)}
    return {token: found[token] for token in asked if token in found}


def find_own_results(owner: str, settings: Settings, sessions: Sessions) -> list[UploadResult]:
    """Return the newest results of a browser, newest first."""
    query = (
        select(UploadResult)
        .where(UploadResult.owner == owner, make_unexpired_condition(UploadResult, settings))
        .order_by(UploadResult.created_at.desc())
        .limit(MAX_OWN_RESULTS)
    )
    if not owner:
        return []
    with read_session(sessions) as session:
        return list(session.scalars(query))


def find_own_batches(owner: str, settings: Settings, sessions: Sessions) -> list[UploadBatch]:
    """Return the newest batches of a browser, newest first, also where all results are deleted."""
    query = (
        select(UploadBatch)
        .where(UploadBatch.owner == owner, make_unexpired_condition(UploadBatch, settings))
        .order_by(UploadBatch.created_at.desc())
        .limit(MAX_OWN_BATCHES)
    )
    if not owner:
        return []
    with read_session(sessions) as session:
        return list(session.scalars(query))


def claim_uploads(tokens: list[str], owner: str, sessions: Sessions) -> None:
    """Give uploads that have no owner yet to a browser. Raises DatabaseError."""
    with write_session(sessions) as session:
        for table in (UploadResult, UploadBatch):
            mine = (table.token.in_(tokens), table.owner.is_(None))
            session.execute(update(table).where(*mine).values(owner=owner))


def find_batch(token: str, settings: Settings, sessions: Sessions) -> UploadBatch | None:
    """Return the batch of a token, or None if there is none or it has expired."""
    if not TOKEN_PATTERN.fullmatch(token):
        return None
    query = select(UploadBatch).where(
        UploadBatch.token == token, make_unexpired_condition(UploadBatch, settings)
    )
    with read_session(sessions) as session:
        return session.scalars(query).one_or_none()


def make_unexpired_condition(
    table: type[UploadResult | UploadBatch], settings: Settings
) -> ColumnElement[bool]:
    """Return the SQL condition that a row has not expired."""
    return table.created_at >= compute_expiry_cutoff(settings) if settings.upload_days else true()


def compute_expiry_cutoff(settings: Settings) -> datetime:
    """Return the time before which results have expired."""
    return utc_now() - timedelta(days=settings.upload_days)


def find_true_label(result: UploadResult, sessions: Sessions) -> str | None:
    """Return the label of the validation image that was sent, if it was one of the examples."""
    newer = aliased(Image)
    query = (
        select(Class.label)
        .join(Image, Image.class_id == Class.id)
        .join(IndexVersion, IndexVersion.dataset_id == Class.dataset_id)
        .where(
            IndexVersion.id == result.index_version_id,
            Image.split == "val",
            Image.sha256 == result.sha256,
            # Not a file that has changed since: its row registered last counts.
            ~exists().where(
                newer.class_id == Image.class_id, newer.path == Image.path, newer.id > Image.id
            ),
        )
        .order_by(Image.id)
    )
    with read_session(sessions) as session:
        return session.scalars(query.limit(1)).one_or_none()


def delete_result(token: str, settings: Settings, sessions: Sessions) -> None:
    """Delete a result and its picture: both, or neither if this raises.

    The picture is renamed before the row is deleted: if the process dies between the two,
    `clean_uploads` completes the deletion. On a full disk the picture goes first, which makes room
    for the row's deletion. Raises OSError and DatabaseError.
    """
    picture = locate_result_picture(settings, token)
    try:
        with delete_on_success(picture):
            delete_row(token, sessions)
    except DatabaseError as error:
        if not error.is_disk_full:
            raise
        picture.unlink(missing_ok=True)
        delete_row(token, sessions)


def delete_row(token: str, sessions: Sessions) -> None:
    """Delete a result, but not its picture. Raises DatabaseError."""
    with write_session(sessions) as session:
        session.execute(delete(UploadResult).where(UploadResult.token == token))


def delete_batch(found: UploadBatch, settings: Settings, sessions: Sessions) -> None:
    """Delete a batch: each of its results, then the batch. Raises as `delete_result`."""
    for item in found.items:
        if "token" in item:
            delete_result(item["token"], settings, sessions)
    with write_session(sessions) as session:
        session.execute(delete(UploadBatch).where(UploadBatch.token == found.token))

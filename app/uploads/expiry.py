"""Deletes expired results, and what a crash left behind."""

import time
from contextlib import suppress
from pathlib import Path

from sqlalchemy import delete

from app.config import Settings
from app.database.session import Sessions, write_session
from app.database.tables import UploadBatch, UploadResult
from app.uploads.picture_files import ERASED_SUFFIX, PART_SUFFIX
from app.uploads.results import compute_expiry_cutoff, delete_result, locate_result_picture

SECONDS_PER_DAY = 24 * 3600
SECONDS_PER_MINUTE = 60


def delete_expired_uploads(settings: Settings, sessions: Sessions) -> None:
    """Delete expired results, and complete interrupted deletions. Raises DatabaseError.

    Called before each result that is stored.
    """
    if settings.upload_days:
        delete_expired_rows(settings, sessions)
    finish_interrupted_deletions(settings, sessions)
    delete_old_files(settings.home.uploads, settings.upload_days)


def delete_expired_rows(settings: Settings, sessions: Sessions) -> None:
    """Delete expired results and batches."""
    with write_session(sessions) as session:
        expired = delete(UploadResult).where(
            UploadResult.created_at < compute_expiry_cutoff(settings)
        )
        old = list(session.scalars(expired.returning(UploadResult.token)))
        session.execute(
            delete(UploadBatch).where(UploadBatch.created_at < compute_expiry_cutoff(settings))
        )
    for token in old:
        locate_result_picture(settings, token).unlink(missing_ok=True)


def finish_interrupted_deletions(settings: Settings, sessions: Sessions) -> None:
    """Complete the deletions during which the server died."""
    suffix = f".jpg{ERASED_SUFFIX}"
    for file in settings.home.uploads.glob(f"*{suffix}"):
        with suppress(FileNotFoundError):
            if (
                file.stat().st_ctime < time.time() - SECONDS_PER_MINUTE
            ):  # not one that is being deleted just now
                delete_result(file.name.removesuffix(suffix), settings, sessions)


def delete_old_files(folder: Path, days: int) -> None:
    """Delete incomplete pictures after a day, and pictures older than any result can be."""
    now = time.time()
    for file in folder.glob("*.jpg*"):
        whole = not file.name.endswith(PART_SUFFIX)
        if whole and not days:
            continue
        # Another request may have renamed or deleted it since the listing.
        with suppress(FileNotFoundError):
            if file.stat().st_mtime < now - SECONDS_PER_DAY * (days + 1 if whole else 1):
                file.unlink()

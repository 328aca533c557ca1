"""What is deleted without being asked: results that are too old, and what a crash left behind."""

import time
from contextlib import suppress
from pathlib import Path

from sqlalchemy import delete

from app.config import Settings
from app.database.session import Sessions, writing
from app.database.tables import Result, Together
from app.uploads.picture_files import ERASED, PART
from app.uploads.results import erase, oldest, picture_file

DAY = 24 * 3600
MINUTE = 60


def clean(settings: Settings, sessions: Sessions) -> None:
    """Delete results whose time is up, and finish what was left unfinished. Raises DatabaseError.

    It is called before each result that is kept.
    """
    if settings.upload_days:
        delete_expired(settings, sessions)
    finish_erasing(settings, sessions)
    delete_old_files(settings.home.uploads, settings.upload_days)


def delete_expired(settings: Settings, sessions: Sessions) -> None:
    """Delete results and pages of results that are too old."""
    with writing(sessions) as session:
        expired = delete(Result).where(Result.created_at < oldest(settings))
        old = list(session.scalars(expired.returning(Result.token)))
        session.execute(delete(Together).where(Together.created_at < oldest(settings)))
    for token in old:
        picture_file(settings, token).unlink(missing_ok=True)


def finish_erasing(settings: Settings, sessions: Sessions) -> None:
    """Delete for good what somebody had deleted while the server died."""
    suffix = f".jpg{ERASED}"
    for file in settings.home.uploads.glob(f"*{suffix}"):
        with suppress(FileNotFoundError):
            if file.stat().st_ctime < time.time() - MINUTE:  # not one that is just being deleted
                erase(file.name.removesuffix(suffix), settings, sessions)


def delete_old_files(folder: Path, days: int) -> None:
    """Delete pictures half written a day ago, and those older than any result of `days` can be."""
    now = time.time()
    for file in folder.glob("*.jpg*"):
        whole = not file.name.endswith(PART)
        if whole and not days:
            continue
        # Another request may have renamed or deleted it since it was listed.
        with suppress(FileNotFoundError):
            if file.stat().st_mtime < now - DAY * (days + 1 if whole else 1):
                file.unlink()

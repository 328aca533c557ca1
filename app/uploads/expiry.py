"""Deletes expired results, those beyond the quota, and what a crash left behind."""

import logging
import threading
import time
from contextlib import suppress
from pathlib import Path

from sqlalchemy import delete, select

from app.config import Settings
from app.database.new_home import needs_first_tables
from app.database.session import DatabaseError, Sessions, read_session, write_session
from app.database.tables import UploadBatch, UploadResult
from app.uploads.clock import note_clock
from app.uploads.picture_files import ERASED_SUFFIX, PART_SUFFIX
from app.uploads.results import compute_expiry_cutoff, delete_result, locate_result_picture
from storage.files import lock_file

SECONDS_PER_DAY = 24 * 3600
SECONDS_PER_MINUTE = 60
CLEANING_SECONDS = 600.0
"""Seconds between two cleanings."""
RESULTS_PER_QUERY = 100
QUOTA_SHARE = 0.9
"""Share of the quota that is left used when it has been exceeded, so that it is not at once again.
"""
CLOCK_FILE, LOCK_FILE = ".uploads-clock.json", ".uploads-cleaning.lock"


class UploadCleaner:
    """Cleans up beside the requests: every ten minutes, and when the quota is exceeded."""

    def __init__(self, settings: Settings, sessions: Sessions) -> None:
        self.settings, self.sessions = settings, sessions
        self.lock = threading.Lock()
        self.thread: threading.Thread | None = None
        self.due_at = time.monotonic() + CLEANING_SECONDS
        self.stored_bytes = 0
        """What all uploads took at the last cleaning, and those since."""

    def keep_clean(self) -> None:
        """Clean up now and from then on, also if no upload comes; ends with the process."""
        threading.Thread(target=self.clean_forever, name="cleaning", daemon=True).start()

    def clean_forever(self) -> None:
        """Clean up whenever it is due."""
        while True:
            self.clean()
            time.sleep(CLEANING_SECONDS)

    def note_stored(self, count: int) -> None:
        """Take note of bytes that were stored; clean up if it is due or the quota is exceeded."""
        with self.lock:
            self.stored_bytes += count
            exceeded = self.stored_bytes > self.settings.upload_quota
            is_busy = self.thread is not None and self.thread.is_alive()
            if is_busy or not (exceeded or time.monotonic() >= self.due_at):
                return
            self.thread = threading.Thread(target=self.clean, name="cleaning", daemon=True)
            self.thread.start()

    def clean(self) -> None:
        """Clean up once."""
        self.due_at = time.monotonic() + CLEANING_SECONDS
        try:
            if needs_first_tables(self.settings, self.sessions):
                return  # nothing was ever uploaded
            left = clean_uploads(self.settings, self.sessions)
        except (DatabaseError, OSError) as error:
            logging.getLogger(__name__).warning("uploads could not be cleaned up: %s", error)
            return
        if left is not None:
            with self.lock:
                self.stored_bytes = left


def clean_uploads(settings: Settings, sessions: Sessions) -> int | None:
    """Delete what has expired or exceeds the quota, and complete interrupted deletions.

    Returns the bytes that are left, or None while another process cleans up. Nothing counts as
    expired while the clock is suspect. Raises DatabaseError and OSError.
    """
    home = settings.home
    try:
        with lock_file(home.root / LOCK_FILE, wait=False):
            reading = note_clock(home.root / CLOCK_FILE)
            if not reading.is_settled:
                logging.getLogger(__name__).warning(
                    "the clock has leapt; uploads expire again when it has stayed for a day"
                )
            else:
                delete_expired_uploads(settings, sessions)
            finish_interrupted_deletions(settings, sessions)
            return apply_quota(settings, sessions)
    except BlockingIOError:
        return None


def delete_expired_uploads(settings: Settings, sessions: Sessions) -> None:
    """Delete expired results, and files that no result can have. Raises DatabaseError."""
    if settings.upload_days:
        delete_expired_rows(settings, sessions)
    delete_old_files(settings.home.uploads, settings.upload_days)


def apply_quota(settings: Settings, sessions: Sessions) -> int:
    """Delete the oldest results while all pictures take more than the quota; return their bytes."""
    used = sum(measure_file(file) for file in settings.home.uploads.glob("*.jpg*"))
    if used <= settings.upload_quota:
        return used
    while used > QUOTA_SHARE * settings.upload_quota:
        oldest = list_oldest_results(sessions)
        for token in oldest:
            size = measure_file(locate_result_picture(settings, token))
            delete_result(token, settings, sessions)
            used -= size
            if used <= QUOTA_SHARE * settings.upload_quota:
                break
        if not oldest:
            break
    logging.getLogger(__name__).warning("the oldest uploads were deleted: the quota is used up")
    return used


def list_oldest_results(sessions: Sessions) -> list[str]:
    """Return the tokens of the oldest results, the oldest first."""
    query = select(UploadResult.token).order_by(UploadResult.created_at).limit(RESULTS_PER_QUERY)
    with read_session(sessions) as session:
        return list(session.scalars(query))


def measure_file(file: Path) -> int:
    """Return a file's bytes; 0 if it no longer exists."""
    try:
        return file.stat().st_size
    except FileNotFoundError:
        return 0


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

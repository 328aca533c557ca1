"""Whose upload it is: the browser's that sent it, known by a long random id in its cookie.

The database holds the id's hash beside each upload. So uploads that one browser sends at the same
time are all its own, whichever answer's cookie it keeps.
"""

import hashlib

from flask import session

from app import context
from app.database.tables import UploadBatch, UploadResult
from app.uploads.results import TOKEN_PATTERN, claim_uploads, make_token

OWNER_KEY = "owner"
EARLIER_KEYS = ("results", "together")
"""Where cookies of earlier versions listed what the browser had made."""


def remember_browser() -> None:
    """Give this browser an id, before it sends anything; keep the cookie after it is closed."""
    if not isinstance(session.get(OWNER_KEY), str):
        session[OWNER_KEY] = make_token()
    session.permanent = session.modified = True
    earlier = [token for key in EARLIER_KEYS for token in session.pop(key, None) or []]
    if tokens := [token for token in earlier if TOKEN_PATTERN.fullmatch(str(token))]:
        claim_uploads(tokens, read_owner(), context.sessions())


def is_own(upload: UploadResult | UploadBatch) -> bool:
    """Whether this browser sent it."""
    return bool(upload.owner) and upload.owner == read_owner()


def read_owner() -> str:
    """Return what the database holds of this browser's id; empty if it has none."""
    owner = session.get(OWNER_KEY)
    return hashlib.sha256(owner.encode()).hexdigest() if isinstance(owner, str) else ""

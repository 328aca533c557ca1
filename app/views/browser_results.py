"""Which results this browser has made: kept in its own signed cookie, nowhere else."""

from flask import session

from app.uploads.results import TOKEN

RESULTS, TOGETHER = "results", "together"
"""Where a cookie keeps tokens: of results, and of pages of images sent together."""
MOST = 48
"""Tokens of a kind that a browser's cookie remembers: a cookie holds four kilobytes."""


def mine(kind: str = RESULTS) -> list[str]:
    """Give the tokens of what was made here, the latest first; some may be gone by now."""
    found = session.get(kind, [])
    known = found if isinstance(found, list) else []
    return [token for token in known if isinstance(token, str) and TOKEN.fullmatch(token)]


def remember(token: str, kind: str = RESULTS) -> None:
    """Add what was made now."""
    session[kind] = [token, *(known for known in mine(kind) if known != token)][:MOST]


def forget(token: str, kind: str = RESULTS) -> None:
    """Leave something out from now on."""
    session[kind] = [known for known in mine(kind) if known != token]

"""Which results this browser has made: kept in its own signed cookie, nowhere else."""

from flask import session

from app.uploads import TOKEN

KEY = "results"
MOST = 24
"""Results that a browser's cookie remembers: a cookie holds four kilobytes."""


def mine() -> list[str]:
    """Give the tokens of the results made here, the latest first; some may be gone by now."""
    found = session.get(KEY, [])
    known = found if isinstance(found, list) else []
    return [token for token in known if isinstance(token, str) and TOKEN.fullmatch(token)]


def remember(token: str) -> None:
    """Add a result that was made now."""
    session[KEY] = [token, *(known for known in mine() if known != token)][:MOST]


def forget(token: str) -> None:
    """Leave a result out from now on."""
    session[KEY] = [known for known in mine() if known != token]

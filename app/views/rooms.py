"""What the views are given: the settings, the database's sessions, the engine."""

import threading

from flask import current_app

from app.config import Settings
from app.db import Sessions
from app.engine import Answer, Engine, NotReady, NotReadyError, Ready
from app.uploads import Upload

MOST_ID = 2**31 - 1
"""The largest id a database column holds; a larger one in an address is no page of ours."""


def settings() -> Settings:
    """Give the application's settings."""
    found: Settings = current_app.extensions["settings"]
    return found


def sessions() -> Sessions:
    """Give the maker of database sessions."""
    found: Sessions = current_app.extensions["sessions"]
    return found


def engine() -> Engine:
    """Give what answers."""
    found: Engine = current_app.extensions["engine"]
    return found


def ready() -> Ready:
    """Give weights and index that fit each other. Raises NotReadyError."""
    state = engine().state()
    if isinstance(state, NotReady):
        raise NotReadyError(state)
    return state


def answer(upload: Upload) -> Answer:
    """Answer for an upload, waiting for a turn: the page and the API both come through here."""
    turns: threading.BoundedSemaphore = current_app.extensions["turns"]
    with turns:
        return engine().answer(upload.data)

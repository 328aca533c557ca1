"""What the views are given: the settings, the database's sessions, the engine."""

import threading

from flask import current_app

from app.config import Settings
from app.database import browse
from app.database.browse import ClassCount
from app.database.session import Sessions
from app.inference.loader import Answer, Engine, NotReady, NotReadyError, Ready, no_index
from app.uploads.receive import Upload
from model.predict import Predictor

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


def predictor() -> Predictor:
    """Give the network, with or without an index that fits it. Raises NotReadyError."""
    found = engine().predictor()
    if isinstance(found, NotReady):
        raise NotReadyError(found)
    return found


def listed() -> tuple[Ready, list[ClassCount]]:
    """Give what is served and the classes it holds, at least one. Raises NotReadyError.

    After two builds in a row without a visitor the version last read has no list any more.
    """
    state = ready()
    if classes := browse.classes(sessions(), state.version.id):
        return state, classes
    latest = engine().settled()
    if isinstance(latest, Ready) and (classes := browse.classes(sessions(), latest.version.id)):
        return latest, classes
    raise NotReadyError(latest if isinstance(latest, NotReady) else no_index())


def answer(upload: Upload) -> Answer:
    """Answer for an upload, waiting for a turn."""
    with turn():
        return engine().answer(upload.data)


def turn() -> threading.BoundedSemaphore:
    """Give what bounds how many uploads are in memory as pixels at a time."""
    turns: threading.BoundedSemaphore = current_app.extensions["turns"]
    return turns

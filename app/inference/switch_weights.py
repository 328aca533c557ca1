"""Switches the weights in use, and the index with them, while the application serves."""

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass

from app.config import Settings
from app.database.session import Sessions
from app.inference.loader import check_servable
from app.inference.weights_files import (
    WeightsFile,
    find_index_versions_by_weights,
    find_weights_file,
)
from index import store
from index.manifest import StoreError
from model.checkpoint import WeightsError, load_weights
from storage.files import switch_link
from storage.home import Home


class SwitchError(Exception):
    """Weights that cannot be switched to now; the message is a sentence for people."""


@dataclass(frozen=True, kw_only=True)
class SwitchedWeights:
    """What is in use now. index: the version switched to, or None if none matches."""

    model: WeightsFile
    index: str | None


@dataclass(frozen=True, kw_only=True)
class UnindexedWeights:
    """Weights without a usable index: switching to them needs consent. Nothing was switched.

    why: what is wrong with the matching index, or empty if there is none.
    """

    model: WeightsFile
    why: str


def switch_weights(
    settings: Settings, sessions: Sessions, key: str, *, consent: bool
) -> SwitchedWeights | UnindexedWeights:
    """Switch to a weights file, and to the newest index version built with it.

    The file is read completely first. Only one switch at a time, also across processes, and none
    during a build. Without `consent` nothing is switched if no index matches. Raises SwitchError
    and DatabaseError.
    """
    home = settings.home
    with acquire_switching_lock(home):
        model = find_weights_file(home, key)
        if model is None:
            raise SwitchError("This file no longer exists; it may have been deleted.")
        if home.weights.exists() and not home.weights.is_symlink():
            raise SwitchError(NOT_A_LINK_MESSAGE)
        identity = check_weights_file(model)
        index, why = find_usable_index(
            home, find_index_versions_by_weights(home, sessions).get(identity)
        )
        if index is None and not consent:
            return UnindexedWeights(model=model, why=why)
        point_links(home, model, index)
    return SwitchedWeights(model=model, index=index)


NOT_A_LINK_MESSAGE = (
    "The weights in use are a file rather than a link to one, and would be lost; first move the "
    "file to its own folder under runs."
)
UNWRITABLE_MESSAGE = (
    "The server could not write to its disk; nothing was switched. The log says why."
)
BUSY_MESSAGE = (
    "An index is being built or weights are being switched; try again when that has finished."
)


@contextmanager
def acquire_switching_lock(home: Home) -> Iterator[None]:
    """Hold the lock on weights and index. Raises SwitchError if somebody else holds it."""
    try:
        with store.acquire_build_lock(home.index):
            yield
    except StoreError as error:
        busy = isinstance(error.__cause__, BlockingIOError)
        raise SwitchError(BUSY_MESSAGE if busy else UNWRITABLE_MESSAGE) from error


def check_weights_file(model: WeightsFile) -> str:
    """Read a file completely and check that it can be served; return its identity.

    Raises SwitchError.
    """
    try:
        return check_servable(load_weights(model.file)).identity
    except (WeightsError, OSError) as error:
        said = str(error).replace(str(model.file), "This file")
        raise SwitchError(f"{said[:1].upper()}{said[1:]}.") from error


def find_usable_index(home: Home, name: str | None) -> tuple[str | None, str]:
    """Return the index version's name if it is intact, or None and what is wrong with it."""
    if name is None:
        return None, ""
    try:
        store.check_version(home.index, name)
    except StoreError as error:
        return None, f"{str(error).replace(f'{home.index}{os.sep}', '')}."
    return name, ""


def point_links(home: Home, model: WeightsFile, index: str | None) -> None:
    """Switch both links, to the file and then to the version, or neither. Raises SwitchError."""
    before = home.weights.readlink() if home.weights.is_symlink() else None
    try:
        switch_link(home.weights, model.file)
        if index is not None:
            store.publish_version(home.index, index)
    except (OSError, StoreError) as error:
        if before is not None:
            with suppress(OSError):
                switch_link(home.weights, home.weights.parent / before)
        raise SwitchError(UNWRITABLE_MESSAGE) from error

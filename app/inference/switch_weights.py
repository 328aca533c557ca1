"""Switches the weights in service, and the index with them, while the application serves."""

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from app.config import Settings
from app.database.session import Sessions
from app.inference.served_weights import find_weights_source, load_servable
from app.inference.weights_files import (
    WeightsFile,
    find_index_versions_by_weights,
    find_weights_file,
)
from index import store
from index.manifest import StoreError
from model.weights.header import WeightsError
from storage.files import switch_link
from storage.home import Home


class SwitchError(Exception):
    """Weights that cannot be switched to now; the message is a sentence for people."""


@dataclass(frozen=True, kw_only=True)
class SwitchedWeights:
    """The weights switched to. index: the version switched to, or None if none matches.

    served: whether they are in service. If not, what was served stays until an index is built.
    """

    model: WeightsFile
    index: str | None
    served: bool


@dataclass(frozen=True, kw_only=True)
class UnindexedWeights:
    """Weights without a usable index: switching to them needs consent. Nothing was switched.

    why: what is wrong with the matching index, or empty if there is none.
    """

    model: WeightsFile
    why: str


Unindexed = Literal["ask", "select", "serve"]
"""What to do about weights without an index: nothing, so that a person can be asked; only select
them for the next build; or let them serve alone, in place of what is in service."""


def switch_weights(
    settings: Settings, sessions: Sessions, key: str, *, unindexed: Unindexed
) -> SwitchedWeights | UnindexedWeights:
    """Switch to a weights file, and to the newest index version built with it.

    The file is read completely first. Only one switch at a time, also across processes, and none
    during a build. Raises SwitchError and DatabaseError.
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
        if index is None and unindexed == "ask":
            return UnindexedWeights(model=model, why=why)
        try:
            if index is not None:
                publish_pair(home, model.file, index)
            else:
                select_weights(home, model.file, alone=unindexed == "serve")
        except (OSError, StoreError) as error:
            raise SwitchError(UNWRITABLE_MESSAGE) from error
        source = find_weights_source(home)
    alone = source.file is not None and source.file.resolve() == model.file.resolve()
    return SwitchedWeights(model=model, index=index, served=index is not None or alone)


NOT_A_LINK_MESSAGE = (
    "The selected weights are a file rather than a link to one, and would be lost; first move the "
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
        return load_servable(model.file).identity
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


def publish_pair(home: Home, file: Path, version: str) -> None:
    """Put an index version and its weights into service, and select the weights.

    Both or neither. Raises OSError and StoreError.
    """
    with selected_weights(home, file):
        store.publish_version(home.index, version)


def select_weights(home: Home, file: Path, *, alone: bool) -> None:
    """Select weights for the next build.

    alone: also put them into service without an index. Raises OSError and StoreError.
    """
    with selected_weights(home, file):
        if alone:
            store.publish_weights(home.index, file)


@contextmanager
def selected_weights(home: Home, file: Path) -> Iterator[None]:
    """Link a file as the selected weights; restore the link if the body raises."""
    before = home.weights.readlink() if home.weights.is_symlink() else None
    if before is not None or not home.weights.exists():
        switch_link(home.weights, file)
    try:
        yield
    except (OSError, StoreError):
        if before is not None:
            with suppress(OSError):
                switch_link(home.weights, home.weights.parent / before)
        raise

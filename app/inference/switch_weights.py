"""Exchanging the weights in use, and the index with them, while the application serves."""

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass

from app.config import Settings
from app.database.session import Sessions
from app.inference.loader import check_servable
from app.inference.weights_files import WeightsFile, find_weights_file, index_versions_by_weights
from index import store
from index.manifest import StoreError
from model.checkpoint import WeightsError, load_weights
from storage.files import switch_link
from storage.home import Home


class SwitchError(Exception):
    """Weights that cannot be switched to, or not now; the message is a sentence for people."""


@dataclass(frozen=True, kw_only=True)
class Switched:
    """What is in use now. index: the version switched to, or None where none fits."""

    model: WeightsFile
    index: str | None


@dataclass(frozen=True, kw_only=True)
class Unindexed:
    """Weights that no index fits: switching to them takes somebody's consent. Nothing was done.

    why: what is wrong with the index that would fit, or empty where there is none.
    """

    model: WeightsFile
    why: str


def switch_weights(
    settings: Settings, sessions: Sessions, key: str, *, consent: bool
) -> Switched | Unindexed:
    """Point the weights in use at a file, and the index at a version made by it.

    The file is read whole first. One at a time, also among processes, and not during a build.
    Without `consent` nothing is done where no index fits. Raises SwitchError and DatabaseError.
    """
    home = settings.home
    with switching_lock(home):
        model = find_weights_file(home, key)
        if model is None:
            raise SwitchError("There is no such file any more; it may have been deleted.")
        if home.weights.exists() and not home.weights.is_symlink():
            raise SwitchError(NOT_A_LINK)
        identity = check_weights_file(model)
        index, why = usable_index(home, index_versions_by_weights(home, sessions).get(identity))
        if index is None and not consent:
            return Unindexed(model=model, why=why)
        point_links(home, model, index)
    return Switched(model=model, index=index)


NOT_A_LINK = (
    "The weights in use are no link to a file but a file themselves, which would be lost; move "
    "it into a folder of its own under runs first."
)
UNWRITABLE = "The disk of the server refuses; nothing was switched. The log says why."
BUSY = "The index is being built, or weights are being switched; try again when that has ended."


@contextmanager
def switching_lock(home: Home) -> Iterator[None]:
    """Hold the right to change weights and index. Raises SwitchError where another has it."""
    try:
        with store.build_lock(home.index):
            yield
    except StoreError as error:
        busy = isinstance(error.__cause__, BlockingIOError)
        raise SwitchError(BUSY if busy else UNWRITABLE) from error


def check_weights_file(model: WeightsFile) -> str:
    """Read a file whole and see that it can answer; give its identity. Raises SwitchError."""
    try:
        return check_servable(load_weights(model.file)).identity
    except (WeightsError, OSError) as error:
        said = str(error).replace(str(model.file), "This file")
        raise SwitchError(f"{said[:1].upper()}{said[1:]}.") from error


def usable_index(home: Home, name: str | None) -> tuple[str | None, str]:
    """The index version of that name where it is whole, else what is wrong with it."""
    if name is None:
        return None, ""
    try:
        store.check_version(home.index, name)
    except StoreError as error:
        return None, f"{str(error).replace(f'{home.index}{os.sep}', '')}."
    return name, ""


def point_links(home: Home, model: WeightsFile, index: str | None) -> None:
    """Point at the file, then at the version; both or neither. Raises SwitchError."""
    before = home.weights.readlink() if home.weights.is_symlink() else None
    try:
        switch_link(home.weights, model.file)
        if index is not None:
            store.publish(home.index, index)
    except (OSError, StoreError) as error:
        if before is not None:
            with suppress(OSError):
                switch_link(home.weights, home.weights.parent / before)
        raise SwitchError(UNWRITABLE) from error

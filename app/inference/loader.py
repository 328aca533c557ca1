"""Loads the weights and the index that belong together, and keeps up with changes while serving."""

import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, Literal, TypeVar

import numpy as np

from app.config import Settings
from app.database.images import IndexVersionInfo, find_version
from app.database.session import (
    UPGRADE_COMMAND,
    DatabaseError,
    Sessions,
    are_tables_current,
)
from index import store
from index.engines.protocol import SearchError
from index.sample import ImageSample, read_sample
from index.store import Index, Manifest
from model.alexnet import count_features
from model.checkpoint import Weights, WeightsError, check_finite, load_weights
from model.config import FEATURES, SQUARE_SIDE
from model.predict import Predictor
from storage.home import Home

Reason = Literal["no-weights", "no-index", "mismatch", "damaged", "database", "disk", "search"]
PASSING_REASONS = ("database", "disk", "no-index", "search")
"""What may pass without any change of the links."""
T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class Ready:
    """Weights and an index built with them.

    sample: what the index stores of some images beyond their features; None for an older index.
    """

    predictor: Predictor
    index: Index
    version: IndexVersionInfo
    sample: ImageSample | None = None

    @property
    def manifest(self) -> Manifest:
        """The index version's manifest."""
        return self.index.manifest


@dataclass(frozen=True, kw_only=True)
class NotReady:
    """Why nothing can be classified yet. `command` fixes it, if one does.

    message: for the log, since it may name files of the server.
    """

    reason: Reason
    message: str
    command: str


class NotReadyError(Exception):
    """Weights and an index that match are needed, and missing."""

    def __init__(self, state: NotReady) -> None:
        advice = f" Run `{state.command}`." if state.command else ""
        super().__init__(f"{state.message}{advice}")
        self.state = state


class ModelLoader:
    """Holds the pair of weights and index in service. Thread-safe.

    Each call of `get_state` checks the links to the weights and to the index, and reads what they
    point to again when they have moved. A pair stays in service until a complete new one is read.
    """

    def __init__(self, settings: Settings, sessions: Sessions) -> None:
        self.settings, self.sessions = settings, sessions
        self.lock = threading.Lock()
        self.signature: LinkSignature | None = None
        self.current: Ready | NotReady | None = None
        self.predictors: LastRead[Predictor] = LastRead(WeightsError)
        self.indexes: LastRead[Index] = LastRead(store.StoreError)
        self.samples: LastRead[ImageSample | None] = LastRead(store.StoreError)

    def get_state(self) -> Ready | NotReady:
        """Return the pair in service, or why there is none; cheap when nothing has changed."""
        current = self.current
        if current is not None and read_link_signature(self.settings.home) == self.signature:
            return current
        if not isinstance(current, Ready):
            return self.get_latest_state()
        # While a pair is in service no request waits for the next: a background thread reads it.
        if self.lock.acquire(blocking=False):
            threading.Thread(target=self.refresh_and_release, daemon=True).start()
        return current

    def require_ready(self) -> Ready:
        """Return the pair in service. Raises NotReadyError."""
        state = self.get_state()
        if isinstance(state, NotReady):
            raise NotReadyError(state)
        return state

    def require_predictor(self) -> Predictor:
        """Return the network in service, or that of the weights in use when no index matches them.

        Raises NotReadyError.
        """
        state = self.get_state()
        if isinstance(state, Ready):
            return state.predictor
        with self.lock:
            link = read_link_signature(self.settings.home).weights
            if link is None:
                raise NotReadyError(describe_missing_weights(self.settings))
            try:
                return self.read_predictor(link)
            except WeightsError as error:
                raise NotReadyError(describe_damaged_weights(error)) from error
            finally:
                if read_link_signature(self.settings.home).weights != link:
                    self.predictors.forget()  # the file read may be newer than the link seen

    def get_latest_state(self) -> Ready | NotReady:
        """As `get_state`, but wait until a change of the links has been read."""
        with self.lock:
            return self.refresh()

    def probe_state(self) -> Ready | NotReady:
        """As `get_state`, but first ask the database, and the server that holds the index."""
        state = self.get_state()
        if isinstance(state, NotReady):
            return state
        try:
            if find_version(self.sessions, state.version.name) is None:
                # Deleted while in service: what replaced it may still be being read.
                state = self.get_latest_state()
            if isinstance(state, NotReady):
                return state
            if find_version(self.sessions, state.version.name) is None:
                return NotReady(
                    reason="no-index", message=UNKNOWN_VERSION_MESSAGE, command=BUILD_COMMAND
                )
            if state.manifest.kind == "milvus":
                state.index.search(np.zeros((1, FEATURES), np.float32), 1)
        except DatabaseError as error:
            return describe_database_error(error)
        except SearchError as error:
            return describe_failed_search(error)
        return state

    def refresh_and_release(self) -> None:
        """Refresh in the background thread, then release the lock that `get_state` acquired."""
        try:
            self.refresh()
        finally:
            self.lock.release()

    def refresh(self) -> Ready | NotReady:
        """Read what the links point to. The caller holds the lock."""
        before = read_link_signature(self.settings.home)
        if self.current is not None and before == self.signature:
            return self.current
        found = self.read_state(before)
        if not isinstance(self.current, Ready) or isinstance(found, Ready):
            self.current = found
        moved = read_link_signature(self.settings.home) != before
        if moved:
            # The files read may be newer than the signature they are remembered under.
            self.predictors.forget()
            self.indexes.forget()
            self.samples.forget()
        retry = isinstance(found, NotReady) and found.reason in (
            "database",
            "disk",
            "no-index",
            "search",
        )
        self.signature = None if moved or retry else before
        return self.current

    def read_state(self, links: "LinkSignature") -> Ready | NotReady:
        """Read weights and index, or say what is missing."""
        home = self.settings.home
        try:
            if links.weights is None:
                return describe_missing_weights(self.settings)
            name = store.read_current_version(home.index)
            if name is None:
                return describe_missing_index()
            if not are_tables_current(self.sessions):
                return NotReady(
                    reason="database", message=OUTDATED_TABLES_MESSAGE, command=UPGRADE_COMMAND
                )
            version = find_version(self.sessions, name)
            if version is None:
                return NotReady(
                    reason="no-index", message=UNKNOWN_VERSION_MESSAGE, command=BUILD_COMMAND
                )
            predictor = self.read_predictor(links.weights)
            if store.read_manifest(home.index / name).weights != predictor.identity:
                return NotReady(reason="mismatch", message=MISMATCH_MESSAGE, command=BUILD_COMMAND)
            index = self.indexes.get(
                links.index,
                lambda: store.open_version(home.index, name, self.settings.search_device),
            )
            sample = self.samples.get(
                links.index, lambda: read_sample(home.index / name, index.manifest)
            )
            return Ready(predictor=predictor, index=index, version=version, sample=sample)
        except DatabaseError as error:
            return describe_database_error(error)
        except store.StoreError as error:
            return NotReady(reason="damaged", message=f"{error}.", command=BUILD_COMMAND)
        except SearchError as error:
            return describe_failed_search(error)
        except WeightsError as error:
            return describe_damaged_weights(error)

    def read_predictor(self, link: object) -> Predictor:
        """Read the weights unless they were the last read. The caller holds the lock.

        Raises WeightsError.
        """
        home, device = self.settings.home, self.settings.device
        return self.predictors.get(
            link, lambda: Predictor.from_weights(check_servable(load_weights(home.weights)), device)
        )


BUILD_COMMAND, TRAIN_COMMAND = "flask index build", "python training/run.py"
STATS_COMMAND = "flask index stats"
MISMATCH_MESSAGE = "The index was built with different weights."
OUTDATED_TABLES_MESSAGE = "The database's tables belong to another version of the application."
UNKNOWN_VERSION_MESSAGE = (
    "The database does not list the current index; it may be a different database."
)


def check_servable(weights: Weights) -> Weights:
    """Return the weights if the application can serve them.

    The index and the pages need finite weights, 256×256 squares and 4096 features. Raises
    WeightsError.
    """
    check_finite(weights)
    config = weights.config
    features = count_features(config)
    if (config.side, features) == (SQUARE_SIDE, FEATURES):
        return weights
    raise WeightsError(
        f"The weights in use belong to the network {config.net}, with "
        f"{config.side}×{config.side} pixels and {features} features; the application needs "
        f"{SQUARE_SIDE}×{SQUARE_SIDE} pixels and {FEATURES} features, as in the paper; train such "
        "a network with `python training/run.py`"
    )


def describe_missing_weights(settings: Settings) -> NotReady:
    """Describe that no weights exist yet."""
    message = f"There are no weights yet at {settings.home.weights}."
    return NotReady(reason="no-weights", message=message, command=TRAIN_COMMAND)


def describe_damaged_weights(error: WeightsError) -> NotReady:
    """Describe a weights file that cannot be used."""
    return NotReady(reason="damaged", message=f"{error}.", command=TRAIN_COMMAND)


def describe_missing_index() -> NotReady:
    """Describe that no index exists yet."""
    message = "The training images are not indexed yet."
    return NotReady(reason="no-index", message=message, command=BUILD_COMMAND)


def describe_database_error(error: DatabaseError) -> NotReady:
    """Describe a database that cannot be used now."""
    reason: Reason = "disk" if error.is_disk_full else "database"
    return NotReady(reason=reason, message=str(error), command=error.command)


def describe_failed_search(error: SearchError) -> NotReady:
    """Describe a search server that does not respond."""
    return NotReady(reason="search", message=f"{error}.", command=STATS_COMMAND)


@dataclass(frozen=True)
class LinkSignature:
    """What the links to weights and index point to; changes when either is replaced."""

    weights: tuple[object, ...] | None
    index: tuple[object, ...] | None


def read_link_signature(home: Home) -> LinkSignature:
    """Read what the links point to, without reading the files."""
    current = home.index / store.CURRENT_LINK
    try:
        files = sorted(current.iterdir())
    except OSError:
        files = []
    return LinkSignature(
        weights=read_link_stamp(home.weights, home.weights), index=read_link_stamp(current, *files)
    )


def read_link_stamp(link: Path, *files: Path) -> tuple[object, ...] | None:
    """Read a link's target and the identity of files; None if there is no such link."""
    try:
        target = str(link.readlink()) if link.is_symlink() else str(link.lstat().st_ino)
    except OSError:
        return None
    return (target, *(read_file_identity(file) for file in files))


def read_file_identity(file: Path) -> tuple[int, ...]:
    """Read a file's inode, size and time, which show a change; empty if there is no file."""
    try:
        stat = file.stat()
    except OSError:
        return ()
    return stat.st_ino, stat.st_size, stat.st_mtime_ns


class LastRead(Generic[T]):
    """The value read last, or the error it raised, with the key it was read for."""

    def __init__(self, error: type[Exception]) -> None:
        self.error = error
        self.key: object = None
        self.value: T | Exception | None = None

    def forget(self) -> None:
        """Read again the next time."""
        self.key = self.value = None

    def get(self, key: object, read: Callable[[], T]) -> T:
        """Return the value for `key`, reading it unless it was the last. Raises as `read`."""
        if self.value is None or key != self.key:
            try:
                self.key, self.value = key, read()
            except self.error as error:
                self.key, self.value = key, error
        if isinstance(self.value, Exception):
            raise self.value
        return self.value

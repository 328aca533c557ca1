"""Loads the weights and the index that belong together, and keeps up with changes while serving."""

import logging
import threading
from pathlib import Path

import numpy as np

from app.config import Settings
from app.database.images import find_version
from app.database.new_home import needs_first_tables
from app.database.session import DatabaseError, Sessions, are_tables_current
from app.inference.links import (
    LastRead,
    LinkSignature,
    read_file_identities,
    read_file_identity,
    read_index_stamp,
)
from app.inference.served_weights import (
    WeightsSource,
    check_servable,
    find_weights_source,
    load_servable,
)
from app.inference.state import (
    BUILD_COMMAND,
    PASSING_REASONS,
    LabelsOnly,
    NotReady,
    NotReadyError,
    Ready,
    describe_damaged_weights,
    describe_database_error,
    describe_failed_search,
    describe_outdated_tables,
    describe_unknown_version,
)
from index import store
from index.calibration import Calibration, read_calibration
from index.damage import DamageError
from index.engines.protocol import SearchError
from index.manifest import Manifest, StoreError
from index.review.stored import Review, read_review
from index.sample import ImageSample, read_sample
from index.store import Index
from index.units import TopImages, read_units
from model.network.config import FEATURES
from model.predict import Predictor
from model.runtime.prepared import open_predictor
from model.weights.header import WeightsError

log = logging.getLogger(__name__)
runtime_log = logging.getLogger("alexnet.runtime")
"""Says which runtime was chosen; gunicorn.conf.py has it shown."""


class ModelLoader:
    """Holds the pair of weights and index in service. Thread-safe.

    Each call of `get_state` checks whether another pair has been published, and then reads it. A
    pair stays in service until a complete new one is read. A run that finishes changes nothing:
    its weights are only selected for the next build, except that before any index exists the
    selected weights give labels (app/inference/served_weights.py).
    """

    def __init__(self, settings: Settings, sessions: Sessions) -> None:
        self.settings, self.sessions = settings, sessions
        self.lock = threading.Lock()
        self.signature: LinkSignature | None = None
        self.current: Ready | LabelsOnly | NotReady | None = None
        self.predictors: LastRead[Predictor] = LastRead(WeightsError)
        self.indexes: LastRead[Index] = LastRead(StoreError)
        self.samples: LastRead[ImageSample | None] = LastRead(StoreError)
        self.calibrations: LastRead[Calibration | None] = LastRead(StoreError)
        self.reviews: LastRead[Review | None] = LastRead(StoreError)
        self.units: LastRead[TopImages | None] = LastRead(StoreError)

    def get_state(self) -> Ready | LabelsOnly | NotReady:
        """Return what is in service, or why nothing is; cheap when nothing has changed."""
        current = self.current
        if current is not None and self.is_up_to_date():
            return current
        if not isinstance(current, Ready | LabelsOnly):
            return self.get_latest_state()
        # While something is in service no request waits for the next: a background thread reads it.
        if self.lock.acquire(blocking=False):
            threading.Thread(target=self.refresh_and_release, daemon=True).start()
        return current

    def require_serving(self) -> Ready | LabelsOnly:
        """Return what is in service, with or without an index. Raises NotReadyError."""
        state = self.get_state()
        if isinstance(state, NotReady):
            raise NotReadyError(state)
        return state

    def require_ready(self) -> Ready:
        """Return the pair in service. Raises NotReadyError."""
        state = self.require_serving()
        if isinstance(state, LabelsOnly):
            raise NotReadyError(state.missing)
        return state

    def require_predictor(self) -> Predictor:
        """Return the network in service, also while its index or the database cannot be used.

        Raises NotReadyError.
        """
        state = self.get_state()
        if not isinstance(state, NotReady):
            return state.predictor
        with self.lock:
            predictor = self.read_predictor(find_weights_source(self.settings.home))
        if isinstance(predictor, NotReady):
            raise NotReadyError(predictor)
        return predictor

    def get_latest_state(self) -> Ready | LabelsOnly | NotReady:
        """As `get_state`, but wait until a change has been read."""
        with self.lock:
            return self.refresh()

    def probe_state(self) -> Ready | LabelsOnly | NotReady:
        """As `get_state`, but first ask the database, and the server that holds the index."""
        state = self.get_state()
        if isinstance(state, NotReady):
            return state
        try:
            if isinstance(state, Ready) and not self.is_listed(state):
                # Deleted while in service: what replaced it may still be being read.
                state = self.get_latest_state()
            if isinstance(state, NotReady):
                return state
            if isinstance(state, LabelsOnly):
                return self.probe_tables() or state
            if not self.is_listed(state):
                return describe_unknown_version()
            if state.manifest.kind == "milvus":
                state.index.search(np.zeros((1, FEATURES), np.float32), 1)
        except DatabaseError as error:
            return describe_database_error(error)
        except SearchError as error:
            return describe_failed_search(error)
        return state

    def is_listed(self, state: Ready) -> bool:
        """Whether the database knows the index. Raises DatabaseError."""
        return find_version(self.sessions, state.version.name) is not None

    def probe_tables(self) -> NotReady | None:
        """Return why results cannot be stored, if so. Raises DatabaseError."""
        if needs_first_tables(self.settings, self.sessions):
            return None  # the first visit makes them
        return None if are_tables_current(self.sessions) else describe_outdated_tables()

    def withdraw(self, error: DamageError) -> NotReady:
        """Take out of service the index that has a damaged file; return what is missing now.

        It stays out until its files, or what the link `current` leads to, change.
        """
        found = NotReady(reason="damaged", message=f"{error}.", command=BUILD_COMMAND)
        with self.lock:
            # Another version may have been read while the search went on.
            if isinstance(self.current, Ready) and error.file in self.current.index.files:
                log.error("The index is withdrawn: %s", error)
                self.current = found
                self.indexes.forget()
        return found

    def is_up_to_date(self) -> bool:
        """Whether nothing has changed on disk since it was read last."""
        signature = self.signature
        return signature is not None and signature.is_current(self.settings.home)

    def refresh_and_release(self) -> None:
        """Refresh in the background thread, then release the lock that `get_state` acquired."""
        try:
            self.refresh()
        finally:
            self.lock.release()

    def refresh(self) -> Ready | LabelsOnly | NotReady:
        """Read what is in service now. The caller holds the lock."""
        if self.current is not None and self.is_up_to_date():
            return self.current
        home = self.settings.home
        index = read_index_stamp(home.index)
        source = find_weights_source(home)
        before = LinkSignature(index=index, files=read_file_identities(source.watched))
        found = self.read_state(source, before)
        if self.current is None or self.supersedes(found, self.current):
            self.current = found
        moved = not before.is_current(home)
        if moved:
            # The files read may be newer than the signature they are remembered under.
            self.indexes.forget()
            self.samples.forget()
            self.calibrations.forget()
            self.reviews.forget()
            self.units.forget()
        retry = isinstance(found, NotReady) and found.reason in PASSING_REASONS
        self.signature = None if moved or retry else before
        return self.current

    def supersedes(
        self, found: Ready | LabelsOnly | NotReady, current: Ready | LabelsOnly | NotReady
    ) -> bool:
        """Whether to answer with what was found from now on.

        Damage and loss replace nothing, unless it is the files in use themselves that changed.
        """
        if isinstance(found, Ready) or isinstance(current, NotReady):
            return True
        if isinstance(found, NotReady):
            if not isinstance(current, Ready) or found.reason != "damaged":
                return False
            changed = [file for file in current.index.files if file.has_changed()]
            what = "is withdrawn" if changed else "in memory stays in service, but"
            log.error("The index %s: %s", what, found.message)
            return bool(changed)
        # Without `current` the index is lost; only a choice takes a pair out of service.
        chosen = store.read_published_weights(self.settings.home.index)
        return isinstance(current, LabelsOnly) or chosen is not None

    def read_state(
        self, source: WeightsSource, signature: LinkSignature
    ) -> Ready | LabelsOnly | NotReady:
        """Read weights and index, or say what is missing. The caller holds the lock."""
        manifest = source.manifest
        try:
            if manifest is None:
                found = self.read_predictor(source)
                return found if isinstance(found, NotReady) else LabelsOnly(predictor=found)
            return self.read_pair(source, manifest, signature.index)
        except DatabaseError as error:
            return describe_database_error(error)
        except StoreError as error:
            return NotReady(reason="damaged", message=f"{error}.", command=BUILD_COMMAND)
        except SearchError as error:
            return describe_failed_search(error)

    def read_pair(
        self, source: WeightsSource, manifest: Manifest, stamp: object
    ) -> Ready | NotReady:
        """Read the index version of a manifest and its weights, or say what is missing.

        Raises DatabaseError, StoreError and SearchError.
        """
        if not are_tables_current(self.sessions):
            return describe_outdated_tables()
        version = find_version(self.sessions, manifest.name)
        if version is None:
            return describe_unknown_version()
        predictor = self.read_predictor(source)
        if isinstance(predictor, NotReady):
            return predictor
        root, device = self.settings.home.index, self.settings.search_device
        index = self.indexes.get(stamp, lambda: store.open_version(root, manifest.name, device))
        sample = self.samples.get(stamp, lambda: read_sample(root / manifest.name, index.manifest))
        calibration = self.calibrations.get(stamp, lambda: read_calibration(root / manifest.name))
        return Ready(
            predictor=predictor,
            index=index,
            version=version,
            sample=sample,
            calibration=calibration,
            units=self.units.get(stamp, lambda: read_units(root / manifest.name, index.manifest)),
            review=self.reviews.get(stamp, lambda: read_review(root / manifest.name)),
        )

    def read_predictor(self, source: WeightsSource) -> Predictor | NotReady:
        """Read the weights unless they were the last read. The caller holds the lock."""
        if source.problem or source.file is None:
            assert source.problem is not None
            return source.problem
        file, settings = source.file, self.settings
        key = read_file_identity(file)
        try:
            predictor = self.predictors.get(key, lambda: read_predictor(file, settings))
        except WeightsError as error:
            return describe_damaged_weights(error)
        if read_file_identity(file) != key:
            self.predictors.forget()  # what was read may be newer than the key
        if source.manifest and predictor.identity != source.manifest.weights:
            message = f"{file} no longer holds the weights that the index was built with."
            return NotReady(reason="mismatch", message=message, command=BUILD_COMMAND)
        return predictor


def read_predictor(file: Path, settings: Settings) -> Predictor:
    """Read a weights file that can be served, and choose its runtime. Raises WeightsError."""
    folder = settings.home.runtimes
    predictor = open_predictor(file, settings.device, settings.runtime, folder, load_servable)
    check_servable(predictor.config, file)
    choice = predictor.choice
    runtime_log.info("Weights %s run on %s. %s", predictor.identity[:8], choice.name, choice.reason)
    return predictor

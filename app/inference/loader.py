"""What answers: the weights and the index that fit each other, kept up to date while serving."""

import threading
from collections.abc import Callable
from typing import TypeVar

import numpy as np
from PIL.Image import Image

from app.config import Settings
from app.database import images
from app.database.session import DatabaseError, Sessions, is_current
from app.inference.answers import (
    Answer,
    Neighbour,
    NotReady,
    NotReadyError,
    Ready,
    Watch,
)
from app.inference.classify import answer_from
from app.inference.freshness import Remembered, Signature, signature
from index import store
from index.candidates import SearchError
from index.sample import ImageSample, read_sample
from index.store import Index
from model.alexnet import FEATURES, layers
from model.checkpoint import Weights, WeightsError, check_finite, load
from model.predict import Predictor
from model.preprocess import MAX_PIXELS, SIDE, decode

__all__ = [
    "Answer",
    "Engine",
    "Neighbour",
    "NotReady",
    "NotReadyError",
    "Ready",
]

T = TypeVar("T")


class Engine:
    """Answers for images. May be used from several threads at once.

    It looks at the links to the weights and the index on every call, and reads anew what they
    point to when they have moved. A pair in service stays so until a new one is whole.
    """

    def __init__(self, settings: Settings, sessions: Sessions) -> None:
        self.settings, self.sessions = settings, sessions
        self.lock = threading.Lock()
        self.seen: Signature | None = None
        self.known: Ready | NotReady | None = None
        self.predictors: Remembered[Predictor] = Remembered(WeightsError)
        self.indexes: Remembered[Index] = Remembered(store.StoreError)
        self.samples: Remembered[ImageSample | None] = Remembered(store.StoreError)

    def state(self) -> Ready | NotReady:
        """What there is to answer with; cheap when nothing has changed since the last call."""
        known = self.known
        if known is not None and signature(self.settings.home) == self.seen:
            return known
        if not isinstance(known, Ready):
            return self.settled()
        # While a pair is in service nobody waits for the next: one thread reads it, aside.
        if self.lock.acquire(blocking=False):
            threading.Thread(target=self.refresh_aside, daemon=True).start()
        return known

    def settled(self) -> Ready | NotReady:
        """As `state`, after waiting for what is being read aside."""
        with self.lock:
            return self.refresh()

    def refresh_aside(self) -> None:
        """Refresh, holding the lock that `state` has taken, and give it back."""
        try:
            self.refresh()
        finally:
            self.lock.release()

    def refresh(self) -> Ready | NotReady:
        """Read what the links point to; only for who holds the lock."""
        seen = signature(self.settings.home)
        if self.known is not None and seen == self.seen:
            return self.known
        found = self.look(seen)
        if not isinstance(self.known, Ready) or isinstance(found, Ready):
            self.known = found
        moved = signature(self.settings.home) != seen
        if moved:
            # What was read may be newer than what was seen.
            self.predictors.forget()
            self.indexes.forget()
            self.samples.forget()
        # What the database lacks it may have the next time; files stay as they are.
        lacks = isinstance(found, NotReady) and found.reason in ("database", "no-index", "search")
        self.seen = None if moved or lacks else seen
        return self.known

    def look(self, seen: Signature) -> Ready | NotReady:
        """Read weights and index, or say what is missing."""
        try:
            if seen.weights is None:
                return no_weights(self.settings)
            name = store.current_version(self.settings.home.index)
            if name is None:
                return no_index()
            if not is_current(self.sessions):
                return NotReady(reason="database", message=OTHER_TABLES, command=UPGRADE)
            version = images.version(self.sessions, name)
            if version is None:
                return NotReady(reason="no-index", message=UNKNOWN_VERSION, command=BUILD)
            return self.pair(seen, version)
        except DatabaseError as error:
            return NotReady(reason="database", message=str(error), command=UPGRADE)
        except store.StoreError as error:
            return NotReady(reason="damaged", message=f"{error}.", command=BUILD)
        except SearchError as error:
            return unanswered(error)
        except WeightsError as error:
            return damaged_weights(error)

    def pair(self, seen: Signature, version: images.Version) -> Ready | NotReady:
        """Read weights and index and see that they belong together."""
        home = self.settings.home
        predictor = self.read_predictor(seen.weights)
        manifest = store.read_manifest(home.index / version.name)
        if manifest.weights != predictor.identity:
            return NotReady(reason="mismatch", message=MISMATCH, command=BUILD)
        folder = home.index / version.name
        index = self.indexes.get(
            seen.index, lambda: store.open_version(home.index, version.name, self.settings.placing)
        )
        sample = self.samples.get(seen.index, lambda: read_sample(folder, index.manifest))
        return Ready(predictor=predictor, index=index, version=version, sample=sample)

    def reached(self) -> Ready | NotReady:
        """As `state`, after asking the server on which an index lies, where one does."""
        state = self.state()
        if isinstance(state, NotReady) or state.manifest.kind != "milvus":
            return state
        try:
            state.index.search(np.zeros((1, FEATURES), np.float32), 1)
        except SearchError as error:
            return unanswered(error)
        return state

    def ready(self) -> Ready:
        """The pair to answer with. Raises NotReadyError."""
        state = self.state()
        if isinstance(state, NotReady):
            raise NotReadyError(state)
        return state

    def predictor(self) -> Predictor | NotReady:
        """The network: the one in service, or the weights there are, with or without an index."""
        state = self.state()
        if isinstance(state, Ready):
            return state.predictor
        with self.lock:
            seen = signature(self.settings.home).weights
            if seen is None:
                return no_weights(self.settings)
            try:
                return self.read_predictor(seen)
            except WeightsError as error:
                return damaged_weights(error)
            finally:
                if signature(self.settings.home).weights != seen:
                    self.predictors.forget()  # what was read may be newer than what was seen

    def read_predictor(self, seen: object) -> Predictor:
        """Read the weights unless they are known; only for who holds the lock. WeightsError."""
        home, device = self.settings.home, self.settings.device
        return self.predictors.get(
            seen, lambda: Predictor.from_weights(servable(load(home.weights)), device)
        )

    def answer(self, data: bytes) -> Answer:
        """Answer for an uploaded file.

        Raises NotReadyError, model.preprocess.ImageError for a file that is no image or too large,
        and app.database.session.DatabaseError.
        """
        return self.answer_and(data, lambda image: None)[0]

    def answer_and(
        self, data: bytes, use: Callable[[Image], T], *, own: bool = False
    ) -> tuple[Answer, T]:
        """As `answer`, and what `use` makes of the whole image, which is decoded once for both.

        own: whether the file is the server's own, for which the limit of uploads does not count.
        """
        ready, watch = self.ready(), Watch()
        image = decode(data, max_pixels=MAX_PIXELS if own else self.settings.upload_pixels)
        return answer_from(ready, self.sessions, image, watch), use(image)

    def answer_for(self, image_id: int, data: bytes) -> Answer:
        """Answer for an image of the catalogue from its file, itself left out of its neighbours.

        Raises as `answer`.
        """
        ready, watch = self.ready(), Watch()
        return answer_from(ready, self.sessions, decode(data), watch, without=image_id)


BUILD, TRAIN, UPGRADE = "flask index build", "python training/run.py", "flask db upgrade"
STATS = "flask index stats"
MISMATCH = "The index was made by other weights than those in use now."
OTHER_TABLES = "The database's tables are those of another version of the application."
UNKNOWN_VERSION = "The database does not know the index that is there: it is another database."


def servable(weights: Weights) -> Weights:
    """Give the weights back, or raise WeightsError where they would answer nothing.

    They do not where they are not finite, nor where they are of a net for other pictures.

    Index and pages are made for squares of 256×256 pixels and for features of 4096 numbers.
    """
    check_finite(weights)
    config = weights.config
    features = weights.state[f"{layers(config)[-1].name}.weight"].shape[1]
    if (config.side, features) == (SIDE, FEATURES):
        return weights
    raise WeightsError(
        f"The weights in use are of the net {config.net}, for {config.side}×{config.side} pixels "
        f"and with {features} features; the application needs {SIDE}×{SIDE} and {FEATURES}, as "
        "the paper's net has them: train that with `python training/run.py`"
    )


def no_weights(settings: Settings) -> NotReady:
    """There is nothing trained."""
    message = f"There are no weights yet at {settings.home.weights}."
    return NotReady(reason="no-weights", message=message, command=TRAIN)


def damaged_weights(error: WeightsError) -> NotReady:
    """There is a file of weights that cannot be used."""
    return NotReady(reason="damaged", message=f"{error}.", command=TRAIN)


def no_index() -> NotReady:
    """There is nothing indexed."""
    message = "The training images are not indexed yet."
    return NotReady(reason="no-index", message=message, command=BUILD)


def unanswered(error: SearchError) -> NotReady:
    """The index lies with a server that does not answer."""
    return NotReady(reason="search", message=f"{error}.", command=STATS)

"""The running application's settings, sessions and models, for views, API, errors and commands."""

import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from flask import current_app, g, request
from werkzeug.datastructures import FileStorage

from app.classroom.fitting import HeadFitter
from app.config import Settings
from app.database.browse import ClassCount, list_classes
from app.database.session import Sessions
from app.decoding.child import DecodeRequest, Pixels
from app.decoding.pool import DecoderPool
from app.indexing.pretrained import PretrainedIndexing
from app.inference.classify import request_square
from app.inference.loader import ModelLoader
from app.inference.state import (
    LabelsOnly,
    NotReadyError,
    Ready,
    describe_unknown_version,
)
from app.serving.admission import BusyError, ComputeQueue
from app.serving.metrics import Metrics
from app.uploads import receive
from app.uploads.expiry import UploadCleaner
from model.predict import Predictor

MAX_ID = 2**31 - 1
"""The largest id a database column holds; an address with a larger one is not found."""


def settings() -> Settings:
    """Return the application's settings."""
    found: Settings = current_app.extensions["settings"]
    return found


def sessions() -> Sessions:
    """Return the factory of database sessions."""
    found: Sessions = current_app.extensions["sessions"]
    return found


def loader() -> ModelLoader:
    """Return the loader of weights and index."""
    found: ModelLoader = current_app.extensions["loader"]
    return found


def background_index() -> PretrainedIndexing:
    """Return what indexes the demo photographs with the weights that ship."""
    found: PretrainedIndexing = current_app.extensions["background_index"]
    return found


def upload_cleaner() -> UploadCleaner:
    """Return what deletes old uploads."""
    found: UploadCleaner = current_app.extensions["upload_cleaner"]
    return found


def decoder() -> DecoderPool:
    """Return what decodes images for pages and API, in processes with limits."""
    found: DecoderPool = current_app.extensions["decoder"]
    return found


def head_fitter() -> HeadFitter:
    """Return what fits the classroom's heads."""
    found: HeadFitter = current_app.extensions["head_fitter"]
    return found


def metrics() -> Metrics:
    """Return what counts and times requests."""
    found: Metrics = current_app.extensions["metrics"]
    return found


def accept_upload(file: FileStorage) -> receive.Upload:
    """Read an uploaded file and count it. Raises UploadError if it is empty or too large."""
    upload = receive.read_upload(file, settings())
    metrics().upload_bytes.observe(len(upload.data))
    return upload


def decode_square(predictor: Predictor, data: bytes, limits: DecodeRequest | None = None) -> Pixels:
    """Decode a file to the network's square, uint8 [256, 256, 3]. Raises ImageError.

    limits: those for uploads, if it is one.
    """
    request = request_square(predictor, limits or DecodeRequest(trusted=True))
    with metrics().stage_seconds.labels("decode").time():
        return decoder().decode(data, request).square


@contextmanager
def compute_slot() -> Iterator[None]:
    """Hold one of the few slots for decoding images and computing; waits for it.

    Raises BusyError if too many wait, and ClientGoneError if nobody waits for the answer any more.
    """
    queue: ComputeQueue = current_app.extensions["compute_queue"]
    has_left = request.environ.get("waitress.client_disconnected", lambda: False)
    counted = metrics()
    with ExitStack() as held:
        started = time.perf_counter()
        with counted.waiting.track_inprogress(), counted.refused.count_exceptions(BusyError):
            slot = queue.enter(admitted=g.get("has_computed", False), has_left=has_left)
            held.enter_context(slot)
        counted.stage_seconds.labels("wait").observe(time.perf_counter() - started)
        g.has_computed = True
        held.enter_context(counted.computing.track_inprogress())
        yield


def require_serving() -> Ready | LabelsOnly:
    """Return the network in service, with or without an index. Raises NotReadyError."""
    return loader().require_serving()


def require_ready() -> Ready:
    """Return weights and the index built with them. Raises NotReadyError."""
    return loader().require_ready()


def require_predictor() -> Predictor:
    """Return the network in service, also while its index cannot be used. Raises NotReadyError."""
    return loader().require_predictor()


def require_classes() -> tuple[Ready, list[ClassCount]]:
    """Return the pair in service and its classes, at least one. Raises NotReadyError.

    After two builds in a row without a request, the database no longer lists the version read last.
    """
    state = require_ready()
    if classes := list_classes(sessions(), state.version.id):
        return state, classes
    latest = loader().get_latest_state()
    if isinstance(latest, Ready) and (classes := list_classes(sessions(), latest.version.id)):
        return latest, classes
    if isinstance(latest, Ready):
        raise NotReadyError(describe_unknown_version())
    raise NotReadyError(latest.missing if isinstance(latest, LabelsOnly) else latest)

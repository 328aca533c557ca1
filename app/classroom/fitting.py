"""Fits heads beside the requests: features by the network in service, a batch at a time.

Each batch takes its turn among the requests that compute. Progress is on disk, so that every
process of a server shows it; a server that ends leaves no half of a head behind.
"""

import logging
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from app.classroom.datasets import ClassroomDataset, DatasetError
from app.classroom.head import Head, HeadError, fit_ridge, read_head_file, write_head_file
from app.decoding.child import DecodeRequest
from app.decoding.pool import DecoderPool
from app.decoding.process import ProcessEndedError
from app.inference.classify import request_square
from app.inference.lru_cache import LruCache
from app.serving.admission import ComputeQueue
from app.serving.metrics import Metrics
from model.image.decode import ImageError
from model.predict import Floats, Predictor
from storage.activity import Activity, is_held, read_activity, record_activity
from storage.files import write_atomically
from storage.progress import Report, ignore_progress

MAX_FITTED = 3000
"""Photographs: the fit takes their number's third power of time, and its square of memory."""
BATCH = 16
PATIENCE_SECONDS = 4.0
"""How long whoever asks for a head waits for it: a class's photographs take about that long."""
MAX_CACHED_HEADS = 2
FITTING_ERRORS = (ImageError, ProcessEndedError, OSError, np.linalg.LinAlgError)
"""A photograph that is gone or changed, a decoder that cannot start, a full disk, numbers that are
not finite."""
logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class FittingState:
    """How far a head is. problem: why the last one was not made; empty if it was."""

    head: Head | None
    activity: Activity | None
    problem: str


@dataclass(frozen=True, kw_only=True)
class HeadFitter:
    """Fits heads and reads them. For any number of threads."""

    decoder: DecoderPool
    queue: ComputeQueue
    metrics: Metrics
    heads: LruCache = field(default_factory=lambda: LruCache(MAX_CACHED_HEADS))

    def start(self, dataset: ClassroomDataset, predictor: Predictor) -> None:
        """Fit a head on a thread, and wait a little for it. Raises DatasetError, and OSError."""
        if len(dataset.photographs) > MAX_FITTED:
            raise DatasetError(
                f"{len(dataset.photographs):,} photographs are more than the {MAX_FITTED:,} that a "
                "quick classifier takes; train a network on them instead.",
                413,
            )
        if is_held(locate_activity(dataset)):
            raise DatasetError("This classifier is just being made.", 409)
        locate_problem(dataset).unlink(missing_ok=True)
        arguments = (dataset, predictor)
        thread = threading.Thread(target=self.run, args=arguments, name="head", daemon=True)
        thread.start()
        thread.join(PATIENCE_SECONDS)

    def run(self, dataset: ClassroomDataset, predictor: Predictor) -> None:
        """Fit a head and write it; write why, if that is impossible."""
        try:
            with record_activity(locate_activity(dataset), ignore_progress) as report:
                self.fit(dataset, predictor, report)
        except FITTING_ERRORS as error:
            logger.warning("no head was fitted to %s: %s", dataset.name, error)
            write_problem(dataset)

    def fit(self, dataset: ClassroomDataset, predictor: Predictor, report: Report) -> None:
        """Fit a head and write it. Raises ImageError, ProcessEndedError and OSError."""
        photographs = dataset.photographs
        features, report_done = [], report("Computing features", len(photographs))
        for start in range(0, len(photographs), BATCH):
            batch = photographs[start : start + BATCH]
            with self.queue.enter(admitted=True):
                paths = [dataset.folder / photograph.path for photograph in batch]
                features.append(self.compute_features(predictor, paths))
            report_done(start + len(batch))
        labels = np.array([photograph.class_index for photograph in photographs])
        report("Fitting the classifier", 0)
        with self.queue.enter(admitted=True), self.metrics.stage_seconds.labels("fit").time():
            fitted = fit_ridge(np.concatenate(features), labels, len(dataset.classes))
        head = Head(
            identity=predictor.identity,
            classes=dataset.classes,
            paths=tuple(photograph.path for photograph in photographs),
            weights=fitted.weights,
            penalty=fitted.penalty,
            temperature=fitted.temperature,
            left_out=fitted.left_out,
            features=np.concatenate(features),
            labels=labels,
        )
        write_head_file(head, locate_head(dataset))

    def compute_features(self, predictor: Predictor, paths: Sequence[Path]) -> Floats:
        """Compute fc7 of photographs: float32 [N, 4096]."""
        wanted = request_square(predictor, DecodeRequest())
        with self.metrics.stage_seconds.labels("decode").time():
            squares = [self.decoder.decode(path.read_bytes(), wanted).square for path in paths]
        with self.metrics.stage_seconds.labels("network").time():
            return predictor.extract_features(np.stack(squares))

    def read_state(self, dataset: ClassroomDataset) -> FittingState:
        """Read how far a data set's head is."""
        problem = locate_problem(dataset)
        try:
            head = self.read(dataset)
            text = problem.read_text() if problem.exists() else ""
        except HeadError as error:
            head, text = None, f"The classifier cannot be read: {error}."
        return FittingState(
            head=head, activity=read_activity(locate_activity(dataset)), problem=text
        )

    def read(self, dataset: ClassroomDataset) -> Head | None:
        """Read a data set's head; None if there is none. Raises HeadError."""
        file = locate_head(dataset)
        try:
            stat = file.stat()
            key = (str(file), stat.st_ino, stat.st_mtime_ns)
            return self.heads.get(key, lambda: read_head_file(file))
        except FileNotFoundError:
            return None


def locate_head(dataset: ClassroomDataset) -> Path:
    """Return the file of a data set's head."""
    return dataset.folder / "head.safetensors"


def locate_activity(dataset: ClassroomDataset) -> Path:
    """Return the file that says how far the head is (storage/activity.py)."""
    return dataset.folder / ".head.json"


def locate_problem(dataset: ClassroomDataset) -> Path:
    """Return the file that says why the last head was not made."""
    return dataset.folder / "head-problem.txt"


def write_problem(dataset: ClassroomDataset) -> None:
    """Write that a head was not made, if the data set is still there and the disk takes it."""
    try:
        text = "The classifier was not made; the server's log says why."
        write_atomically(locate_problem(dataset), text)
    except OSError as error:
        logger.warning("%s", error)

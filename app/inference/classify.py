"""Classifies an image: labels from the network, neighbours from the index, each step timed."""

import time
from collections.abc import Callable, Collection
from dataclasses import dataclass, replace

import numpy as np

from app.database.images import IndexVersionInfo, find_labels
from app.database.session import Sessions
from app.decoding.child import DecodedImage, DecodeRequest, decode_here
from app.inference.state import LabelsOnly, Ready
from index.calibration import Verdict, compute_relative_distances
from index.vectors import Doubles, Floats
from model.predict import LabelProbability, Pixels, Prediction, Predictor

DEFAULT_NEIGHBOURS = 6
Decode = Callable[[bytes, DecodeRequest], DecodedImage]
TRUSTED = DecodeRequest(trusted=True)


@dataclass(frozen=True, kw_only=True)
class Neighbour:
    """A training image and its Euclidean distance, in fc7 features or in pixels.

    copies: how many training images have exactly the same pixels, itself included. near: whether
    the query is a near-duplicate, no farther away than a re-encoded copy would be.
    """

    id: int
    label: str
    distance: float
    copies: int = 1
    near: bool = False


@dataclass(frozen=True, kw_only=True)
class Sureness:
    """How sure a classification is.

    verdict: `unlike` what the network was trained on, `unsure` between two labels, or `sure`.
    nearer: how many of `images` validation images are nearer to a training image than this one is,
    relative to the length of their features; None if there was no neighbour. scaled: the labels of
    top5 with probabilities at `temperature`; empty if there is none.
    """

    verdict: Verdict
    nearer: int | None
    images: int
    temperature: float | None
    scaled: list[LabelProbability]


@dataclass(frozen=True, kw_only=True)
class Classification:
    """The network's labels for an image and the training images nearest to it.

    top5: at most five, most probable first. crops: the best label of each of the ten crops, in
    order. neighbours: at most six, nearest first. by_pixels: the nearest by Euclidean distance
    between 32×32 thumbnails; empty if the index has no sample. sampled: how many images were
    compared by pixels, None if all were. milliseconds: per step, "decode", "network", "search",
    "pixels". weights, version: what produced this; version is None, and there are no neighbours, if
    there was no index. sureness: None if the index was not calibrated. width, height: of the
    upright image, in pixels.
    """

    top5: list[LabelProbability]
    crops: list[LabelProbability]
    neighbours: list[Neighbour]
    by_pixels: list[Neighbour]
    sampled: int | None
    milliseconds: dict[str, float]
    weights: str
    version: IndexVersionInfo | None
    sureness: Sureness | None
    width: int
    height: int


def request_square(predictor: Predictor, request: DecodeRequest) -> DecodeRequest:
    """Return a request that also asks for the square that a network's crops are cut from."""
    config = predictor.config
    return replace(request, side=config.side, resize=config.resize)


def classify_image(
    serving: Ready | LabelsOnly,
    sessions: Sessions,
    data: bytes,
    *,
    decode: Decode = decode_here,
    request: DecodeRequest = TRUSTED,
    without: int | None = None,
) -> tuple[Classification, DecodedImage]:
    """Classify an image file; return what was decoded too, so that nobody decodes it twice.

    decode: how; by default in this process, for trusted files. request: its limits, and whether
    the picture is wanted. without: id of a training image that is not to be its own neighbour.
    Raises ImageError, DatabaseError and SearchError.
    """
    timer = StepTimer()
    predictor = serving.predictor
    image = decode(data, request_square(predictor, request))
    square = image.square
    timer.stop("decode")
    prediction = predictor.predict(square)
    timer.stop("network")
    ready = serving if isinstance(serving, Ready) else None
    neighbours, by_pixels = [], []
    if ready:
        (neighbours,) = find_nearest_neighbours(
            ready, sessions, prediction.fc7[None], without=without
        )
        timer.stop("search")
        by_pixels = find_nearest_by_pixels(ready, sessions, square, without)
        if ready.sample is not None:
            timer.stop("pixels")
    top5 = predictor.top5
    classification = Classification(
        top5=top5(prediction.probabilities),
        crops=[top5(crop)[0] for crop in prediction.crop_probabilities],
        neighbours=neighbours,
        by_pixels=by_pixels,
        sampled=count_sampled_images(ready) if ready else None,
        milliseconds=timer.milliseconds,
        weights=predictor.identity,
        version=ready.version if ready else None,
        sureness=judge_prediction(ready, prediction, neighbours) if ready else None,
        width=image.width,
        height=image.height,
    )
    return classification, image


def judge_prediction(
    ready: Ready, prediction: Prediction, neighbours: list[Neighbour]
) -> Sureness | None:
    """Judge how sure a prediction is; None if the index was not calibrated."""
    if ready.calibration is None:
        return None
    predictor, relative = ready.predictor, None
    if neighbours:
        nearest = np.array([neighbours[0].distance])
        relative = float(compute_relative_distances(nearest, prediction.fc7[None])[0])
    found = ready.calibration.judge(prediction.probabilities, relative)
    return Sureness(
        verdict=found.verdict,
        nearer=found.nearer,
        images=found.images,
        temperature=found.temperature,
        scaled=predictor.top5(found.scaled) if found.temperature else [],
    )


def find_nearest_neighbours(
    ready: Ready,
    sessions: Sessions,
    features: Floats | Doubles,
    count: int = DEFAULT_NEIGHBOURS,
    without: int | None = None,
    classes: Collection[int] | None = None,
    without_copies: Collection[int] = (),
) -> list[list[Neighbour]]:
    """Return the training images nearest to each row of [N, 4096], from all or some classes.

    without, without_copies: as in `Index.search`. Raises DatabaseError, SearchError, StoreError for
    damaged vectors, and QueryError for classes without an image.
    """
    found = ready.index.search(
        features, count, classes=classes, without=without, without_copies=without_copies
    )
    labels = find_labels(sessions, found.ids.ravel().tolist())
    rows = zip(found.ids.tolist(), found.distances.tolist(), found.copies.tolist(), strict=True)
    return [
        [
            Neighbour(
                id=image,
                label=labels.get(image, ""),
                distance=distance,
                copies=copies,
                near=distance <= ready.manifest.near,
            )
            for image, distance, copies in zip(*row, strict=True)
        ]
        for row in rows
    ]


def find_nearest_by_pixels(
    ready: Ready,
    sessions: Sessions,
    square: Pixels,
    without: int | None = None,
    count: int = DEFAULT_NEIGHBOURS,
) -> list[Neighbour]:
    """Return the sampled images nearest by pixels to uint8 [256, 256, 3]; none without a sample.

    Raises DatabaseError.
    """
    if ready.sample is None:
        return []
    ids, distances = ready.sample.find_nearest_by_pixels(square, count, without)
    labels = find_labels(sessions, ids.tolist())
    return [
        Neighbour(id=image, label=labels.get(image, ""), distance=distance)
        for image, distance in zip(ids.tolist(), distances.tolist(), strict=True)
    ]


def count_sampled_images(ready: Ready) -> int | None:
    """Return how many images are compared by pixels, or None if all are."""
    return None if ready.sample is None or ready.sample.whole else len(ready.sample.ids)


class StepTimer:
    """Times the steps of a classification in milliseconds."""

    def __init__(self) -> None:
        self.milliseconds: dict[str, float] = {}
        self.last = time.perf_counter()

    def stop(self, name: str) -> None:
        """Record the time since the previous step ended."""
        now = time.perf_counter()
        self.milliseconds[name], self.last = 1000 * (now - self.last), now

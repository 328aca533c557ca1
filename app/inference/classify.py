"""Answers put together: labels by the network, neighbours by the index, each step timed."""

from collections.abc import Collection

from PIL.Image import Image

from app.database import images
from app.database.session import Sessions
from app.inference.answers import Answer, Neighbour, Ready, Watch
from index.search import Doubles
from index.vectors import Floats
from model.predict import Pixels
from model.preprocess import central_square

NEIGHBOURS = 6


def answer_from(
    ready: Ready, sessions: Sessions, image: Image, watch: Watch, without: int | None = None
) -> Answer:
    """Answer for an image whose decoding the watch has timed; `without` is no neighbour of it.

    Raises DatabaseError and SearchError.
    """
    square = central_square(image)
    watch.step("decode")
    look = ready.predictor.look(square)
    watch.step("network")
    (neighbours,) = nearest(ready, sessions, look.fc7[None], without=without)
    watch.step("search")
    by_pixels = nearest_by_pixels(ready, sessions, square, without)
    if ready.sample is not None:
        watch.step("pixels")
    top5 = ready.predictor.top5
    return Answer(
        top5=top5(look.probabilities),
        crops=[top5(crop)[0] for crop in look.crops],
        neighbours=neighbours,
        by_pixels=by_pixels,
        sampled=sampled(ready),
        milliseconds=watch.milliseconds,
        weights=ready.predictor.identity,
        version=ready.version,
        width=image.width,
        height=image.height,
    )


def nearest(
    ready: Ready,
    sessions: Sessions,
    features: Floats | Doubles,
    count: int = NEIGHBOURS,
    without: int | None = None,
    classes: Collection[int] | None = None,
) -> list[list[Neighbour]]:
    """The training images nearest to each row of [N, 4096], of all classes or of some.

    Raises DatabaseError, SearchError, and QueryError for classes without an image.
    """
    found = ready.index.search(features, count, classes=classes, without=without)
    labels = images.labels(sessions, found.ids.ravel().tolist())
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


def nearest_by_pixels(
    ready: Ready,
    sessions: Sessions,
    square: Pixels,
    without: int | None = None,
    count: int = NEIGHBOURS,
) -> list[Neighbour]:
    """The images of the sample nearest to uint8 [256, 256, 3] by pixels, if there is a sample.

    Raises DatabaseError.
    """
    if ready.sample is None:
        return []
    ids, distances = ready.sample.nearest_by_pixels(square, count, without)
    labels = images.labels(sessions, ids.tolist())
    return [
        Neighbour(id=image, label=labels.get(image, ""), distance=distance)
        for image, distance in zip(ids.tolist(), distances.tolist(), strict=True)
    ]


def sampled(ready: Ready) -> int | None:
    """How many images are compared by pixels, where those are not all."""
    return None if ready.sample is None or ready.sample.whole else len(ready.sample.ids)

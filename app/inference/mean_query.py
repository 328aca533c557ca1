"""Searches with several training images: what is nearest to the mean of their features."""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from app.database.images import CatalogueImage, find_images
from app.database.session import Sessions
from app.inference.classify import Neighbour, find_nearest_neighbours
from app.inference.state import Ready
from index.vectors import Doubles

MIN_PICKED, MAX_PICKED, MEAN_NEIGHBOURS = 2, 6, 24


class PickError(ValueError):
    """A choice of images that cannot be searched with; the message is a sentence for people."""


@dataclass(frozen=True, kw_only=True)
class PickedImage:
    """One of the chosen images, and its Euclidean distance from their mean."""

    picture: CatalogueImage
    distance: float


@dataclass(frozen=True, kw_only=True)
class MeanQueryResult:
    """The chosen images in order, and the training images nearest to their mean."""

    picked: list[PickedImage]
    neighbours: list[Neighbour]


def find_nearest_to_mean(
    ready: Ready,
    sessions: Sessions,
    images: Iterable[int],
    count: int = MEAN_NEIGHBOURS,
    classes: Collection[int] | None = None,
) -> MeanQueryResult:
    """Search with the mean of the fc7 features of two to six different images.

    Leaves out the chosen images and exact copies of them. classes: search only these classes.
    Raises PickError, DatabaseError, SearchError, and QueryError for classes without an image.
    """
    chosen = list(dict.fromkeys(images))
    check_count(len(chosen))
    known = find_images(sessions, chosen)
    check_indexed(ready, chosen, known.keys())
    features = ready.index.read_features(chosen).astype(np.float64)
    mean: Doubles = features.mean(axis=0)
    distances = np.linalg.norm(features - mean, axis=1).tolist()
    return MeanQueryResult(
        picked=[
            PickedImage(picture=known[i], distance=d)
            for i, d in zip(chosen, distances, strict=True)
        ],
        neighbours=find_nearest_others(ready, sessions, mean, chosen, count, classes),
    )


def check_count(count: int) -> None:
    """Raise PickError unless there are two to six images."""
    if not MIN_PICKED <= count <= MAX_PICKED:
        said = {0: "none was", 1: "one was"}.get(count, f"{count} were")
        raise PickError(f"Choose two to six different images; {said} chosen.")


def check_indexed(ready: Ready, chosen: Sequence[int], known: Iterable[int]) -> None:
    """Raise PickError for an image that the database or the index does not have."""
    unknown = [image for image in chosen if image not in set(known)]
    if unknown:
        raise PickError(f"There is no image {unknown[0]}.")
    for image in chosen:
        if ready.index.id_map.find_row(image) is None:
            raise PickError(
                f"Image {image} is not in the index, so its features are not known; "
                "only indexed training images can be chosen."
            )


def find_nearest_others(
    ready: Ready,
    sessions: Sessions,
    mean: Doubles,
    chosen: Sequence[int],
    count: int,
    classes: Collection[int] | None,
) -> list[Neighbour]:
    """Return the images nearest to a mean, float64 [4096], except copies of those chosen."""
    (found,) = find_nearest_neighbours(
        ready, sessions, mean[None], count, classes=classes, without_copies=chosen
    )
    # A mean is not an image, so nothing is a near-duplicate of it.
    return [replace(one, near=False) for one in found]

"""Makes the review of a version: its sample of training images, and its validation images."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from index.building.validation import ValidationImages
from index.id_map import Classes, IdMap
from index.review.copies import Copies, find_copies
from index.review.doubts import Bools, find_label_doubts
from index.review.neighbourhood import Neighbourhood, find_neighbourhood
from index.review.outliers import find_outliers
from index.review.stored import UNKNOWN_CLASS, Review
from index.sample import Pixels
from index.vectors import Doubles, Floats, Ids, Vectors
from model.weights.loaded_network import LoadedNetwork

MIN_REVIEWED = 10
"""With fewer images there is nothing to compare an image with."""


class RegisteredImages(Protocol):
    """Ids and class ids in the database: int64 [V], int32 [V]."""

    @property
    def ids(self) -> Ids: ...

    @property
    def classes(self) -> Classes: ...


@dataclass(frozen=True, kw_only=True)
class ReviewedImages:
    """The images to review, training images before validation images.

    ids: int64 [N]. classes: int32 [N], class ids. features: float32 [N, 4096]. thumbnails: uint8
    [N, 32, 32, 3]. validation: how many of them, the last, are validation images. same: pairs of
    places with the same pixels.
    """

    ids: Ids
    classes: Classes
    features: Floats
    thumbnails: Pixels
    validation: int
    same: list[tuple[int, int]]


def gather_reviewed_images(
    id_map: IdMap,
    vectors: Vectors,
    sample: tuple[Ids, Pixels],
    validation: ValidationImages,
    registered: RegisteredImages,
    pixel_rows: dict[str, int],
) -> ReviewedImages:
    """Gather the images of a version to review.

    sample: ids and thumbnails of its sample. registered: of the validation images. pixel_rows: the
    row of a training image by the digest of its pixels.
    """
    order = id_map.order_by_id
    places = order[np.searchsorted(id_map.ids, sample[0], sorter=order)]
    rows, classes = id_map.rows[places], id_map.classes[places]
    # The same pixels have the same row; those that only validation images have get rows of theirs.
    digests = [entry.pixels for entry in validation.entries]
    new = {digest: -1 - number for number, digest in enumerate(dict.fromkeys(digests))}
    own = np.array([pixel_rows.get(digest, new[digest]) for digest in digests], np.int64)
    return ReviewedImages(
        ids=np.concatenate([sample[0], registered.ids]),
        classes=np.concatenate([classes, registered.classes]),
        features=np.concatenate([vectors.take(rows), validation.features]),
        thumbnails=np.concatenate([sample[1], validation.thumbnails]),
        validation=len(digests),
        same=list(pair_equal_rows(np.concatenate([rows, own]))),
    )


def pair_equal_rows(rows: Ids) -> Iterator[tuple[int, int]]:
    """Pair each image with the first of the same row: places of int64 [N]."""
    first: dict[int, int] = {}
    for place, row in enumerate(rows.tolist()):
        if (other := first.setdefault(row, place)) != place:
            yield other, place


def make_review(
    images: ReviewedImages,
    network: LoadedNetwork,
    class_ids: dict[str, int],
    near: float,
    near_pixels: float,
    before: Neighbourhood | None = None,
) -> tuple[Review, Neighbourhood] | None:
    """Review images; None if there are too few of them, or they are all of one class.

    Also returns each one's nearest others. class_ids: the dataset's class ids by folder. near,
    near_pixels: the distances, in fc7 and of thumbnails, up to which two images count as
    near-duplicates. before: the nearest others in an earlier version with the same weights.
    """
    known, labels = np.unique(images.classes, return_inverse=True)
    if len(images.ids) < MIN_REVIEWED or len(known) < 2:
        return None
    found = find_neighbourhood(images.features, before=before)
    folders = [name.folder for name in network.weights.classes]
    by_output = np.array([class_ids.get(f, UNKNOWN_CLASS) for f in folders], np.int32)
    predicted = network.compute_probabilities(images.features)
    validation = np.arange(len(images.ids)) >= len(images.ids) - images.validation
    judged = select_classes(predicted, by_output, known)
    judged[~validation] = np.nan  # the network was trained on these
    doubts = find_label_doubts(images.features, labels, found.places, len(known), judged)
    distances, outlying = find_outliers(images.features, labels, found)
    copies = find_copies(found, images.thumbnails, near, near_pixels, images.same)
    exact = set(images.same)
    review = Review(
        ids=images.ids,
        validation=validation,
        classes=images.classes.astype(np.int32),
        guesses=by_output[predicted.argmax(axis=1)],
        proposed=known[doubts.proposed].astype(np.int32),
        doubts=doubts.doubts.astype(np.float32),
        losses=doubts.losses.astype(np.float32),
        contested=doubts.contested,
        distances=distances.astype(np.float32),
        outlying=outlying.astype(np.float32),
        pairs=images.ids[copies.places],
        pair_distances=copies.distances.astype(np.float32),
        pair_pixels=copies.pixels.astype(np.float32),
        pair_exact=mark_exact(copies, exact),
        near=near,
        near_pixels=near_pixels,
    )
    return review, found


def select_classes(probabilities: Floats, by_output: Classes, known: Classes) -> Doubles:
    """Return the probabilities of the classes `known`, int32 [C], as shares: float64 [N, C].

    by_output: the class of each of the network's outputs. NaN where the network knows none of them.
    """
    found = np.zeros((len(probabilities), len(known)))
    for place, class_id in enumerate(known.tolist()):
        found[:, place] = probabilities[:, by_output == class_id].sum(axis=1)
    whole = found.sum(axis=1, keepdims=True)
    shares: Doubles = np.divide(found, whole, out=np.full_like(found, np.nan), where=whole > 0)
    return shares


def mark_exact(copies: Copies, same: set[tuple[int, int]]) -> Bools:
    """Mark the pairs whose pixels are all the same: bool [P]."""
    return np.array([(a, b) in same for a, b in copies.places.tolist()], bool)

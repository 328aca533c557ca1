"""Copies among the images: with the same pixels, or saved again, resized or slightly cropped."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from index.review.doubts import Bools
from index.review.neighbourhood import Neighbourhood
from index.sample import Pixels
from index.vectors import Doubles, Ids

PAIRS_PER_BLOCK = 1024
"""Pairs whose thumbnails are compared at a time."""


@dataclass(frozen=True, kw_only=True)
class Copies:
    """P pairs of images that are copies, nearest first.

    places: int64 [P, 2], the smaller place first. distances: float64 [P], in fc7. pixels: float64
    [P], between 32×32 thumbnails.
    """

    places: Ids
    distances: Doubles
    pixels: Doubles


def find_copies(
    found: Neighbourhood,
    thumbnails: Pixels,
    near: float,
    near_pixels: float,
    same: Iterable[tuple[int, int]] = (),
) -> Copies:
    """Find the pairs of near neighbours that are copies of each other.

    A pair counts if its distance in fc7 is at most `near`, or its thumbnails', uint8
    [N, 32, 32, 3], at most `near_pixels`. same: pairs known to have the same pixels.
    """
    pairs = {
        (min(a, b), max(a, b)): distance
        for a, (places, distances) in enumerate(
            zip(found.places.tolist(), found.distances.tolist(), strict=True)
        )
        for b, distance in zip(places, distances, strict=True)
    }
    pairs |= {(min(pair), max(pair)): 0.0 for pair in same}
    places = np.array([*pairs], np.int64).reshape(-1, 2)
    distances = np.array([*pairs.values()], np.float64)
    pixels = compute_pixel_distances(thumbnails, places)
    kept: Bools = (distances <= near) | (pixels <= near_pixels)
    order = np.lexsort((places[kept, 1], places[kept, 0], distances[kept]))
    return Copies(
        places=places[kept][order], distances=distances[kept][order], pixels=pixels[kept][order]
    )


def compute_pixel_distances(thumbnails: Pixels, pairs: Ids) -> Doubles:
    """Compute the Euclidean distance between the thumbnails of each pair, int64 [P, 2]."""
    found = np.empty(len(pairs))
    for start in range(0, len(pairs), PAIRS_PER_BLOCK):
        some = pairs[start : start + PAIRS_PER_BLOCK]
        difference = thumbnails[some[:, 0]].astype(np.int32) - thumbnails[some[:, 1]]
        found[start : start + len(some)] = np.square(difference).reshape(len(some), -1).sum(axis=1)
    return np.sqrt(found)

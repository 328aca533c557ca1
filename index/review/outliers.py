"""Images that are unlike anything else in their class."""

import numpy as np

from index.review.neighbourhood import Neighbourhood, search_others
from index.vectors import Doubles, Floats, Ids

FENCE = 1.5
"""Tukey's inner fence, in interquartile ranges above the upper quartile (*Exploratory Data
Analysis*, 1977)."""
MIN_CLASS_IMAGES = 5
"""Classes with fewer have no quartiles to speak of."""


def find_outliers(features: Floats, labels: Ids, found: Neighbourhood) -> tuple[Doubles, Doubles]:
    """Measure how far each image is from the others of its class.

    features: float32 [N, F]. labels: int64 [N]. found: their nearest others. Returns the distance
    from the nearest one, float64 [N], infinite for an image that is alone; and how many
    interquartile ranges it lies above the upper quartile of its class, float64 [N]: beyond 1.5 it
    is an outlier. −∞ in small classes.
    """
    distances, scores = np.full(len(labels), np.inf), np.full(len(labels), -np.inf)
    alike = labels[found.places] == labels[:, None]
    # The first neighbour of the class is the nearest one of the class.
    nearby, first = np.flatnonzero(alike.any(axis=1)), alike.argmax(axis=1)
    distances[nearby] = found.distances[nearby, first[nearby]]
    for label in np.unique(labels):
        members = np.flatnonzero(labels == label)
        if len(members) < 2:
            continue
        far = members[np.isinf(distances[members])]
        distances[far] = search_others(features, far, members, 1)[1][:, 0]
        if len(members) < MIN_CLASS_IMAGES:
            continue
        lower, upper = np.percentile(distances[members], [25, 75])
        if upper > lower:
            scores[members] = (distances[members] - upper) / (upper - lower)
    return distances, scores

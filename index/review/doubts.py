"""Labels that the features contest: each image judged by all the others.

Two judges see an image without its own label. Its nearest neighbours vote, itself left out. A
linear classifier on the features is fitted by ridge regression to the labels of four fifths of the
images and asked about the last fifth, in turn (cross-validation). Of images that the network was
not trained on, the network itself is a third judge, with the weight of both. The mean is read as
confident learning reads probabilities (Northcutt, Jiang and Chuang, *Confident Learning*, 2021).

That is the dozen lines of NumPy in `find_contested`, instead of the package cleanlab: it is under
the AGPL, and brings scikit-learn and pandas along.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from index.calibration import compute_loss, fit_temperature, scale_probabilities
from index.vectors import Doubles, Floats, Ids

Bools = npt.NDArray[np.bool_]
VOTERS = 10
"""Nearest neighbours that vote on a label."""
FOLDS = 5
SEED = 2012
PROJECTED_FEATURES = 512
"""Dimensions of the random projection that the classifier is fitted to: distances and so the fit
change little (Johnson and Lindenstrauss 1984), and its matrices stay small."""
RIDGES = (0.01, 0.1, 1.0, 10.0)
"""Ridge penalties tried, in units of the features' mean variance; the least loss decides."""
SCORE_SCALE = 8.0
"""Turns scores around 0 and 1 into probabilities, whose temperature is then fitted."""


@dataclass(frozen=True, kw_only=True)
class LabelDoubts:
    """How doubtful each of N labels is.

    doubts: float64 [N], 0–1: above one half another label is more probable. proposed: int64 [N],
    the other label. losses: float64 [N], the negative logarithm of the label's probability.
    contested: bool [N], the labels that confident learning takes for wrong.
    """

    doubts: Doubles
    proposed: Ids
    losses: Doubles
    contested: Bools


def find_label_doubts(
    features: Floats,
    labels: Ids,
    neighbours: Ids,
    classes: int,
    network: Doubles | None = None,
) -> LabelDoubts:
    """Judge N labels.

    features: float32 [N, F]. labels: int64 [N], below `classes`, which is at least 2. neighbours:
    int64 [N, k], the places of each image's nearest others, nearest first. network: float64
    [N, classes], the network's probabilities; NaN for images that it was trained on.
    """
    voted = count_votes(labels, neighbours[:, :VOTERS], classes)
    predicted = cross_validate(features, labels, classes)
    probabilities = (voted + predicted) / 2
    if network is not None:
        unseen = np.isfinite(network).all(axis=1)
        probabilities[unseen] = (probabilities[unseen] + network[unseen]) / 2
    return judge_labels(probabilities, labels)


def judge_labels(probabilities: Doubles, labels: Ids) -> LabelDoubts:
    """Judge N labels by out-of-sample probabilities, [N, classes]."""
    places = np.arange(len(labels))
    own = probabilities[places, labels]
    others = probabilities.copy()
    others[places, labels] = -1
    proposed = others.argmax(axis=1)
    likely = find_contested(probabilities, labels)
    contested = likely != labels
    return LabelDoubts(
        doubts=(1 + others[places, proposed] - own) / 2,
        proposed=np.where(contested, likely, proposed),
        losses=-np.log(np.maximum(own, np.finfo(np.float32).tiny)),
        contested=contested,
    )


def find_contested(probabilities: Doubles, labels: Ids) -> Ids:
    """Find the labels that N images more likely have: int64 [N], the given one where none is.

    A class counts for an image if it is at least as probable as it is on average for the images
    labelled so; of these, the most probable is the likely one. Where it is another than the label,
    the image is off the diagonal of the confident joint.
    """
    classes = probabilities.shape[1]
    means = [
        probabilities[labels == c, c].mean() if (labels == c).any() else 2 for c in range(classes)
    ]
    confident = np.where(probabilities >= np.array(means), probabilities, -1)
    likely = confident.argmax(axis=1)
    return np.where(confident.max(axis=1) < 0, labels, likely)


def count_votes(labels: Ids, neighbours: Ids, classes: int) -> Doubles:
    """Count the labels of each image's neighbours as shares: float64 [N, classes]."""
    votes = np.zeros((len(labels), classes))
    for column in neighbours.T:
        votes[np.arange(len(labels)), labels[column]] += 1
    shares: Doubles = votes / np.float64(max(1, neighbours.shape[1]))
    return shares


def cross_validate(features: Floats, labels: Ids, classes: int) -> Doubles:
    """Predict each image's label by a classifier fitted without it: float64 [N, classes]."""
    inputs = project_features(features)
    folds = np.random.default_rng(SEED).permutation(len(labels)) % FOLDS
    variance = max(float(np.square(inputs).mean()), float(np.finfo(np.float32).tiny))
    penalties = [ridge * variance for ridge in RIDGES]
    best, least = np.full((len(labels), classes), 1 / classes), np.inf
    for scores in score_left_out(inputs, np.eye(classes)[labels], folds, penalties):
        raw = np.exp(SCORE_SCALE * (scores - scores.max(axis=1, keepdims=True)))
        probabilities = (raw / raw.sum(axis=1, keepdims=True)).astype(np.float32)
        scaled = scale_probabilities(probabilities, fit_temperature(probabilities, labels))
        if (loss := compute_loss(scaled, labels)) < least:
            best, least = scaled, loss
    return best


def score_left_out(
    inputs: Doubles, targets: Doubles, folds: Ids, penalties: Sequence[float]
) -> Doubles:
    """Score each image by ridge regressions fitted without its fold: [penalties, N, classes].

    inputs: [N, F]. targets: [N, classes]. folds: int64 [N]. penalties: for each image fitted to.
    The products are summed up once for each fold; what was fitted to is the others' sum.
    """
    inputs = inputs - inputs.mean(axis=0)  # smaller numbers lose less where sums are subtracted
    groups = [np.flatnonzero(folds == fold) for fold in np.unique(folds)]
    parts = [sum_products(inputs[group], targets[group]) for group in groups]
    whole = [np.sum(every, axis=0) for every in zip(*parts, strict=True)]
    scores = np.zeros((len(penalties), *targets.shape))
    for group, own in zip(groups, parts, strict=True):
        known = len(inputs) - len(group)
        products, crossed, summed, wanted = (a - b for a, b in zip(whole, own, strict=True))
        centre, mean = summed / known, wanted / known
        gram = products - known * np.outer(centre, centre)
        crossed -= known * np.outer(centre, mean)
        for number, penalty in enumerate(penalties):
            ridge = penalty * known * np.eye(len(gram))
            weights = np.linalg.solve(gram + ridge, crossed)
            scores[number, group] = (inputs[group] - centre) @ weights + mean
    return scores


def sum_products(inputs: Doubles, targets: Doubles) -> tuple[Doubles, Doubles, Doubles, Doubles]:
    """Return XᵀX, XᵀY, and the sums of X and of Y."""
    return inputs.T @ inputs, inputs.T @ targets, inputs.sum(axis=0), targets.sum(axis=0)


def project_features(features: Floats) -> Doubles:
    """Project features by a seeded Gaussian matrix: float32 [N, F] → float64 [N, at most 512]."""
    width = features.shape[1]
    if width <= PROJECTED_FEATURES:
        return features.astype(np.float64)
    matrix = np.random.default_rng(SEED).standard_normal((width, PROJECTED_FEATURES), np.float32)
    projected: Doubles = (features @ matrix / np.float32(PROJECTED_FEATURES**0.5)).astype(
        np.float64
    )
    return projected

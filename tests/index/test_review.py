"""The review against truths that were planted: swapped labels, copies, outliers."""

import numpy as np
import pytest
from PIL import Image
from skimage import data

from index.building.near_duplicates import encode_jpeg
from index.review.copies import find_copies, find_neighbourhood
from index.review.doubts import (
    find_contested,
    find_label_doubts,
    fit_and_score,
    judge_labels,
)
from index.review.make import select_classes
from index.review.outliers import find_outliers
from index.sample import make_thumbnail
from model.image.preprocess import decode_square, make_square

CLASSES, EACH = 6, 40


def make_features(seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Features of six overlapping classes, float32 [240, 60], and their true labels."""
    rng = np.random.default_rng(seed)
    labels = np.repeat(np.arange(CLASSES), EACH)
    centres = rng.normal(0, 1, (CLASSES, 60))
    return (centres[labels] + rng.normal(0, 1.4, (len(labels), 60))).astype(np.float32), labels


def swap_labels(labels: np.ndarray, seed: int, share: float = 0.05) -> np.ndarray:
    """Give a share of the labels another class."""
    rng = np.random.default_rng(seed)
    chosen = rng.permutation(len(labels))[: round(share * len(labels))]
    swapped = labels.copy()
    swapped[chosen] = (labels[chosen] + rng.integers(1, CLASSES, len(chosen))) % CLASSES
    return swapped


def test_swapped_labels_rank_above_chance_and_above_plain_confidence() -> None:
    hits = plain = proposed = listed = found = total = 0
    for seed in range(3):
        features, truth = make_features(seed)
        labels = swap_labels(truth, seed)
        wrong = labels != truth
        count = int(wrong.sum())
        near = find_neighbourhood(features)
        doubts = find_label_doubts(features, labels, near.places, CLASSES)
        ranked = np.argsort(-doubts.doubts)[:count]
        hits += int(wrong[ranked].sum())
        # A classifier that was fitted to these very labels, as a network is.
        inputs = np.c_[features, np.ones(len(features))]
        fit = np.linalg.lstsq(inputs, np.eye(CLASSES)[labels], rcond=None)[0]
        own = (inputs @ fit)[np.arange(len(labels)), labels]
        plain += int(wrong[np.argsort(own)[:count]].sum())
        proposed += int((doubts.proposed[ranked] == truth[ranked])[wrong[ranked]].sum())
        listed += int(doubts.contested.sum())
        found += int((doubts.contested & wrong).sum())
        total += count
    assert hits / total > 0.75  # 0.05 by chance
    assert hits >= plain
    assert proposed / hits > 0.9
    assert found / total > 0.65  # recall of what is listed
    assert found / listed > 0.4  # and its precision


@pytest.mark.parametrize("images", [12, 60])
def test_the_ridge_regression_is_that_of_least_squares(images: int) -> None:
    random = np.random.default_rng(0)
    inputs, targets = random.normal(size=(images, 20)), random.normal(size=(images, 3))
    out = np.arange(images) % 4 == 0
    known, mean = inputs[~out], targets[~out].mean(axis=0)
    centred = known - known.mean(axis=0)
    # A penalty is as many more rows, whose targets are zero.
    rows = np.r_[centred, np.sqrt(0.3 * len(known)) * np.eye(20)]
    wanted = np.r_[targets[~out] - mean, np.zeros((20, 3))]
    weights = np.linalg.lstsq(rows, wanted, rcond=None)[0]
    expected = (inputs[out] - known.mean(axis=0)) @ weights + mean
    found = fit_and_score(inputs, targets, out, 0.3)
    np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-12)


def test_right_labels_of_clear_classes_are_not_contested() -> None:
    features, labels = make_features()
    apart = features + 20 * np.eye(CLASSES, 60, dtype=np.float32)[labels]
    doubts = find_label_doubts(apart, labels, find_neighbourhood(apart).places, CLASSES)
    assert not doubts.contested.any()
    assert (doubts.doubts < 0.5).all()
    assert np.isfinite(doubts.losses).all()


def test_confident_learning_counts_what_is_as_probable_as_usual() -> None:
    probabilities = np.array([[0.9, 0.1], [0.7, 0.3], [0.2, 0.8], [0.6, 0.4], [0.1, 0.9]])
    labels = np.array([0, 0, 1, 1, 1])
    # Means: 0.8 for the first class, 0.7 for the second.
    assert find_contested(probabilities, labels).tolist() == [0, 0, 1, 1, 1]
    probabilities[3] = [0.85, 0.15]
    assert find_contested(probabilities, labels).tolist() == [0, 0, 1, 0, 1]
    doubts = judge_labels(probabilities, labels)
    assert doubts.doubts.tolist() == pytest.approx([0.1, 0.3, 0.2, 0.85, 0.1])
    assert doubts.losses[3] == pytest.approx(-np.log(0.15))


def test_neighbours_are_those_of_a_brute_force_search() -> None:
    features, _ = make_features()
    found = find_neighbourhood(features, 5)
    apart = np.linalg.norm(features[:, None].astype(np.float64) - features, axis=2)
    np.fill_diagonal(apart, np.inf)
    assert (found.places == np.argsort(apart, axis=1, kind="stable")[:, :5]).all()
    assert found.distances == pytest.approx(np.sort(apart, axis=1)[:, :5])


def test_planted_copies_are_found_and_nothing_else() -> None:
    pictures = [
        Image.fromarray(getattr(data, name)()).convert("RGB")
        for name in ("astronaut", "chelsea", "coffee", "rocket")
    ]
    crops = [
        picture.crop((x, y, x + 200, y + 200))
        for picture in pictures
        for x, y in ((0, 0), (90, 60))
    ]
    squares = [make_square(crop) for crop in crops]
    squares += [
        decode_square(encode_jpeg(crops[0])),
        make_square(crops[3].resize((97, 97))),
        squares[5],
    ]
    thumbnails = np.stack([make_thumbnail(square) for square in squares])
    features = thumbnails.reshape(len(thumbnails), -1).astype(np.float32)
    found = find_copies(find_neighbourhood(features), thumbnails, 0.0, 500.0, [(5, 10)])
    assert {tuple(pair) for pair in found.places.tolist()} == {(0, 8), (3, 9), (5, 10)}
    assert found.places[0].tolist() == [5, 10]
    assert found.distances[0] == found.pixels[0] == 0


def test_an_image_unlike_its_class_is_an_outlier() -> None:
    features, labels = make_features()
    features[7] += 9
    distances, scores = find_outliers(features, labels)
    assert scores.argmax() == 7
    assert scores[7] > 1.5
    same = np.linalg.norm(features[labels == 0][:, None] - features[labels == 0], axis=2)
    np.fill_diagonal(same, np.inf)
    assert distances[:EACH] == pytest.approx(same.min(axis=1), rel=1e-5)
    alone = find_outliers(features, np.r_[labels[:-1], 9])
    assert np.isinf(alone[0][-1])
    assert np.isneginf(alone[1][-1])


def test_the_network_judges_only_images_that_it_has_not_seen() -> None:
    features, labels = make_features()
    near = find_neighbourhood(features).places
    network = np.full((len(labels), CLASSES), np.nan)
    network[3] = np.eye(CLASSES)[2]  # it has not seen this one, and contests its label
    alone = find_label_doubts(features, labels, near, CLASSES)
    both = find_label_doubts(features, labels, near, CLASSES, network)
    assert both.proposed[3] == 2
    assert both.doubts[3] > alone.doubts[3]
    others = np.arange(len(labels)) != 3
    assert (both.doubts[others] == alone.doubts[others]).all()


def test_a_networks_outputs_are_matched_with_the_classes_of_the_data_set() -> None:
    probabilities = np.array([[0.2, 0.5, 0.3], [0.0, 1.0, 0.0]], np.float32)
    # Its second output is of a class that the data set lacks; it does not know class 9.
    by_output, known = np.array([7, 0, 4], np.int32), np.array([4, 7, 9], np.int32)
    shares = select_classes(probabilities, by_output, known)
    assert shares[0].tolist() == pytest.approx([0.6, 0.4, 0])
    assert np.isnan(shares[1]).all()

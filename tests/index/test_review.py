"""The review against truths that were planted: swapped labels, copies, outliers."""

import itertools
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from skimage import data

from index.building.near_duplicates import encode_jpeg
from index.manifest import StoreError
from index.review.copies import find_copies
from index.review.doubts import (
    find_contested,
    find_label_doubts,
    judge_labels,
    score_left_out,
)
from index.review.make import select_classes
from index.review.neighbourhood import (
    Neighbourhood,
    find_neighbourhood,
    read_neighbourhood,
    search_others,
    write_neighbourhood,
)
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
    inputs, targets = random.normal(1, size=(images, 20)), random.normal(size=(images, 3))
    folds = np.arange(images) % 4
    found = score_left_out(inputs, targets, folds, [0.3, 2.0])
    for fold, (number, penalty) in itertools.product(range(4), enumerate([0.3, 2.0])):
        out = folds == fold
        known, mean = inputs[~out], targets[~out].mean(axis=0)
        centred = known - known.mean(axis=0)
        # A penalty is as many more rows, whose targets are zero.
        rows = np.r_[centred, np.sqrt(penalty * len(known)) * np.eye(20)]
        wanted = np.r_[targets[~out] - mean, np.zeros((20, 3))]
        weights = np.linalg.lstsq(rows, wanted, rcond=None)[0]
        expected = (inputs[out] - known.mean(axis=0)) @ weights + mean
        np.testing.assert_allclose(found[number, out], expected, rtol=1e-9, atol=1e-12)


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


@pytest.mark.parametrize("seed", range(4))
def test_what_an_earlier_version_found_changes_nothing_of_what_is_found(
    seed: int, tmp_path: Path
) -> None:
    random = np.random.default_rng(seed)
    features, _ = make_features(seed)
    # Equal images, as of the same pixels under several names.
    features[[5, 17, 18, 100]] = features[40]
    earlier = features[np.sort(random.permutation(len(features))[:200])]
    earlier = np.insert(earlier, 90, random.normal(0, 1, (3, 60)), axis=0).astype(np.float32)
    write_neighbourhood(tmp_path, find_neighbourhood(earlier))
    before = read_neighbourhood(tmp_path)
    assert before is not None
    expected = find_neighbourhood(features)
    found = find_neighbourhood(features, before=before)
    assert (found.places == expected.places).all()
    assert (found.distances == expected.distances).all()
    # The same images again: nothing is compared.
    again = Neighbourhood(
        keys=expected.keys, places=expected.places, distances=expected.distances + 1
    )
    assert (find_neighbourhood(features, before=again).distances == again.distances).all()
    # Others altogether, and so few that each has fewer others.
    for other in (features[:9] + 1, features[:9]):
        few = find_neighbourhood(other)
        assert few.places.shape == (9, 8)
        assert (find_neighbourhood(features, before=few).places == expected.places).all()


def test_an_update_compares_only_what_is_new(monkeypatch: pytest.MonkeyPatch) -> None:
    features, _ = make_features()
    before = find_neighbourhood(features[1:])
    searched: list[int] = []

    def find(features: Any, rows: Any, *rest: Any) -> Any:
        searched.append(len(rows))
        return search_others(features, rows, *rest)

    monkeypatch.setattr("index.review.neighbourhood.search_others", find)
    find_neighbourhood(features, before=before)
    assert searched == [1]
    # Without one image, those that had it among their nearest are searched for.
    find_neighbourhood(features[2:], before=before)
    assert searched[1] == (before.places == 0).any(axis=1).sum() - (before.places[0] == 0).any()


def test_a_damaged_neighbourhood_is_named(tmp_path: Path) -> None:
    found = find_neighbourhood(make_features()[0])
    wrong = replace(found, places=found.places + len(found.keys))
    for one in (wrong, replace(found, keys=found.keys[1:])):
        write_neighbourhood(tmp_path, one)
        with pytest.raises(StoreError, match=r"neighbourhood\.npz is damaged"):
            read_neighbourhood(tmp_path)


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
    distances, scores = find_outliers(features, labels, find_neighbourhood(features))
    assert scores.argmax() == 7
    assert scores[7] > 1.5
    same = np.linalg.norm(features[labels == 0][:, None] - features[labels == 0], axis=2)
    np.fill_diagonal(same, np.inf)
    assert distances[:EACH] == pytest.approx(same.min(axis=1), rel=1e-5)
    alone = find_outliers(features, np.r_[labels[:-1], 9], find_neighbourhood(features))
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

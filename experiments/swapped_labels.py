"""How many swapped labels the review finds: `python -m experiments.swapped_labels --data DIR`.

Photographs that the network was not trained on are taken as a data set, a share of their labels is
swapped by a seed, and the labels are ranked: by the review's doubt, by the network's own confidence
in the given label, and at random. Copies of some photographs, saved again and resized, are planted
too.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tyro

from index.building.near_duplicates import encode_jpeg, measure_near_duplicate_pixels
from index.review.copies import find_copies
from index.review.doubts import find_label_doubts
from index.review.neighbourhood import find_neighbourhood
from index.sample import make_thumbnail
from index.vectors import Floats, Ids
from model.dataset.folder import Photograph, scan_folder
from model.image.decode import decode_image
from model.predict import Pixels, Predictor
from model.weights.checkpoint import load_weights
from storage.parallel import map_ahead, split_batches
from storage.pretrained import SHIPPED

BATCH = 32
RESIZED_SHARE = 0.6
"""The scale of a planted copy that is resized."""


@dataclass(frozen=True, kw_only=True)
class Options:
    """What to measure."""

    data: Path
    """Folder with train/ and val/."""
    split: str = "val"
    """The photographs to take: those that the network has not seen."""
    weights: Path = SHIPPED.weights
    """Weights file."""
    most: int = 1000
    """Photographs, drawn by the seed."""
    share: float = 0.05
    """Share of the labels to swap."""
    copies: int = 20
    """Photographs of which two copies are planted."""
    seed: int = 0
    runtime: str = "torch"
    """What computes the features: a name as in ALEXNET_RUNTIME."""


def main(options: Options) -> None:
    """Measure, and print a line per ranking."""
    predictor = Predictor.from_weights(load_weights(options.weights), "cpu", options.runtime)
    folder = scan_folder(options.data, val_may_lack_classes=True)
    rng = np.random.default_rng(options.seed)
    every: Sequence[Photograph] = folder.val if options.split == "val" else folder.train
    chosen = [every[i] for i in np.sort(rng.permutation(len(every))[: options.most]).tolist()]
    files = [folder.root / photograph.path for photograph in chosen]
    truth = np.array([photograph.class_index for photograph in chosen], np.int64)
    features, thumbnails = compute_features(predictor, files)
    labels = swap_labels(truth, options.share, len(folder.classes), rng)
    wrong = labels != truth
    found = find_neighbourhood(features)
    order = [name.folder for name in predictor.classes]
    outputs = np.array([order.index(name.folder) for name in folder.classes])
    network = predictor.loaded.compute_probabilities(features)[:, outputs].astype(np.float64)
    confidence = network[np.arange(len(labels)), labels]
    classes = len(folder.classes)
    doubts = find_label_doubts(features, labels, found.places, classes, network)
    blind = find_label_doubts(features, labels, found.places, classes)
    count = int(wrong.sum())
    print(f"{len(labels):,} photographs, {count} labels swapped")  # noqa: T201
    for name, scores in (
        ("doubt", doubts.doubts),
        ("doubt without the network, as of training images", blind.doubts),
        ("the network's confidence in the label", -confidence),
        ("random", rng.random(len(labels))),
    ):
        hits = int(wrong[np.argsort(-scores, kind="stable")[:count]].sum())
        print(f"{name}: {hits} of the first {count} are swapped ({hits / count:.1%})")  # noqa: T201
    listed = int(doubts.contested.sum())
    right = int((doubts.contested & wrong).sum())
    print(  # noqa: T201
        f"contested: {listed}, of which swapped {right}: precision {right / max(1, listed):.1%}, "
        f"recall {right / count:.1%}"
    )
    proposed = doubts.proposed[doubts.contested & wrong] == truth[doubts.contested & wrong]
    print(f"of these, {proposed.mean():.1%} with the right label proposed")  # noqa: T201
    plant_copies(predictor, files, features, thumbnails, options.copies)


def compute_features(predictor: Predictor, files: Sequence[Path]) -> tuple[Floats, Pixels]:
    """Compute features, float32 [N, 4096], and thumbnails, uint8 [N, 32, 32, 3]."""
    features, thumbnails = [], []
    for squares in split_batches(map_ahead(predictor.read_square, files, 2 * BATCH), BATCH):
        features.append(predictor.extract_features(np.stack(squares)))
        thumbnails += [make_thumbnail(square) for square in squares]
    return np.concatenate(features), np.stack(thumbnails)


def swap_labels(truth: Ids, share: float, classes: int, rng: np.random.Generator) -> Ids:
    """Give a share of the labels another class, drawn evenly."""
    chosen = rng.permutation(len(truth))[: round(share * len(truth))]
    labels = truth.copy()
    labels[chosen] = (truth[chosen] + rng.integers(1, classes, len(chosen))) % classes
    return labels


def plant_copies(
    predictor: Predictor, files: Sequence[Path], features: Floats, thumbnails: Pixels, count: int
) -> None:
    """Add copies that are saved again and that are resized, and print how many pairs are found."""
    squares = []
    for file in files[:count]:
        image = decode_image(file.read_bytes(), trusted=True)
        small = image.resize([max(1, round(RESIZED_SHARE * side)) for side in image.size])
        squares += [predictor.decode_square(encode_jpeg(image)), predictor.make_square(small)]
    near = measure_near_duplicate_pixels(files, predictor.config.resize)
    parts = [
        predictor.extract_features(np.stack(squares[i : i + BATCH]))
        for i in range(0, len(squares), BATCH)
    ]
    together = np.concatenate([features, *parts])
    pictures = np.concatenate([thumbnails, [make_thumbnail(square) for square in squares]])
    before = {tuple(p) for p in list_pairs(features, thumbnails, near)}
    after = {tuple(p) for p in list_pairs(together, pictures, near)}
    planted = {(i, len(files) + 2 * i + k) for i in range(count) for k in (0, 1)}
    among = {(len(files) + 2 * i, len(files) + 2 * i + 1) for i in range(count)}
    print(  # noqa: T201
        f"planted copies: {len(planted & after)} of {len(planted)} pairs found "
        f"({sum((b - len(files)) % 2 == 0 for _, b in planted & after)} saved again, "
        f"{sum((b - len(files)) % 2 == 1 for _, b in planted & after)} resized); "
        f"{len(after - planted - among - before)} other pairs, and {len(before)} without planting"
    )


def list_pairs(features: Floats, thumbnails: Pixels, near_pixels: float) -> list[list[int]]:
    """List the pairs that count as copies by their pixels."""
    found = find_copies(find_neighbourhood(features), thumbnails, 0.0, near_pixels)
    pairs: list[list[int]] = found.places.tolist()
    return pairs


if __name__ == "__main__":
    main(tyro.cli(Options))

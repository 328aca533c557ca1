"""How the runtimes' answers differ on photographs."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from model.dataset.folder import scan_folder
from model.image.preprocess import read_square
from model.runtime.protocol import Floats, Runtime
from model.weights.checkpoint import Weights
from storage.parallel import split_batches

NEIGHBOURS = 6
IMAGES_PER_BATCH = 8


def measure_agreement(
    runtimes: Mapping[str, Runtime], weights: Weights, data: Path, count: int
) -> dict[str, dict[str, float]]:
    """Classify validation photographs with each runtime; compare with the first, torch.

    Returns, per runtime, the top-1 and top-5 error of ten crops, the largest change of a
    probability, the largest relative error of fc7, and the share of the six nearest of these
    photographs that are others if the query, or query and index, come from this runtime.
    """
    folder = scan_folder(data)
    random = np.random.default_rng(2012)
    chosen = [folder.val[i] for i in random.permutation(len(folder.val))[:count]]
    names = [known.folder for known in weights.classes]
    truth = np.array([names.index(one.path.split("/")[-2]) for one in chosen])
    config = weights.config
    probabilities: dict[str, list[Floats]] = {name: [] for name in runtimes}
    features: dict[str, list[Floats]] = {name: [] for name in runtimes}
    for group in split_batches(chosen, IMAGES_PER_BATCH):
        squares = [
            read_square(folder.root / one.path, side=config.side, resize=config.resize)
            for one in group
        ]
        for name, runtime in runtimes.items():
            found = runtime.run_ten_crops(np.stack(squares))
            probabilities[name].append(found.probabilities.mean(1))
            features[name].append(found.fc7)
    shares = {name: np.concatenate(some) for name, some in probabilities.items()}
    vectors = {name: np.concatenate(some) for name, some in features.items()}
    first = next(iter(runtimes))
    near = find_nearest(vectors[first], vectors[first])
    lengths = np.linalg.norm(vectors[first], axis=1)
    return {
        name: {
            "photographs": len(chosen),
            "top-1 error": measure_error(shares[name], truth, 1),
            "top-5 error": measure_error(shares[name], truth, 5),
            "probability": float(np.abs(shares[name] - shares[first]).max()),
            "fc7": float((np.linalg.norm(own - vectors[first], axis=1) / lengths).max()),
            "other neighbours, query": count_others(near, find_nearest(own, vectors[first])),
            "other neighbours, both": count_others(near, find_nearest(own, own)),
        }
        for name, own in vectors.items()
    }


def measure_error(probabilities: Floats, truth: Sequence[int] | object, count: int) -> float:
    """Return the share of images whose label is not among the most probable."""
    best = np.argsort(-probabilities, axis=1)[:, :count]
    return float(1 - (best == np.asarray(truth)[:, None]).any(axis=1).mean())


def find_nearest(queries: Floats, index: Floats) -> list[set[int]]:
    """Return each photograph's nearest others."""
    squares = (index.astype(np.float64) ** 2).sum(axis=1)
    distances = squares - 2 * queries.astype(np.float64) @ index.T.astype(np.float64)
    np.fill_diagonal(distances, np.inf)
    return [set(row) for row in np.argsort(distances, axis=1)[:, :NEIGHBOURS].tolist()]


def count_others(near: Sequence[set[int]], found: Sequence[set[int]]) -> float:
    """Return the share of neighbours that are not among the first ones."""
    pairs = zip(near, found, strict=True)
    return sum(len(b - a) for a, b in pairs) / max(1, sum(len(a) for a in near))

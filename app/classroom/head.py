"""A head: a linear classifier on the features of fc7, fitted in closed form.

Ridge regression on the classes, coded ±1, from features scaled to length one and a constant. It
needs no iterations, and what it would have said of each photograph had it not seen that one follows
from the same decomposition: with H the matrix that maps the targets y to the fitted values ŷ,
leaving out i gives (ŷ_i − H_ii y_i) / (1 − H_ii) (Allen's PRESS; *The Elements of Statistical
Learning*, §7.10).
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from index.vectors import Doubles, Floats
from model.attribution.occlusion import compute_softmax
from storage.files import replace_atomically

PENALTIES = tuple(float(penalty) for penalty in np.geomspace(1e-4, 10, 11))
TEMPERATURES = tuple(float(temperature) for temperature in np.geomspace(0.02, 5, 49))
METADATA_KEY = "head"
Labels = npt.NDArray[np.int64]


class HeadError(ValueError):
    """A head that cannot be read."""


@dataclass(frozen=True, kw_only=True)
class Head:
    """A fitted head, and how well it does on photographs that it was fitted without.

    weights: float64 [D + 1, classes]; the last row belongs to the constant. left_out: int64 [N],
    the class that it gives each photograph when fitted to all others. features: float32 [N, D], of
    fc7, unscaled. labels: int64 [N], the photographs' own classes. paths: of the photographs.
    identity: of the network's weights that computed the features.
    """

    identity: str
    classes: tuple[str, ...]
    paths: tuple[str, ...]
    weights: Doubles
    penalty: float
    temperature: float
    left_out: Labels
    features: Floats
    labels: Labels

    @property
    def correct(self) -> int:
        """How many photographs get their own class when left out."""
        return int((self.left_out == self.labels).sum())

    @property
    def largest_class(self) -> int:
        """The photographs of the largest class: so many are right if it is always named."""
        return int(np.bincount(self.labels).max())

    def compute_probabilities(self, features: Floats) -> Floats:
        """Compute the classes' probabilities: float32 [N, D] → float32 [N, classes]."""
        scores = scale_features(features) @ self.weights / self.temperature
        return compute_softmax(scores.astype(np.float32))

    def find_nearest(self, feature: Floats, count: int) -> list[tuple[int, float]]:
        """Return the photographs nearest to float32 [D]: their numbers and Euclidean distances."""
        distances = np.sqrt(((self.features - feature) ** 2).sum(1, dtype=np.float64))
        order = np.argsort(distances, kind="stable")[:count]
        return [(int(number), float(distances[number])) for number in order]


@dataclass(frozen=True, kw_only=True)
class Fit:
    """What is computed by `fit_ridge`; weights and left_out as in `Head`."""

    weights: Doubles
    penalty: float
    temperature: float
    left_out: Labels


def fit_ridge(features: Floats, labels: Labels, classes: int) -> Fit:
    """Fit the classes to float32 [N, D], N ≥ 2, by their numbers, int64 [N].

    The penalty is the one with the least squared error, and the temperature the one with the least
    cross-entropy, of the photographs left out one at a time.
    """
    scaled = scale_features(features)
    targets = np.where(np.arange(classes) == labels[:, None], 1.0, -1.0)
    values, vectors = np.linalg.eigh(scaled @ scaled.T)
    values = np.maximum(values, 0.0)
    projected = vectors.T @ targets

    def leave_out(penalty: float) -> Doubles:
        shrunk = values / (values + penalty)
        own = (vectors**2 @ shrunk)[:, None]
        left_out: Doubles = (vectors @ (shrunk[:, None] * projected) - own * targets) / (1 - own)
        return left_out

    scores = {penalty: leave_out(penalty) for penalty in PENALTIES}
    penalty = min(scores, key=lambda one: float(((scores[one] - targets) ** 2).mean()))
    dual = vectors @ (projected / (values + penalty)[:, None])
    return Fit(
        weights=scaled.T @ dual,
        penalty=penalty,
        temperature=min(
            TEMPERATURES, key=lambda one: compute_cross_entropy(scores[penalty] / one, labels)
        ),
        left_out=scores[penalty].argmax(1),
    )


def scale_features(features: Floats) -> Doubles:
    """Scale features to length one and add a constant: float32 [N, D] → float64 [N, D + 1]."""
    wide = features.astype(np.float64)
    lengths = np.linalg.norm(wide, axis=1, keepdims=True)
    return np.hstack([wide / np.maximum(lengths, 1e-12), np.ones((len(wide), 1))])


def compute_cross_entropy(scores: Doubles, labels: Labels) -> float:
    """Compute the mean cross-entropy of float64 [N, classes]."""
    own = compute_softmax(scores.astype(np.float32))[np.arange(len(labels)), labels]
    return float(-np.log(np.maximum(own, 1e-30)).mean())


def write_head_file(head: Head, file: Path) -> None:
    """Write a head atomically. Raises OSError."""
    described = {
        "identity": head.identity,
        "classes": head.classes,
        "paths": head.paths,
        "penalty": head.penalty,
        "temperature": head.temperature,
    }
    tensors: dict[str, npt.NDArray[Any]] = {
        "weights": head.weights,
        "left_out": head.left_out,
        "features": head.features,
        "labels": head.labels,
    }
    with replace_atomically(file) as part:
        save_file(tensors, part, {METADATA_KEY: json.dumps(described, ensure_ascii=False)})


def read_head_file(file: Path) -> Head:
    """Read a head. Raises FileNotFoundError if there is none, and HeadError if it is damaged."""
    if not file.exists():
        raise FileNotFoundError(file)
    try:
        with safe_open(file, framework="numpy") as opened:
            described: dict[str, Any] = json.loads(opened.metadata()[METADATA_KEY])
            tensors = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118
        return Head(
            identity=str(described["identity"]),
            classes=tuple(described["classes"]),
            paths=tuple(described["paths"]),
            penalty=float(described["penalty"]),
            temperature=float(described["temperature"]),
            **tensors,
        )
    except (SafetensorError, OSError, ValueError, KeyError, TypeError) as error:
        raise HeadError(f"{file.name} is damaged: {error}") from error

"""Vectors like those of fc7: not negative, half of them zero, in clusters."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from index.store import Index, open_version, write_version
from model.alexnet import FEATURES

Floats = npt.NDArray[np.float32]
Write = Callable[..., str]


def fc7_like(count: int, seed: int, clusters: int = 5) -> Floats:
    """Float32 [count, 4096]."""
    rng = np.random.default_rng(seed)
    centres = np.random.default_rng(0).normal(size=(clusters, FEATURES))
    noise = rng.normal(scale=0.3, size=(count, FEATURES))
    return np.maximum(centres[np.arange(count) % clusters] + noise, 0).astype(np.float32)


@pytest.fixture(scope="session")
def vectors() -> Callable[..., Floats]:
    """Makes vectors: of a count and a seed."""
    return fc7_like


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Writes a version with these vectors under `tmp_path`, and gives its name."""

    def write(features: Floats, ids: list[int] | None = None, weights: str = "w1") -> str:
        numbers = np.array(ids or range(1, len(features) + 1), np.int64)
        return write_version(
            tmp_path,
            weights=weights,
            data="/photographs",
            unreadable=0,
            listing="l1",
            ids=numbers,
            features=features,
        ).name

    return write


@pytest.fixture
def make_index(tmp_path: Path, write: Write) -> Callable[..., Index]:
    """Writes an index of these vectors and opens it."""
    return lambda features, ids=None: open_version(tmp_path, write(features, ids), "cpu")

"""Vectors like those of fc7: not negative, half of them zero, in clusters."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from index.draft import draft_version
from index.engines.options import SearchDevice
from index.engines.protocol import VersionData
from index.id_map import IdMap, write_id_map
from index.store import Index, open_version
from index.vectors import Vectors, write_shard
from model.network.config import FEATURES

Floats = npt.NDArray[np.float32]
Write = Callable[..., str]
CPU = SearchDevice(device="cpu")


def fc7_like(count: int, seed: int, clusters: int = 5) -> Floats:
    """Float32 [count, 4096]."""
    rng = np.random.default_rng(seed)
    centres = np.random.default_rng(0).normal(size=(clusters, FEATURES))
    noise = rng.normal(scale=0.3, size=(count, FEATURES))
    return np.maximum(centres[np.arange(count) % clusters] + noise, 0).astype(np.float32)


def open_shards(folder: Path, values: Floats, dtype: str = "float16") -> Vectors:
    """Write vectors in two shards and open them."""
    folder.mkdir(exist_ok=True)
    half = len(values) // 2 + 1
    parts = [part for part in (values[:half], values[half:]) if len(part)]
    shards = [
        write_shard(folder / f"vectors-{number}.npy", [part], dtype)
        for number, part in enumerate(parts)
    ]
    return Vectors(folder, shards, dtype)


@pytest.fixture(scope="session")
def open_vectors() -> Callable[..., Vectors]:
    """Writes vectors of a dtype into a folder, in two shards, and opens them."""
    return open_shards


@pytest.fixture(scope="session")
def version_of() -> Callable[..., VersionData]:
    """Makes a version of vectors in a folder, with an image for each of `rows`, by default all."""

    def make(folder: Path, vectors: Vectors, rows: Any = None) -> VersionData:
        folder.mkdir(exist_ok=True)
        live = np.arange(len(vectors)) if rows is None else np.asarray(rows, np.int64)
        lists = np.arange(len(live)), live, np.zeros(len(live), np.int32)
        if len(live):
            write_id_map(folder, *lists)
        id_map = IdMap(*lists)
        return VersionData(name="v", folder=folder, vectors=vectors, id_map=id_map, device=CPU)

    return make


@pytest.fixture(scope="session")
def vectors() -> Callable[..., Floats]:
    """Makes vectors of a count and a seed."""
    return fc7_like


def write_version(
    root: Path,
    features: Floats,
    ids: Sequence[int] | None = None,
    *,
    rows: Sequence[int] | None = None,
    classes: Sequence[int] | None = None,
    dtype: str = "float32",
    shard: int = 10**9,
    weights: str = "w1",
    **more: Any,
) -> str:
    """Write a version of kind exact, by default with a row for each image; give its name."""
    numbers = np.array(ids or range(1, len(features) + 1), np.int64)
    with draft_version(root) as draft:
        draft.shards += [
            write_shard(
                draft.folder / f"vectors-{start}.npy", [features[start : start + shard]], dtype
            )
            for start in range(0, len(features), shard)
        ]
        places = np.arange(len(numbers)) if rows is None else np.array(rows, np.int64)
        of = np.zeros(len(numbers), np.int32) if classes is None else np.array(classes, np.int32)
        write_id_map(draft.folder, numbers, places, of)
        facts = {"data": "/photographs", "unreadable": 0, "listing": "l1", "target": 0.95}
        facts |= {"kind": "exact", "vectors": len(np.unique(places)), "images": len(numbers)}
        return draft.commit(weights=weights, dtype=dtype, **facts | more).name


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Writes a version with these vectors under `tmp_path`, and gives its name."""
    return lambda *args, **kwargs: write_version(tmp_path, *args, **kwargs)


@pytest.fixture
def make_index(tmp_path: Path, write: Write) -> Callable[..., Index]:
    """Writes an index of these vectors and opens it."""
    return lambda *args, **kwargs: open_version(tmp_path, write(*args, **kwargs))

"""Every kind is built, opened and chosen through the one registry."""

from collections.abc import Callable, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from index.engines import autoencoder
from index.engines.factory import (
    KINDS,
    MAX_EXACT_ROWS,
    IndexSpec,
    build_engine,
    choose_kind,
    open_engine,
)
from index.engines.options import EngineOptions
from index.engines.protocol import RowFilter, VersionData
from index.manifest import Manifest, Shard, StoreError, write_manifest
from index.projection import open_projections
from index.vectors import Vectors
from storage.progress import ignore_progress

COUNT = 90
GIB = 1 << 30
SMALL = EngineOptions(dimensions=16, bytes=8, bits=64)
Floats = npt.NDArray[np.float32]
VersionOf = Callable[..., VersionData]


@pytest.fixture(scope="module")
def stored(
    vectors: Callable[..., Floats],
    open_vectors: Callable[..., Vectors],
    tmp_path_factory: pytest.TempPathFactory,
) -> Vectors:
    return open_vectors(tmp_path_factory.mktemp("vectors"), vectors(COUNT, seed=1))


def manifest(kind: str, parameters: dict[str, Any], shards: Sequence[Shard] = ()) -> Manifest:
    return Manifest(
        name="v", weights="w", data="/d", created="", made_by="", images=COUNT, vectors=COUNT,
        unreadable=0, listing="", dtype="float16", kind=kind, target=0.01, shards=[*shards],
        files={}, parameters=parameters,
    )  # fmt: skip


def with_projections(version: VersionData) -> VersionData:
    """The version as it is opened from its folder."""
    return replace(version, projections=open_projections(version.folder, version.id_map.live_rows))


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "milvus"])
def test_a_kind_that_was_built_can_be_opened_and_updated(
    kind: str,
    stored: Vectors,
    version_of: VersionOf,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(autoencoder, "MIN_MAX_STEPS", (2, 2))
    version = version_of(tmp_path / "first", stored)
    spec = IndexSpec(kind=kind, target=0.01, options=SMALL)
    built = build_engine(spec, version, ignore_progress)
    assert (built.kind, built.notes) == (kind, [])
    found = replace(manifest(kind, built.parameters, stored.shards), recall=built.recall)
    engine = open_engine(found, with_projections(version))
    if kind == "exact":
        assert engine is None
        return
    assert engine is not None
    assert 8 in engine.propose(stored.take([8]), 30, RowFilter(), 0)
    assert built.recall["recall@6"] >= 0.01
    write_manifest(found, version.folder)
    # What an earlier version was trained to serves again, unless the index has grown a lot.
    later = version_of(tmp_path / "later", stored, range(10, COUNT))
    again = build_engine(spec, later, ignore_progress, earlier=(version.folder, found))
    assert again.parameters["trained_for"] == COUNT
    updated = open_engine(manifest(kind, again.parameters), with_projections(later))
    assert updated is not None
    proposed = updated.propose(stored.take([50]), COUNT, RowFilter(), updated.levels - 1)
    assert sorted(proposed[proposed >= 0].tolist()) == [*range(10, COUNT)]
    # So many changes are measured; a single one is only counted.
    assert (again.parameters["measured_for"], again.parameters["changed"]) == (COUNT - 10, 0)
    one_less = version_of(tmp_path / "one less", stored, range(1, COUNT))
    counted = build_engine(spec, one_less, ignore_progress, earlier=(version.folder, found))
    assert (counted.parameters["measured_for"], counted.parameters["changed"]) == (COUNT, 1)
    assert counted.recall == built.recall
    stricter = replace(spec, target=0.02)
    measured = build_engine(stricter, one_less, ignore_progress, earlier=(version.folder, found))
    assert measured.parameters["measured_for"] == COUNT - 1
    few = version_of(tmp_path / "few", stored, range(20))
    anew = build_engine(spec, few, ignore_progress, earlier=(version.folder, found))
    assert anew.parameters["trained_for"] == 20


def test_a_kind_that_misses_the_recall_is_replaced_by_exact(
    stored: Vectors, version_of: VersionOf, tmp_path: Path, vectors: Callable[..., Floats]
) -> None:
    version = version_of(tmp_path, stored)
    spec = IndexSpec(kind="pq", target=1.0, options=replace(SMALL, dimensions=1, bytes=1, lists=1))
    others = np.random.default_rng(0).random((100, 4096), np.float32)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("index.engines.tuning.CANDIDATE_COUNTS", (6,))
        built = build_engine(spec, version, ignore_progress, held_out=others)
    assert (built.kind, built.parameters, len(built.notes)) == ("exact", {}, 1)
    assert list(tmp_path.glob("candidates.*")) == []


def test_what_cannot_be_built_is_refused(
    stored: Vectors, version_of: VersionOf, tmp_path: Path
) -> None:
    with pytest.raises(StoreError, match="annoy"):
        build_engine(IndexSpec(kind="annoy"), version_of(tmp_path, stored), ignore_progress)
    with pytest.raises(StoreError, match="annoy"):
        open_engine(manifest("annoy", {}), version_of(tmp_path, stored))
    with pytest.raises(StoreError, match="nothing to index"):
        build_engine(IndexSpec(kind="ivf"), version_of(tmp_path, stored, []), ignore_progress)
    with pytest.raises(StoreError, match="INDEX_URL"):
        open_engine(manifest("milvus", {}), version_of(tmp_path, stored))
    for wrong in ({"bytes": 33}, {"dimensions": 0}, {"links": 1}, {"lists": -1}):
        with pytest.raises(StoreError, match=next(iter(wrong))):
            EngineOptions(**wrong)


def test_every_option_belongs_to_a_kind() -> None:
    options = {option for kind in KINDS.values() for option in kind.options}
    assert options == {known.name for known in fields(EngineOptions)}


@pytest.mark.parametrize(
    ("count", "memory", "dtype", "kind"),
    [
        (1, GIB, "float32", "exact"),
        (MAX_EXACT_ROWS, 16 * GIB, "float32", "exact"),
        (MAX_EXACT_ROWS + 1, 16 * GIB, "float32", "pq"),
        (1_281_167, 1024 * GIB, "float32", "pq"),
        (MAX_EXACT_ROWS, GIB, "float32", "pq"),
        (16384, GIB, "float32", "exact"),
        (16385, GIB, "float32", "pq"),
        (16385, GIB, "float16", "exact"),
    ],
)
def test_the_kind_follows_size_and_memory(count: int, memory: int, dtype: str, kind: str) -> None:
    choice = choose_kind(count, memory, dtype)
    assert choice.kind == kind
    assert f"{count:,}" in choice.reason

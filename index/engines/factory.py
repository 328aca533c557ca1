"""The registry of kinds: what each kind of engine is for, and how it is trained and opened.

A new kind needs one more entry in `KINDS`. All other code uses `build_engine` when a version is
built, `open_engine` when it is served, and the engine's `propose` for every query.
"""

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

from index.engines.exact import open_exact
from index.engines.milvus import open_milvus
from index.engines.milvus_collections import train_milvus
from index.engines.options import EngineOptions
from index.engines.protocol import EarlierEngine, SearchEngine, VersionData
from index.engines.tuning import finds_new_rows, tune_effort, tune_within_classes
from index.id_map import read_id_map
from index.manifest import REBUILD_HINT, Manifest, StoreError
from index.projection import Projections, open_projections, write_projections
from index.vectors import Floats, map_kept_rows
from model.network.config import FEATURES
from storage.progress import Report

Parameters = dict[str, Any]
"""What the manifest records of a kind: numbers and strings."""
MAX_GROWTH = 2
"""Factor by which an index may grow or shrink before its engine is trained anew."""
MAX_UNMEASURED_SHARE = 0.02
"""Share of the vectors that may change before an updated engine's recall is measured again."""
MAX_EXACT_ROWS = 20_000
"""Vectors up to which `exact` is chosen."""
MIN_PROJECTED_ROWS = 2048
"""Vectors from which projections are worth their file: below, reading all takes a few ms."""
MAX_EXACT_MEMORY_SHARE = 0.25
"""Share of the machine's memory that the vectors of `exact`, which must stay in it, may fill."""


@dataclass(frozen=True, kw_only=True)
class Kind:
    """A kind of engine.

    purpose: what it does and when to choose it. options: the fields of `EngineOptions` it reads.
    train: writes the engine's files to the version's folder and returns its parameters; None if
    there are no files. update: like `train`, but reuses what an earlier version has; None if every
    version is trained anew. open: returns the engine for the parameters. All three raise
    StoreError, and SearchError if a server cannot be reached; train and update also raise OSError.
    disk_bytes: a generous estimate of its files' bytes per image.
    """

    name: str
    purpose: str
    options: tuple[str, ...] = ()
    train: Callable[[VersionData, EngineOptions, Report], Parameters] | None = None
    update: Callable[[VersionData, EarlierEngine, Report], Parameters] | None = None
    open: Callable[[VersionData, Mapping[str, Any]], SearchEngine | None]
    disk_bytes: int = 0
    needs_projections: bool = False


def call_engine(module: str, name: str, *arguments: Any) -> Any:
    """Call a function of a module of index/engines, which is imported when it is first needed.

    So a server imports FAISS, 100 MB in each process, for the kinds that search with it, and torch
    for `binary` alone.
    """
    return getattr(import_module(f"index.engines.{module}"), name)(*arguments)


KINDS: Mapping[str, Kind] = {
    kind.name: kind
    for kind in (
        Kind(
            name="exact",
            purpose="compares every vector; for up to 20,000 images",
            open=open_exact,
        ),
        Kind(
            name="ivf",
            purpose="sorts reduced vectors into lists and searches the nearest lists",
            options=("lists", "dimensions", "seed"),
            train=partial(call_engine, "faiss_train", "train_faiss", "ivf"),
            update=partial(call_engine, "faiss_train", "update_faiss", "ivf"),
            open=partial(call_engine, "faiss_search", "open_faiss", "ivf"),
            disk_bytes=400,
        ),
        Kind(
            name="hnsw",
            purpose="walks a graph of reduced vectors",
            options=("links", "dimensions", "seed"),
            train=partial(call_engine, "graph", "train_graph"),
            update=partial(call_engine, "graph", "update_graph"),
            open=partial(call_engine, "graph", "open_graph"),
            disk_bytes=600,
            needs_projections=True,
        ),
        Kind(
            name="pq",
            purpose="lists of short codes instead of vectors; for large sets and little memory",
            options=("lists", "dimensions", "bytes", "seed"),
            train=partial(call_engine, "faiss_train", "train_faiss", "pq"),
            update=partial(call_engine, "faiss_train", "update_faiss", "pq"),
            open=partial(call_engine, "faiss_search", "open_faiss", "pq"),
            disk_bytes=150,
        ),
        Kind(
            name="binary",
            purpose="compares the bits that an autoencoder makes of a vector (§6.1)",
            options=("bits", "seed"),
            train=partial(call_engine, "binary", "train_binary"),
            update=partial(call_engine, "binary", "update_binary"),
            open=partial(call_engine, "binary", "open_binary"),
            disk_bytes=150,
        ),
        Kind(
            name="milvus",
            purpose="a Milvus server, for what one machine cannot hold",
            train=train_milvus,
            open=open_milvus,
        ),
    )
}


@dataclass(frozen=True, kw_only=True)
class IndexSpec:
    """The kind of an index, its options, and the recall@6 it must reach, 0–1."""

    kind: str
    target: float = 0.95
    options: EngineOptions = field(default_factory=EngineOptions)


@dataclass(frozen=True, kw_only=True)
class BuiltEngine:
    """A trained kind as the manifest records it, and notes for the user."""

    kind: str
    parameters: Parameters = field(default_factory=dict)
    recall: dict[str, float] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


def build_engine(
    spec: IndexSpec,
    version: VersionData,
    report: Report,
    earlier: tuple[Path, Manifest] | None = None,
    held_out: Floats | None = None,
) -> BuiltEngine:
    """Train the kind for a version, and tune its effort to the target recall.

    A kind that cannot reach the target is replaced by `exact`.

    earlier: the folder and manifest of an earlier version, whose training is reused if its kind is
    the same and the index has neither grown nor shrunk too much. held_out: float32 [N, 4096] of
    images that are not in the index, to tune the effort with. Raises StoreError, SearchError and
    OSError.
    """
    kind = find_kind(spec.kind)
    if not len(version.id_map.live_rows):
        raise StoreError("No image could be read, so there is nothing to index")
    large = len(version.id_map.live_rows) >= MIN_PROJECTED_ROWS
    if kind.needs_projections or (large and kind.name != "milvus"):
        projections = project_rows(version, spec.options, report, earlier)
        version = replace(version, projections=projections)
    if kind.train is None:
        return BuiltEngine(kind=kind.name)
    parameters, reused = train_or_update(kind, version, spec.options, report, earlier)
    engine = kind.open(version, parameters)
    assert engine is not None
    if reused and earlier is not None:
        changed = find_unmeasured_change(engine, version, earlier[1], spec.target)
        if changed is not None:
            parameters |= {"changed": changed}
            return BuiltEngine(
                kind=kind.name, parameters=parameters, recall=dict(earlier[1].recall)
            )
    tuned = tune_effort(
        engine,
        version.vectors,
        version.id_map.live_rows,
        spec.target,
        held_out=held_out,
        report=report,
    )
    if kind.name != "milvus" and not tuned.reached:
        for file in version.folder.glob("candidates.*"):
            file.unlink()
        note = (
            f"The kind {kind.name} reaches a recall@6 of at most {tuned.recall['recall@6']:.3f} "
            f"here, but {spec.target} was requested: every vector is compared instead (exact)."
        )
        return BuiltEngine(kind="exact", notes=[note])
    tuned = tune_within_classes(engine, version.vectors, version.id_map, tuned, spec.target)
    parameters |= {"effort": tuned.effort, "candidates": tuned.candidates}
    parameters |= {"measured_for": len(version.id_map.live_rows), "changed": 0}
    return BuiltEngine(kind=kind.name, parameters=parameters, recall=tuned.recall)


def find_unmeasured_change(
    engine: SearchEngine, version: VersionData, earlier: Manifest, target: float
) -> int | None:
    """Count the vectors that were added or have gone since the recall was measured.

    None if it has to be measured again: because these are too many, or because the effort does not
    find the neighbours of the new ones. So an update costs in proportion to what changed, and the
    measurement, which costs in proportion to the whole, is shared by many. Raises SearchError.
    """
    parameters, rows = earlier.parameters, version.id_map.live_rows
    measured_for = int(parameters.get("measured_for", 0))
    if target != earlier.target or not measured_for:
        return None
    is_new = map_kept_rows(earlier.shards, version.vectors.shards)[rows] < 0
    gone = max(0, earlier.vectors - int((~is_new).sum()))
    changed = int(parameters["changed"]) + int(is_new.sum()) + gone
    if changed > MAX_UNMEASURED_SHARE * measured_for:
        return None
    finds = finds_new_rows(
        engine,
        version.vectors,
        version.projections,
        version.id_map,
        rows[is_new],
        int(parameters["effort"]),
        int(parameters["candidates"]),
        target,
    )
    return changed if finds else None


def project_rows(
    version: VersionData,
    options: EngineOptions,
    report: Report,
    earlier: tuple[Path, Manifest] | None,
) -> Projections:
    """Project a version's live rows, with an earlier version's axes if they still fit."""
    rows, dimensions, known = version.id_map.live_rows, options.dimensions, None
    if earlier is not None:
        folder, manifest = earlier
        before = open_projections(folder, read_id_map(folder, manifest).live_rows)
        if before and len(rows) <= MAX_GROWTH * before.basis.fitted <= MAX_GROWTH**2 * len(rows):
            known = before, map_kept_rows(manifest.shards, version.vectors.shards)
            dimensions = before.basis.dimensions
    return write_projections(
        version.folder,
        version.vectors,
        rows,
        dimensions,
        options.seed,
        earlier=known,
        report_done=report("Projecting", len(rows)),
    )


def train_or_update(
    kind: Kind,
    version: VersionData,
    options: EngineOptions,
    report: Report,
    earlier: tuple[Path, Manifest] | None,
) -> tuple[Parameters, bool]:
    """Train a kind, or reuse an earlier version's training.

    Returns the parameters, and whether the training was reused.
    """
    assert kind.train is not None
    if kind.update is None:
        return kind.train(version, options, report), False
    count = len(version.id_map.live_rows)
    if earlier is not None and earlier[1].kind == kind.name:
        parameters = dict(earlier[1].parameters)
        trained_for = int(parameters.pop("trained_for", 0))
        if count <= MAX_GROWTH * trained_for <= MAX_GROWTH**2 * count:
            before = EarlierEngine(
                folder=earlier[0], shards=earlier[1].shards, parameters=parameters
            )
            updated = kind.update(version, before, report)
            return updated | {"trained_for": trained_for}, True
    return kind.train(version, options, report) | {"trained_for": count}, False


def open_engine(manifest: Manifest, version: VersionData) -> SearchEngine | None:
    """Open a version's engine. Raises StoreError, and SearchError if Milvus cannot be reached."""
    return find_kind(manifest.kind).open(version, manifest.parameters)


def find_kind(name: str) -> Kind:
    """Look up a kind by name. Raises StoreError if there is none."""
    if name not in KINDS:
        known = ", ".join(KINDS)
        raise StoreError(f"There is no kind of index {name}, only {known}; {REBUILD_HINT}")
    return KINDS[name]


@dataclass(frozen=True, kw_only=True)
class KindChoice:
    """A kind, and a sentence that says why."""

    kind: str
    reason: str


def choose_kind(count: int, memory: int | None = None, dtype: str = "float32") -> KindChoice:
    """Choose a kind for `count` vectors and `memory` bytes of memory, by default this machine's."""
    memory = query_physical_memory() if memory is None else memory
    needed = count * FEATURES * np.dtype(dtype).itemsize
    if count > MAX_EXACT_ROWS:
        return KindChoice(
            kind="pq",
            reason=f"{count:,} vectors are too many for an exhaustive search "
            f"(more than {MAX_EXACT_ROWS:,}).",
        )
    if needed > MAX_EXACT_MEMORY_SHARE * memory:
        return KindChoice(
            kind="pq",
            reason=f"{count:,} vectors take {needed / 2**20:,.0f} MiB, more than "
            f"{MAX_EXACT_MEMORY_SHARE:.0%} of the {memory / 2**20:,.0f} MiB of memory.",
        )
    return KindChoice(
        kind="exact",
        reason=f"{count:,} vectors are few enough for an exhaustive search "
        f"(up to {MAX_EXACT_ROWS:,}).",
    )


def query_physical_memory() -> int:
    """Query this machine's memory in bytes."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")

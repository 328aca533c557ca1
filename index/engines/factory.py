"""Which engine proposes an index's candidates: FAISS of some kind, Milvus, or none."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from index.candidates import SearchEngine
from index.engines import device, kinds, milvus, milvus_filling
from index.engines.tuning import tune_effort
from index.exact import ExactSearch
from index.id_map import IdMap
from index.manifest import REBUILD_HINT, Manifest, StoreError
from index.placing import SearchDevice
from index.progress import Report
from index.vectors import Floats, Vectors

KINDS = (*kinds.KINDS, "milvus")
MAX_GROWTH = 2
"""How many times its training set an index may grow to, until the kind is trained anew."""


@dataclass(frozen=True, kw_only=True)
class IndexSpec:
    """What is asked of an index: its kind, its options, the recall@6 it has to reach, 0–1."""

    kind: str
    target: float = 0.95
    options: kinds.EngineOptions = field(default_factory=kinds.EngineOptions)


@dataclass(frozen=True, kw_only=True)
class BuiltEngine:
    """What was made: facts for the manifest, and what there is to say of it."""

    kind: str
    parameters: dict[str, Any]
    recall: dict[str, float]
    notes: list[str]


def build_engine(
    wanted: IndexSpec,
    name: str,
    folder: Path,
    vectors: Vectors,
    members: IdMap,
    placing: SearchDevice,
    report: Report,
    before: tuple[Path, Manifest] | None = None,
    held_out: Floats | None = None,
) -> BuiltEngine:
    """Make what the kind needs for the version `name` in its folder, and choose its effort.

    held_out: float32 [N, 4096] of images that are not in the index, to choose the effort by.

    `before`, an earlier version's folder and manifest, spares the training where its kind is the
    same and its training set not too small. Raises StoreError, SearchError and OSError.
    """
    if wanted.kind == "exact":
        return BuiltEngine(kind="exact", parameters={}, recall={}, notes=[])
    if wanted.kind == "milvus":
        step = report("Sending the vectors to Milvus", len(members.live_rows))
        parameters = milvus_filling.fill_collection(placing.url, name, vectors, members, step)
    else:
        parameters = made_by_faiss(wanted, folder, vectors, members, report, before)
    candidates = opened(wanted.kind, parameters, name, folder, placing)
    rows = members.live_rows
    found = tune_effort(candidates, vectors, rows, wanted.target, held_out=held_out, report=report)
    if wanted.kind != "milvus" and not found.reached:
        for file in folder.glob("candidates.*"):
            file.unlink()
        said = (
            f"The kind {wanted.kind} reaches a recall@6 of {found.recall['recall@6']:.3f} at most "
            f"here, and {wanted.target} was asked for: every vector is compared instead (exact)."
        )
        return BuiltEngine(kind="exact", parameters={}, recall={}, notes=[said])
    parameters |= {"effort": found.effort, "candidates": found.candidates}
    return BuiltEngine(kind=wanted.kind, parameters=parameters, recall=found.recall, notes=[])


def made_by_faiss(
    wanted: IndexSpec,
    folder: Path,
    vectors: Vectors,
    members: IdMap,
    report: Report,
    before: tuple[Path, Manifest] | None,
) -> dict[str, Any]:
    """Train the kind and add the vectors, or add them to what was trained before."""
    some = live_mask(vectors, members)
    if before is not None and before[1].kind == wanted.kind:
        trained = int(before[1].parameters.get("trained_for", 0))
        if len(members.live_rows) <= MAX_GROWTH * trained <= MAX_GROWTH**2 * len(members.live_rows):
            kept = {k: v for k, v in before[1].parameters.items() if k != "trained_for"}
            made = kinds.update_from(wanted.kind, before[0], vectors, some, folder, kept, report)
            return made | {"trained_for": trained}
    made = kinds.train(wanted.kind, vectors, some, folder, wanted.options, report)
    return made | {"trained_for": len(members.live_rows)}


def open_engine(
    folder: Path, manifest: Manifest, vectors: Vectors, members: IdMap, placing: SearchDevice
) -> SearchEngine | None:
    """What proposes for a version; None where every vector is compared on the CPU.

    Raises StoreError.
    """
    if manifest.kind not in KINDS:
        raise StoreError(f"{folder} is of an unknown kind, {manifest.kind}; {REBUILD_HINT}")
    if manifest.kind == "exact":
        return open_exact_on_gpu(vectors, members, placing)
    return opened(manifest.kind, manifest.parameters, manifest.name, folder, placing)


def open_exact_on_gpu(
    vectors: Vectors, members: IdMap, placing: SearchDevice
) -> SearchEngine | None:
    """A comparison with every vector on GPUs that have room; None for the CPU's."""
    needed = device.gpu_bytes_needed("exact", len(members.live_rows), {}, placing.float16)
    placement = device.place_index(placing.device, "exact", needed, placing.float16)
    if not placement.gpus:
        return None
    return device.open_exact_on_gpus(
        vectors, live_mask(vectors, members), ExactSearch.for_id_map(vectors, members), placement
    )


def opened(
    kind: str, parameters: dict[str, Any], name: str, folder: Path, placing: SearchDevice
) -> SearchEngine:
    """What proposes for a version of any kind but exact. Raises StoreError."""
    if kind != "milvus":
        return kinds.open_candidates(kind, folder, parameters, placing)
    if not placing.url:
        raise StoreError(f"{name} lies in Milvus; set INDEX_URL to the address of its server")
    return milvus.open_milvus(placing.url, name, parameters)


def live_mask(vectors: Vectors, members: IdMap) -> npt.NDArray[np.bool_] | None:
    """Which rows an image points to: bool, a row each; None when all are."""
    if len(members.live_rows) == len(vectors):
        return None
    alive = np.zeros(len(vectors), bool)
    alive[members.live_rows] = True
    return alive

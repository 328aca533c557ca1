"""Where FAISS searches: on a GPU when it sees one with room enough, on several, or on the CPU."""

import logging
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import faiss
import torch

from index.candidates import RowFilter, SearchEngine
from index.engines.reduction import Mask, live_chunks, live_rows
from index.vectors import Floats, Ids, Vectors
from model.config import FEATURES

log = logging.getLogger(__name__)
RESERVED_BYTES = 2 << 30
"""Bytes of each GPU left to the network and to FAISS's own work space."""
MAX_GPU_NEIGHBOURS = 2048
"""The most candidates, and the most lists looked into, that FAISS's GPU kernels know."""
GPU_KINDS = ("exact", "ivf", "pq")
"""Kinds that FAISS searches on GPUs."""


@dataclass(frozen=True, kw_only=True)
class Placement:
    """Numbers of the GPUs that the vectors go to, none for the CPU, and why.

    Several GPUs hold a part of the vectors each. float16: whether in half precision.
    """

    gpus: tuple[int, ...] = ()
    float16: bool = False
    reason: str

    @property
    def where(self) -> str:
        """cpu, gpu or gpus."""
        return ("cpu", "gpu", "gpus")[min(len(self.gpus), 2)]


def choose_placement(
    asked: str, kind: str, needed: int, free: Sequence[int], float16: bool = False
) -> Placement:
    """Decide for an index of `needed` bytes, and `free` bytes on each GPU that FAISS sees.

    asked: `cpu`; `gpu`, one; `gpus`, parts on as many as there are; `auto`, one, or where one
    has no room the fewest that have.
    """
    if asked not in ("auto", "cpu", "gpu", "gpus"):
        raise ValueError(f"the place of an index is auto, cpu, gpu or gpus, not {asked!r}")
    if asked == "cpu":
        return Placement(reason="that is how it is set")
    if kind not in GPU_KINDS:
        return Placement(reason=f"FAISS searches the kind {kind} on no GPU")
    if not free:
        return Placement(reason="FAISS sees no GPU")
    roomy = sorted(range(len(free)), key=lambda gpu: (-free[gpu], gpu))
    counts = {"gpu": [1], "gpus": [*range(len(free), 0, -1)], "auto": [*range(1, len(free) + 1)]}
    for count in counts[asked]:
        if -(-needed // count) + RESERVED_BYTES <= free[roomy[count - 1]]:
            gpus = tuple(sorted(roomy[:count]))
            return Placement(gpus=gpus, float16=float16, reason=explain_fit(needed, gpus))
    return Placement(
        reason=f"it needs {format_mib(needed)} and {explain_shortage(asked, free, roomy)}"
    )


def place_index(asked: str, kind: str, needed: int, float16: bool = False) -> Placement:
    """`choose_placement` with what is free now; where it is the CPU, the log says why."""
    placement = choose_placement(asked, kind, needed, free_gpu_bytes(), float16)
    if not placement.gpus:
        level = logging.WARNING if asked in ("gpu", "gpus") else logging.INFO
        log.log(level, "The index is searched on the CPU: %s", placement.reason)
    return placement


def explain_fit(needed: int, gpus: tuple[int, ...]) -> str:
    """Why there: because there is room."""
    if len(gpus) == 1:
        return f"GPU {gpus[0]} has room for {format_mib(needed)}"
    names = ", ".join(map(str, gpus))
    return f"the GPUs {names} have room for a part each of {format_mib(needed)}"


def explain_shortage(asked: str, free: Sequence[int], roomy: Sequence[int]) -> str:
    """What there is too little of."""
    if asked == "gpu" or len(free) == 1:
        spare = f"{format_mib(RESERVED_BYTES)} of them to spare"
        return f"GPU {roomy[0]} has {format_mib(free[roomy[0]])} free, {spare}"
    spare = f"{format_mib(RESERVED_BYTES)} of each to spare"
    return f"the {len(free)} GPUs have {format_mib(sum(free))} free, {spare}"


def format_mib(count: int) -> str:
    """Bytes for people."""
    return f"{count / 2**20:,.0f} MiB"


def gpu_bytes_needed(kind: str, rows: int, shape: Mapping[str, int], float16: bool) -> int:
    """Bytes of a GPU's memory that an index takes, all its rows on one.

    shape: of inverted lists, their `dimensions`, `lists` and `bytes` of a code.
    """
    if kind == "exact":
        # The squared norms lie beside the vectors.
        return rows * (FEATURES * (2 if float16 else 4) + 4)
    if kind not in GPU_KINDS:
        return 0
    dimensions, lists, row = (int(shape[name]) for name in ("dimensions", "lists", "bytes"))
    # Every row with its 8-byte number; lists grow by doubling at worst; the centres.
    return 2 * rows * (row + 8) + 4 * lists * (dimensions + 1)


def free_gpu_bytes() -> tuple[int, ...]:
    """Free memory of each GPU that FAISS sees; none where torch cannot tell."""
    if not torch.cuda.is_available():
        return ()
    return tuple(torch.cuda.mem_get_info(gpu)[0] for gpu in range(faiss.get_num_gpus()))


def copy_to_gpus(index: Any, placement: Placement) -> Any:
    """A copy of an inverted index on its GPUs; None, with a warning, when that fails."""
    try:
        options = faiss.GpuMultipleClonerOptions()
        options.shard, options.useFloat16 = True, placement.float16
        resources = [faiss.StandardGpuResources() for _ in placement.gpus]
        copy = faiss.index_cpu_to_gpu_multiple_py(resources, index, options, list(placement.gpus))
    except (RuntimeError, AttributeError) as error:
        log.warning("The index is searched on the CPU: it cannot go to the GPU: %s", error)
        return None
    log.info("The index is searched on %s: %s", placement.where, placement.reason)
    return copy


def open_exact_on_gpus(
    vectors: Vectors, alive: Mask | None, otherwise: SearchEngine, placement: Placement
) -> SearchEngine:
    """The exact search on its GPUs; `otherwise`, with a warning, where that cannot be."""
    if not placement.gpus:
        return otherwise
    try:
        return GpuExactSearch(vectors, alive, otherwise, placement)
    except (RuntimeError, AttributeError) as error:
        log.warning("The index is searched on the CPU: it cannot go to the GPU: %s", error)
        return otherwise


class GpuExactSearch:
    """Every living vector on one GPU, or a part of them on each of several.

    What a GPU cannot do is left to `otherwise`: a view of some rows, more than 2048 candidates,
    and everything once a GPU has failed.
    """

    levels = 1

    def __init__(
        self, vectors: Vectors, alive: Mask | None, otherwise: SearchEngine, placement: Placement
    ) -> None:
        """Copy the vectors part by part. Raises RuntimeError when a GPU fails."""
        # Half precision of what lies in float32 loses digits, so the nearest may be missed.
        self.exhaustive = vectors.dtype == "float16" or not placement.float16
        self.otherwise, self.lock = otherwise, threading.Lock()
        self.rows = live_rows(vectors, alive)
        self.resources = [faiss.StandardGpuResources() for _ in placement.gpus]
        self.flats = [
            empty_gpu_index(gpu, resources, placement.float16)
            for gpu, resources in zip(placement.gpus, self.resources, strict=True)
        ]
        self.failed = False
        share = -(-len(self.rows) // len(self.flats))
        done = 0
        for _, values in live_chunks(vectors, alive):
            while len(values):
                number = done // share
                part = values[: (number + 1) * share - done]
                self.flats[number].add(part)
                done, values = done + len(part), values[len(part) :]
        self.share = share
        log.info("The index is searched on %s: %s", placement.where, placement.reason)

    def propose(self, queries: Floats, count: int, view: RowFilter, effort: int) -> Ids:
        """As `SearchEngine.propose`."""
        if not self.failed and view.rows is None and count <= MAX_GPU_NEIGHBOURS:
            # A GPU's work space is for one search at a time.
            with self.lock:
                try:
                    return self.ask(queries, count)
                except RuntimeError as error:
                    log.warning("The index is searched on the CPU: the GPU failed: %s", error)
                    self.failed, self.flats = True, []
        return self.otherwise.propose(queries, count, view, effort)

    def ask(self, queries: Floats, count: int) -> Ids:
        """The nearest of every GPU, merged. Raises RuntimeError when one fails."""
        if self.failed:
            raise RuntimeError("it failed for another thread")
        best = faiss.ResultHeap(len(queries), count)
        for number, flat in enumerate(self.flats):
            distances, places = flat.search(queries, count)
            places[places >= 0] += number * self.share
            best.add_result(distances, places)
        best.finalize()
        found: Ids = best.I
        found[found >= 0] = self.rows[found[found >= 0]]
        return found


def empty_gpu_index(gpu: int, resources: Any, float16: bool) -> Any:
    """An empty flat index on a GPU."""
    config = faiss.GpuIndexFlatConfig()
    config.device, config.useFloat16 = gpu, float16
    return faiss.GpuIndexFlatL2(resources, FEATURES, config)

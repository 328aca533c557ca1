"""Where FAISS searches: on one GPU, on several that share the vectors, or on the CPU."""

import logging
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from index.engines.options import SEARCH_DEVICES, SearchDevice
from index.engines.protocol import RowFilter, SearchEngine
from index.vectors import Floats, Ids
from model.network.config import FEATURES
from storage.machine import list_gpu_devices

log = logging.getLogger(__name__)
RESERVED_BYTES = 2 << 30
"""Bytes of each GPU left for the network and for FAISS's scratch space."""
MAX_GPU_NEIGHBOURS = 2048
"""Limit of FAISS's GPU kernels, for candidates and for lists searched."""
GPU_KINDS = ("exact", "ivf", "pq")
"""Kinds that FAISS can search on GPUs."""


@dataclass(frozen=True, kw_only=True)
class Placement:
    """Where the vectors are searched, and why.

    gpus: numbers of the GPUs, each of which holds a part; empty for the CPU. float16: whether they
    store half precision.
    """

    gpus: tuple[int, ...] = ()
    float16: bool = False
    reason: str

    @property
    def where(self) -> str:
        """`cpu`, `gpu` or `gpus`."""
        return ("cpu", "gpu", "gpus")[min(len(self.gpus), 2)]


def place_index(
    device: SearchDevice, kind: str, rows: int, list_shape: Mapping[str, int] | None = None
) -> Placement:
    """Choose the placement of an index by the memory free now; log the reason for the CPU.

    list_shape: for inverted lists, as in `estimate_gpu_bytes`.
    """
    needed = estimate_gpu_bytes(kind, rows, list_shape or {}, device.float16)
    placement = choose_placement(
        device.device, kind, needed, query_free_gpu_bytes(), device.float16
    )
    if not placement.gpus:
        level = logging.WARNING if device.device in ("gpu", "gpus") else logging.INFO
        log.log(level, "The index is searched on the CPU: %s", placement.reason)
    return placement


def choose_placement(
    requested: str, kind: str, needed: int, free: Sequence[int], float16: bool = False
) -> Placement:
    """Choose GPUs for an index of `needed` bytes, with `free` bytes on each GPU that FAISS sees.

    requested: `cpu`; `gpu`: one GPU; `gpus`: shared by as many as have room; `auto`: shared by as
    few as possible. Raises ValueError for another.
    """
    if requested not in SEARCH_DEVICES:
        raise ValueError(f"the device must be auto, cpu, gpu or gpus, not {requested!r}")
    if requested == "cpu":
        return Placement(reason="the CPU was requested")
    if kind not in GPU_KINDS:
        return Placement(reason=f"FAISS cannot search the kind {kind} on a GPU")
    if not free:
        return Placement(reason="FAISS sees no GPU")
    by_room = sorted(range(len(free)), key=lambda gpu: (-free[gpu], gpu))
    counts = {"gpu": [1], "gpus": [*range(len(free), 0, -1)], "auto": [*range(1, len(free) + 1)]}
    for count in counts[requested]:
        if -(-needed // count) + RESERVED_BYTES <= free[by_room[count - 1]]:
            gpus = tuple(sorted(by_room[:count]))
            return Placement(gpus=gpus, float16=float16, reason=explain_fit(needed, gpus))
    shortage = explain_shortage(requested, free, by_room[0])
    return Placement(reason=f"it needs {format_mib(needed)}, but {shortage}")


def explain_fit(needed: int, gpus: tuple[int, ...]) -> str:
    """Say which GPUs have room for how much."""
    if len(gpus) == 1:
        return f"GPU {gpus[0]} has room for {format_mib(needed)}"
    return f"GPUs {', '.join(map(str, gpus))} together have room for {format_mib(needed)}"


def explain_shortage(requested: str, free: Sequence[int], roomiest: int) -> str:
    """Say how much memory is free, where it is not enough."""
    reserved = f"of which {format_mib(RESERVED_BYTES)}"
    if requested == "gpu" or len(free) == 1:
        return f"GPU {roomiest} has {format_mib(free[roomiest])} free, {reserved} are reserved"
    total = format_mib(sum(free))
    return f"the {len(free)} GPUs have {total} free, {reserved} are reserved on each"


def format_mib(count: int) -> str:
    """Format a number of bytes in MiB."""
    return f"{count / 2**20:,.0f} MiB"


def estimate_gpu_bytes(kind: str, rows: int, list_shape: Mapping[str, int], float16: bool) -> int:
    """Estimate the bytes of GPU memory that an index takes with all its rows on one GPU.

    list_shape: for inverted lists: `dimensions`, the number of `lists`, and `bytes` per code.
    """
    if kind == "exact":
        # FAISS keeps the squared norms beside the vectors.
        return rows * (FEATURES * (2 if float16 else 4) + 4)
    if kind not in GPU_KINDS:
        return 0
    dimensions, lists, code = (int(list_shape[name]) for name in ("dimensions", "lists", "bytes"))
    # Every code with its 8-byte row number, in lists that grow by doubling; and the centroids.
    return 2 * rows * (code + 8) + 4 * lists * (dimensions + 1)


def list_gpus() -> list[int]:
    """List the GPUs that FAISS sees; a build without GPUs has no function to count them."""
    if not list_gpu_devices():
        return []
    # Not above: a server that searches exactly on the CPU does without FAISS and its 100 MB.
    import faiss

    return list(range(getattr(faiss, "get_num_gpus", lambda: 0)()))


def query_free_gpu_bytes() -> tuple[int, ...]:
    """Query the free bytes of each GPU that FAISS sees; empty if torch sees none."""
    if not list_gpus():
        return ()
    # Not above: without a GPU a server need not import it.
    import torch

    if not torch.cuda.is_available():
        return ()
    return tuple(torch.cuda.mem_get_info(gpu)[0] for gpu in list_gpus())


class GpuIndex(Protocol):
    """Vectors on GPUs."""

    def search(self, queries: Floats, count: int, effort: int) -> Ids:
        """Search: float32 [N, 4096] → row numbers int64 [N, count], −1 as padding.

        Raises RuntimeError if a GPU fails.
        """


def open_on_gpus(
    on_cpu: SearchEngine,
    placement: Placement,
    copy: Callable[[], GpuIndex],
    *,
    exhaustive: bool = False,
) -> SearchEngine:
    """Copy an index to the GPUs of its placement; without GPUs, or on failure, return `on_cpu`."""
    if not placement.gpus:
        return on_cpu
    try:
        on_gpus = copy()
    except (RuntimeError, AttributeError) as error:
        log.warning("The index is searched on the CPU: it cannot be copied to the GPU: %s", error)
        return on_cpu
    log.info("The index is searched on %s: %s", placement.where, placement.reason)
    return GpuSearch(on_gpus, on_cpu, exhaustive)


class GpuSearch:
    """Searches on GPUs, falling back to the CPU.

    The CPU searches for more than 2048 candidates, and for everything once a GPU has failed.
    """

    filters = False

    def __init__(self, on_gpus: GpuIndex, on_cpu: SearchEngine, exhaustive: bool) -> None:
        self.on_gpus: GpuIndex | None = on_gpus
        self.on_cpu, self.levels, self.exhaustive = on_cpu, on_cpu.levels, exhaustive
        # A GPU's work space serves one search at a time.
        self.lock = threading.Lock()

    def propose(self, queries: Floats, count: int, row_filter: RowFilter, effort: int) -> Ids:
        """As `SearchEngine.propose`."""
        if count <= MAX_GPU_NEIGHBOURS:
            with self.lock:
                if self.on_gpus is not None:
                    try:
                        return self.on_gpus.search(queries, count, effort)
                    except RuntimeError as error:
                        log.warning("The index is searched on the CPU: a GPU failed: %s", error)
                        self.on_gpus = None
        return self.on_cpu.propose(queries, count, row_filter, effort)

"""Where the search runs: on the GPU when FAISS sees one with room enough, else on the CPU."""

import logging
from dataclasses import dataclass
from typing import Any

import faiss
import torch

log = logging.getLogger(__name__)
SPARE = 2 << 30
"""Bytes left to the network and to FAISS's own work space."""


@dataclass(frozen=True)
class Placement:
    """Whether the vectors go on the GPU, and why not."""

    on_gpu: bool
    reason: str = ""


def place(device: str, gpus: int, needed: int, free: int) -> Placement:
    """Decide for vectors of `needed` bytes, `gpus` GPUs seen and `free` bytes on the first.

    `device` is the setting: auto, cpu, cuda or mps.
    """
    if device in ("cpu", "mps"):
        return Placement(False, f"the device is set to {device}")
    if not gpus:
        return Placement(False, "FAISS sees no GPU")
    if needed + SPARE > free:
        return Placement(False, f"it needs {needed:,} bytes and the GPU has {free:,} free")
    return Placement(True)


class Searcher:
    """A flat FAISS index where it searches: on the GPU, or the CPU's own."""

    def __init__(self, flat: faiss.IndexFlatL2, device: str = "auto") -> None:
        self.flat = flat
        self.searched: Any = flat
        self.resources: Any = None
        gpus = faiss.get_num_gpus()
        needed = flat.ntotal * flat.d * 4
        placement = place(device, gpus, needed, free_bytes() if gpus else 0)
        if placement.on_gpu:
            self.move_to_gpu()
        else:
            log.info("The index is searched on the CPU: %s", placement.reason)

    @property
    def on_gpu(self) -> bool:
        """Whether the search runs on a GPU; then one thread at a time may search."""
        return self.searched is not self.flat

    def move_to_gpu(self) -> None:
        """Copy the vectors to the first GPU; stay on the CPU, saying so, when that fails."""
        try:
            self.resources = faiss.StandardGpuResources()
            self.searched = faiss.index_cpu_to_gpu(self.resources, 0, self.flat)
        except RuntimeError as error:
            self.stay_on_cpu(error)

    def stay_on_cpu(self, error: RuntimeError) -> None:
        """Leave the GPU for good."""
        log.warning("The index is searched on the CPU, since the GPU failed: %s", error)
        self.searched, self.resources = self.flat, None

    def search(self, queries: Any, k: int) -> tuple[Any, Any]:
        """FAISS's own search: squared distances float32 [N, k] and positions int64 [N, k]."""
        if self.on_gpu:
            try:
                found: tuple[Any, Any] = self.searched.search(queries, k)
                return found
            except RuntimeError as error:
                self.stay_on_cpu(error)
        return self.flat.search(queries, k)


def free_bytes() -> int:
    """Free memory of the first GPU; 0 when torch cannot tell."""
    return torch.cuda.mem_get_info(0)[0] if torch.cuda.is_available() else 0

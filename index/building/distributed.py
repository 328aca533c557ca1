"""The processes of a build: several started by torchrun, or a single one."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch.distributed.rendezvous import rendezvous

from index.manifest import StoreError
from storage.parallel import is_distributed, local_rank, rank

T = TypeVar("T")
JOIN_TIMEOUT = timedelta(minutes=5)
"""How long a process waits for the others to join."""
BUILD_TIMEOUT = timedelta(days=7)
"""How long a process waits for the others to finish; a dead one is noticed at once."""


@dataclass
class ProcessGroup:
    """The processes of a build, as seen from this one.

    store: torch's key-value store; None for a single process. done: files read by this process.
    """

    rank: int = 0
    size: int = 1
    store: Any = None
    done: int = 0

    @property
    def is_first(self) -> bool:
        """Whether this process plans the build and writes the version."""
        return self.rank == 0

    def broadcast(self, value: T | None) -> T:
        """Return the first process's value in every process. Raises StoreError."""
        values = [value]
        if self.size > 1:
            with translate_peer_errors():
                dist.broadcast_object_list(values)
        assert values[0] is not None
        return values[0]

    def count_files(self, more: int) -> int:
        """Count files as read; return how many all processes have read. Raises StoreError."""
        self.done += more
        if self.store is None:
            return self.done
        with translate_peer_errors():
            return int(self.store.add("index/done", more))

    def barrier(self) -> None:
        """Wait for every process. Raises StoreError if one is gone."""
        if self.size > 1:
            with translate_peer_errors():
                dist.monitored_barrier(timeout=BUILD_TIMEOUT)


@contextmanager
def join_processes() -> Iterator[ProcessGroup]:
    """Join torchrun's process group, if there is one, and leave it at the end.

    Raises StoreError if they do not join in time.
    """
    if not is_distributed():
        yield ProcessGroup()
        return
    with translate_peer_errors():
        store, rank, size = next(rendezvous("env://", timeout=JOIN_TIMEOUT))
        dist.init_process_group(
            "gloo", store=store, rank=rank, world_size=size, timeout=JOIN_TIMEOUT
        )
    try:
        yield ProcessGroup(rank, size, store)
    finally:
        dist.destroy_process_group()


def is_first() -> bool:
    """Whether this process is alone or the first of several."""
    return not is_distributed() or rank() == 0


def choose_process_device(name: str) -> str:
    """Choose this process's device; several processes are spread over the GPUs."""
    gpus = torch.cuda.device_count() if name in ("auto", "cuda") and is_distributed() else 0
    return f"cuda:{local_rank() % gpus}" if gpus else name


@contextmanager
def translate_peer_errors() -> Iterator[None]:
    """Turn the errors that torch raises when another process is gone into StoreError."""
    try:
        yield
    except (RuntimeError, ValueError) as error:
        reason = str(error).strip().partition("\n")[0][:200]
        raise StoreError(
            f"Another process of the build is gone or did not join ({reason}). What was finished "
            "is kept: start the build again"
        ) from error

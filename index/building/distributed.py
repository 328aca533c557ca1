"""The processes of a build: started by torchrun, or one alone, which knows no other case."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch.distributed.rendezvous import rendezvous

from index.manifest import StoreError

T = TypeVar("T")
JOIN_TIMEOUT = timedelta(minutes=5)
"""How long a process waits for the others to be there."""
BUILD_TIMEOUT = timedelta(days=7)
"""How long it waits for the others to finish; one that dies is noticed at once."""


@dataclass
class ProcessGroup:
    """This process's place among those that build. done: files that it has read."""

    rank: int = 0
    size: int = 1
    store: Any = None
    done: int = 0

    @property
    def is_first(self) -> bool:
        """Whether this is the process that plans, puts together and publishes."""
        return self.rank == 0

    def broadcast(self, value: T | None) -> T:
        """The first process's value, in every process. Raises StoreError."""
        held = [value]
        if self.size > 1:
            with missing_others():
                dist.broadcast_object_list(held)
        assert held[0] is not None
        return held[0]

    def count_files(self, more: int) -> int:
        """Files that were read, and more now: how many by all. Raises StoreError."""
        self.done += more
        if self.store is None:
            return self.done
        with missing_others():
            return int(self.store.add("index/done", more))

    def barrier(self) -> None:
        """Wait until every process is here. Raises StoreError when one will never be."""
        if self.size > 1:
            with missing_others():
                dist.monitored_barrier(timeout=BUILD_TIMEOUT)


@contextmanager
def join_processes() -> Iterator[ProcessGroup]:
    """Meet the other processes that torchrun's variables tell of, and part at the end.

    Raises StoreError when they do not come.
    """
    if not in_company():
        yield ProcessGroup()
        return
    with missing_others():
        store, rank, size = next(rendezvous("env://", timeout=JOIN_TIMEOUT))
        dist.init_process_group(
            "gloo", store=store, rank=rank, world_size=size, timeout=JOIN_TIMEOUT
        )
    try:
        yield ProcessGroup(rank, size, store)
    finally:
        dist.destroy_process_group()


def in_company() -> bool:
    """Whether this process was started as one of several."""
    return int(os.environ.get("WORLD_SIZE", "1")) > 1


def is_first() -> bool:
    """Whether this process is alone or the first of several."""
    return not in_company() or int(os.environ.get("RANK", "0")) == 0


def build_device(name: str) -> str:
    """The setting of the device, for this process: each of several has a GPU of its own."""
    gpus = torch.cuda.device_count() if name in ("auto", "cuda") and in_company() else 0
    return f"cuda:{int(os.environ.get('LOCAL_RANK', '0')) % gpus}" if gpus else name


@contextmanager
def missing_others() -> Iterator[None]:
    """Turn what torch raises when another process is gone into StoreError."""
    try:
        yield
    except (RuntimeError, ValueError) as error:
        told = str(error).strip().partition("\n")[0][:200]
        raise StoreError(
            f"Another process of the build is gone or did not come ({told}). What was finished is "
            "kept: start the build again"
        ) from error

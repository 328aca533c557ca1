"""Threads that work ahead of their consumer, and this process's rank among those of a run."""

import os
import sys
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from itertools import islice, repeat
from typing import TypeVar

S = TypeVar("S")
T = TypeVar("T")
END = object()
LOWEST_PRIORITY = 19


def map_ahead(
    function: Callable[[S], T],
    values: Iterable[S],
    ahead: int,
    *,
    threads: int | None = None,
    yielding: bool = False,
) -> Generator[T, None, None]:
    """Apply a function to values on threads; yield the results in order.

    At most `ahead` results wait in memory. An error of the function is raised in place of its
    result, an error of `values` after the results of the values before it. By default there is one
    thread per core, from 2 to 32: two even on one core, since a thread may wait for the disk. The
    threads end when the generator is closed. `yielding`: they take what their consumer leaves idle.
    """
    waiting: deque[Future[T]] = deque()
    failure: Exception | None = None
    source = iter(values)
    pool = ThreadPoolExecutor(
        threads or max(2, min(32, cores())),
        thread_name_prefix="ahead",
        initializer=lower_priority if yielding else None,
    )
    try:
        while True:
            try:
                value = next(source)
            except StopIteration:
                break
            except Exception as error:  # noqa: BLE001 - raised below, after the results
                failure = error
                break
            waiting.append(pool.submit(function, value))
            if len(waiting) > ahead:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
        if failure is not None:
            raise failure
    finally:
        pool.shutdown(cancel_futures=True)


def lower_priority() -> None:
    """Let this process's other threads run before this one, on Linux."""
    if sys.platform == "linux":
        # There a thread has a niceness of its own.
        with suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), LOWEST_PRIORITY)


def prefetch(values: Iterable[T], ahead: int) -> Generator[T, None, None]:
    """Yield values that another thread produces, at most `ahead` of them in advance."""
    source: Iterator[T | object] = iter(values)
    produced = map_ahead(lambda _: next(source, END), repeat(None), ahead, threads=1)
    try:
        for value in produced:
            if value is END:
                return
            yield value  # type: ignore[misc]
    finally:
        produced.close()


def split_batches(values: Iterable[T], size: int) -> Iterator[list[T]]:
    """Group values into lists of `size`, the last of which may be shorter."""
    rest = iter(values)
    while batch := list(islice(rest, size)):
        yield batch


def cores() -> int:
    """Return how many processor cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def is_distributed() -> bool:
    """Return whether this process was started as one of several, as by torchrun."""
    return int(os.environ.get("WORLD_SIZE", "1")) > 1


def rank() -> int:
    """Return this process's number among all processes of its run, from 0."""
    return int(os.environ.get("RANK", "0"))


def local_rank() -> int:
    """Return this process's number among those of its run on this machine, from 0."""
    return int(os.environ.get("LOCAL_RANK", "0"))


def local_processes() -> int:
    """Return how many processes of its run are on this machine."""
    return int(os.environ.get("LOCAL_WORLD_SIZE", "1"))

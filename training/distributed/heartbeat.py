"""Notice a process that has stopped without dying: suspended, or its machine out of reach.

A dead process closes its connections, which ends the others. One that is merely stopped keeps them
open, and the others would wait for it in silence. So every process has a thread that counts up a
number in the store by which the processes found each other. If a number no longer rises, another
thread says so. It does not end the run, which goes on as soon as the process does.
"""

import os
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from torch.distributed import PrefixStore, Store, TCPStore  # type: ignore[attr-defined]

from storage.parallel import is_distributed, rank

BEAT_SECONDS = 5.0
"""How often each process counts up, and looks at the others."""
SILENCE_SECONDS = 30.0
"""After how long without a beat a process is reported."""


def print_to_stderr(sentence: str) -> None:
    """Print a warning at once, also from a process that is not the first."""
    print(f"training/run.py: {sentence}", file=sys.stderr, flush=True)  # noqa: T201


@dataclass
class Pulse:
    """When each process, and the store, was last heard of by this one, in seconds of its clock."""

    own: int
    last: dict[int, float]
    store: float
    names: dict[int, str] = field(default_factory=dict)
    counts: dict[int, int] = field(default_factory=dict)
    silent: set[int] = field(default_factory=set)

    def hear(self, process: int, count: int, now: float) -> None:
        """Note a process's number, as the store has it."""
        self.store = now
        if self.counts.get(process) != count:
            self.counts[process], self.last[process] = count, now

    def restart(self, now: float) -> None:
        """Forget the silence so far, as after this process was stopped itself."""
        self.last, self.store = dict.fromkeys(self.last, now), now

    def report_changes(self, now: float) -> list[str]:
        """Return a sentence about each process that has fallen silent, or is heard of again.

        It is empty except in one of the processes, the first that is heard of, which speaks for
        all.
        """
        before = self.is_first()
        changes = list(self.find_changes(now))
        return changes if before or self.is_first() else []

    def is_first(self) -> bool:
        """Return whether this process is the first that is not silent."""
        return self.own == min(set(self.last) - self.silent, default=self.own)

    def find_changes(self, now: float) -> Iterator[str]:
        """Yield the sentences, and note who is silent."""
        # Rank 0 holds the store: without it nothing is known about the others.
        store_silent = now - self.store > SILENCE_SECONDS
        for process, heard in self.last.items():
            name = f"process {process} of {len(self.last)} ({self.names.get(process, 'unknown')})"
            is_silent = now - heard > SILENCE_SECONDS and (process == 0 or not store_silent)
            if is_silent and process not in self.silent:
                yield (
                    f"{name} has not answered for {now - heard:.0f} s: it is stopped or out of "
                    "reach. The run waits for it; `kill -CONT` continues a stopped process"
                )
            if not is_silent and process in self.silent:
                yield f"{name} answers again"
            (self.silent.add if is_silent else self.silent.discard)(process)


@contextmanager
def watch_peers(report: Callable[[str], None] = print_to_stderr) -> Iterator[Pulse | None]:
    """Report the processes of the run that stop within the block; alone, there are none.

    Gives what this process has heard of them; None if it is alone. report: called on another
    thread, in one of the processes.
    """
    if not is_distributed():
        yield None
        return
    ended, now = threading.Event(), time.monotonic()
    pulse = Pulse(rank(), dict.fromkeys(range(int(os.environ["WORLD_SIZE"])), now), now)
    threads = [
        threading.Thread(target=beat, args=(connect_to_store(), pulse, ended), daemon=True),
        threading.Thread(target=watch, args=(pulse, ended, report), daemon=True),
    ]
    for thread in threads:
        thread.start()
    try:
        yield pulse
    finally:
        ended.set()
        for thread in threads:
            # Not for ever: the store may be out of reach. The threads end with the process.
            thread.join(timeout=1)


def connect_to_store() -> Store:
    """Connect to the store that rank 0, or torchrun, holds at the run's address."""
    address, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
    store = TCPStore(address, port, is_master=False, wait_for_workers=False)
    return PrefixStore("heartbeat", store)


def beat(store: Store, pulse: Pulse, ended: threading.Event) -> None:
    """Count up this process's number and read the others', until the run ends."""
    count = 0
    try:
        store.set(f"name {pulse.own}", f"{socket.gethostname()}, pid {os.getpid()}")
        while not ended.is_set():
            count += 1
            store.set(f"beat {pulse.own}", str(count))
            for process in pulse.last:
                if store.check([f"beat {process}"]):
                    number = int(store.get(f"beat {process}"))
                    pulse.hear(process, number, time.monotonic())
                    pulse.names.setdefault(process, store.get(f"name {process}").decode())
            ended.wait(BEAT_SECONDS)
    except RuntimeError:
        # The store is gone, and the run with it, which torch reports.
        ended.set()


def watch(pulse: Pulse, ended: threading.Event, report: Callable[[str], None]) -> None:
    """Report what changes about the processes, until the run ends."""
    looked = time.monotonic()
    while not ended.wait(BEAT_SECONDS):
        now = time.monotonic()
        if now - looked > 2 * BEAT_SECONDS:
            pulse.restart(now)
        looked = now
        for sentence in pulse.report_changes(now):
            report(sentence)

"""Who may compute: a few at a time, a limited number that wait, and nobody who has left.

Without a limit, a burst of uploads would make every page wait behind them: each that waits holds a
thread.
"""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

LOOK_SECONDS = 0.25
"""Seconds between two looks whether the client of a waiting request is still there."""


class BusyError(Exception):
    """As many requests wait for their turn as may."""


class ClientGoneError(Exception):
    """The client closed its connection while its request waited."""


class ComputeQueue:
    """Lets `slots` requests compute at once, and `waiting` wait for that. Thread-safe."""

    def __init__(self, slots: int, waiting: int) -> None:
        self.slots, self.limit = slots, waiting
        self.computing = self.waiting = 0
        self.changed = threading.Condition()

    @contextmanager
    def enter(
        self, *, admitted: bool = False, has_left: Callable[[], bool] = lambda: False
    ) -> Iterator[None]:
        """Wait for a slot and hold it.

        admitted: whether the request has computed before and may wait whatever the limit, so that
        an upload of several images is not given up in its middle. Raises BusyError, and
        ClientGoneError as soon as `has_left` says so.
        """
        with self.changed:
            if self.computing >= self.slots:
                if not admitted and self.waiting >= self.limit:
                    raise BusyError
                self.wait(has_left)
            self.computing += 1
        try:
            yield
        finally:
            with self.changed:
                self.computing -= 1
                self.changed.notify()

    def wait(self, has_left: Callable[[], bool]) -> None:
        """Wait until a slot is free; the caller holds the condition."""
        self.waiting += 1
        try:
            while self.computing >= self.slots:
                if has_left():
                    raise ClientGoneError
                self.changed.wait(LOOK_SECONDS)
        finally:
            self.waiting -= 1
            # One that gives up may have been the one that was notified.
            self.changed.notify()

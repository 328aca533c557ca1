"""The memory that all images that are decoded at once take together."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from model.image.decode import ImageError

MEGABYTE = 1_000_000


class MemoryBudget:
    """Memory shared by threads, each of which reserves what it needs, in the order of asking."""

    def __init__(self, max_bytes: int) -> None:
        self.max_bytes = self.free = max_bytes
        self.turn = threading.Lock()
        self.changed = threading.Condition()

    @contextmanager
    def reserve(self, amount: int) -> Iterator[None]:
        """Wait until so many bytes are free, and hold them. Raises ImageError if they never are."""
        if amount > self.max_bytes:
            raise ImageError(
                f"The image would take {amount / MEGABYTE:,.0f} MB of memory to decode; at most "
                f"{self.max_bytes / MEGABYTE:,.0f} MB are allowed. Make it smaller and try again.",
                "too-large",
            )
        with self.turn, self.changed:
            self.changed.wait_for(lambda: self.free >= amount)
            self.free -= amount
        try:
            yield
        finally:
            with self.changed:
                self.free += amount
                self.changed.notify()

"""The few things computed last, kept for whoever asks next."""

import threading
from collections.abc import Callable, Hashable
from typing import Any, TypeVar

from cachetools import LRUCache, cached

T = TypeVar("T")


class LruCache:
    """What was computed, by a key that names what it was computed of, the latest `most` of it.

    May be used from several threads at once: of those that ask for the same, one computes.
    """

    def __init__(self, most: int) -> None:
        self.cache: LRUCache[Hashable, Any] = LRUCache(most)
        self.lock = threading.Condition()
        self.found = cached(self.cache, key=lambda key, make: key, condition=self.lock)(compute)

    def holds(self, key: Hashable) -> bool:
        """Whether something is kept under the key now."""
        with self.lock:
            return key in self.cache

    def get(self, key: Hashable, make: Callable[[], T]) -> T:
        """Give what is kept under the key, or what `make` gives, which is then kept."""
        value: T = self.found(key, make)
        return value


def compute(key: Hashable, make: Callable[[], Any]) -> Any:
    """Make what was asked for."""
    return make()

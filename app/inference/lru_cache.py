"""A small cache of expensive results, shared by the threads of a server."""

import threading
from collections.abc import Callable, Hashable
from typing import Any, TypeVar

from cachetools import LRUCache, cached

T = TypeVar("T")


class LruCache:
    """Keeps the `size` results used last, by a key that names what they were computed from.

    Thread-safe: of several threads that need the same result, one computes it.
    """

    def __init__(self, size: int) -> None:
        self.results: LRUCache[Hashable, Any] = LRUCache(size)
        self.condition = threading.Condition()
        self.call = cached(self.results, key=lambda key, compute: key, condition=self.condition)(
            lambda key, compute: compute()
        )

    def contains(self, key: Hashable) -> bool:
        """Return whether there is a result for the key now."""
        with self.condition:
            return key in self.results

    def get(self, key: Hashable, compute: Callable[[], T]) -> T:
        """Return the result for the key, computing it if there is none."""
        result: T = self.call(key, compute)
        return result

"""What was computed last is kept, for all threads, and no more of it than is allowed."""

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from app.inference.lru_cache import LruCache


def test_the_latest_are_kept_and_the_one_not_asked_for_longest_goes() -> None:
    kept, made = LruCache(2), []

    def get(key: str) -> str:
        return kept.get(key, lambda: made.append(key) or key.upper())

    assert [get(key) for key in "abacab"] == list("ABACAB")
    assert made == list("abcb")


def test_of_threads_that_ask_for_the_same_one_computes() -> None:
    kept, made, together = LruCache(2), [], threading.Barrier(4)

    def ask(_: int) -> int:
        together.wait(60)
        return kept.get("key", lambda: made.append(1) or len(made))

    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(ask, range(4))) == [1] * 4


def test_what_could_not_be_computed_is_tried_again() -> None:
    kept = LruCache(2)
    with pytest.raises(OSError, match="gone"):
        kept.get("key", lambda: (_ for _ in ()).throw(OSError("gone")).__next__())
    assert kept.get("key", lambda: 3) == 3

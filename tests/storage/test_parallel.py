"""Threads that work ahead: the order of their results, their limit, and what errors do."""

import os
import sys
import threading
from collections.abc import Iterator

import pytest

from storage.parallel import map_ahead, prefetch, split_batches


def failing_after(values: int) -> Iterator[int]:
    """So many numbers, then an error."""
    yield from range(values)
    raise OSError("the disk went away")


def test_results_come_in_the_order_of_the_values_and_few_are_made_ahead() -> None:
    started: list[int] = []

    def double(value: int) -> int:
        started.append(value)
        return 2 * value

    results = map_ahead(double, range(100), 3)
    assert next(results) == 0
    assert len(started) <= 4
    assert list(results) == list(range(2, 200, 2))


@pytest.mark.parametrize("ahead", [1, 2, 7])
def test_an_error_comes_after_the_results_before_it(ahead: int) -> None:
    for results in (
        map_ahead(abs, failing_after(5), ahead),
        prefetch(failing_after(5), ahead),
        map_ahead(lambda value: [0, 1, 2, 3, 4][value], range(9), ahead),
    ):
        assert [next(results) for _ in range(5)] == [0, 1, 2, 3, 4]
        with pytest.raises((OSError, IndexError)):
            next(results)


def test_values_are_produced_on_another_thread_that_ends_with_the_generator() -> None:
    produced: list[str] = []

    def numbers() -> Iterator[int]:
        for number in range(100):
            produced.append(threading.current_thread().name)
            yield number

    before = set(threading.enumerate())
    values = prefetch(numbers(), 2)
    next(values)
    values.close()
    assert threading.current_thread().name not in produced
    assert len(produced) <= 4
    assert set(threading.enumerate()) <= before
    assert list(prefetch(iter(range(20)), 2)) == list(range(20))


def test_batches_hold_every_value_once() -> None:
    assert list(split_batches(range(7), 3)) == [[0, 1, 2], [3, 4, 5], [6]]
    assert list(split_batches([], 3)) == []


@pytest.mark.skipif(sys.platform != "linux", reason="niceness is a thread's own on Linux only")
def test_threads_that_yield_are_nicer_than_their_consumer() -> None:
    def read_niceness(_: int) -> int:
        return os.getpriority(os.PRIO_PROCESS, threading.get_native_id())

    own = read_niceness(0)
    assert set(map_ahead(read_niceness, range(8), 2, threads=2)) == {own}
    assert set(map_ahead(read_niceness, range(8), 2, threads=2, yielding=True)) == {19}
    assert read_niceness(0) == own

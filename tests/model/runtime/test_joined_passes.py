"""Images of several threads are computed together, each gets its own result, and errors too."""

import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import pytest

from model.runtime.joined_passes import JoinedPasses


class Passes:
    """Computes squares, the first pass only when told to; remembers how many came together."""

    def __init__(self) -> None:
        self.sizes: list[int] = []
        self.begun, self.go_on = threading.Event(), threading.Event()

    def __call__(self, numbers: Sequence[int]) -> list[int]:
        self.sizes.append(len(numbers))
        self.begun.set()
        assert self.go_on.wait(60)
        if -1 in numbers:
            raise ValueError("no root")
        return [number * number for number in numbers]


def test_those_that_wait_are_computed_together_in_their_order() -> None:
    passes = Passes()
    joined = JoinedPasses(passes, 3)
    with ThreadPoolExecutor(8) as pool:
        first = pool.submit(joined.compute, 9)
        assert passes.begun.wait(60)
        others = []
        for number in range(7):
            others.append(pool.submit(joined.compute, number))
            while len(joined.waiting) < len(others):
                time.sleep(0.001)
        passes.go_on.set()
        assert [one.result(60) for one in (first, *others)] == [81, 0, 1, 4, 9, 16, 25, 36]
    assert passes.sizes == [1, 3, 3, 1]


def test_an_error_reaches_those_it_was_computed_with_and_nobody_else() -> None:
    passes = Passes()
    passes.go_on.set()
    joined = JoinedPasses(passes, 2)
    with pytest.raises(ValueError, match="no root"):
        joined.compute(-1)
    assert joined.compute(5) == 25
    with ThreadPoolExecutor(4) as pool:
        found = [pool.submit(joined.compute, number) for number in (2, 3, 4, 5)]
        assert [one.result(60) for one in found] == [4, 9, 16, 25]


def test_an_interrupted_thread_leaves_the_turn_to_the_others() -> None:
    def interrupt(numbers: Sequence[int]) -> list[int]:
        if -1 in numbers:
            raise KeyboardInterrupt
        return list(numbers)

    joined = JoinedPasses(interrupt, 2)
    with pytest.raises(KeyboardInterrupt):
        joined.compute(-1)
    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(joined.compute, 7).result(60) == 7

"""A few compute, a limited number wait, the others are told to come back, who has left is not."""

import io
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack

import pytest

from app.serving.admission import BusyError, ClientGoneError, ComputeQueue


def wait_until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.005)


def test_those_that_wait_get_their_turn_and_no_more_compute_than_may() -> None:
    queue, most, lock = ComputeQueue(2, 8), [0, 0], threading.Lock()

    def compute() -> None:
        with queue.enter():
            with lock:
                most[0] += 1
                most[1] = max(most)
            time.sleep(0.01)
            with lock:
                most[0] -= 1

    threads = [threading.Thread(target=compute) for _ in range(10)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert most == [0, 2]
    assert (queue.computing, queue.waiting) == (0, 0)


def test_one_too_many_is_refused_but_not_one_that_was_admitted() -> None:
    queue, done = ComputeQueue(1, 1), []

    def compute(admitted: bool) -> None:
        with queue.enter(admitted=admitted):
            done.append(admitted)

    with queue.enter():
        threads = [threading.Thread(target=compute, args=(admitted,)) for admitted in (False, True)]
        threads[0].start()
        wait_until(lambda: queue.waiting == 1)
        with pytest.raises(BusyError), queue.enter():
            pass
        threads[1].start()
        wait_until(lambda: queue.waiting == 2)
    for thread in threads:
        thread.join(20)
    assert sorted(done) == [False, True]


def test_nothing_is_computed_for_a_client_that_has_left() -> None:
    queue = ComputeQueue(1, 1)
    with queue.enter(), pytest.raises(ClientGoneError), queue.enter(has_left=lambda: True):
        pass
    assert (queue.computing, queue.waiting) == (0, 0)


def test_a_slot_is_free_again_after_an_error() -> None:
    queue = ComputeQueue(1, 0)
    with pytest.raises(ZeroDivisionError), queue.enter():
        raise ZeroDivisionError
    with queue.enter():
        pass


def test_a_full_queue_is_told_on_pages_and_in_the_api_while_others_are_answered(
    app, client, page, send, jpeg
) -> None:
    queue: ComputeQueue = app.extensions["compute_queue"]
    sent = {"image": (io.BytesIO(jpeg), "a.jpg")}
    with ExitStack() as held:
        for _ in range(queue.slots):
            held.enter_context(queue.enter())
        queue.limit, before = 0, queue.limit
        try:
            refused = send(jpeg)
            answer = client.post("/api/classify", data=sent)
            health = client.get("/livez")
        finally:
            queue.limit = before
    assert (refused.status_code, answer.status_code, health.status_code) == (503, 503, 200)
    assert 0 < int(refused.headers["Retry-After"]) < 10
    assert "waiting" in page(refused).one("h1").text
    assert page(refused).one("form", "upload")
    assert answer.get_json()["type"] == "/api#busy"
    assert send(jpeg).status_code == 303

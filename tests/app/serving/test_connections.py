"""Connections: slow ones take no thread, too slow ones are closed, rejected ones get an answer."""

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from waitress import wasyncore

from app.serving import connections
from app.serving.connections import (
    BodyBudget,
    BufferingServer,
    Channel,
    RenderedError,
    ServerLimits,
    close_servers,
    make_servers,
)

LIMITS = ServerLimits(
    threads=2,
    body_bytes=100_000,
    waiting_bytes=250_000,
    header_bytes=2000,
    large_bodies={"/large": 200_000},
)
HEAD = b"POST / HTTP/1.1\r\nHost: here\r\n"
Application = Callable[[dict[str, Any], Any], list[bytes]]


def echo_length(environ: dict[str, Any], start_response: Any) -> list[bytes]:
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [str(len(environ["wsgi.input"].read())).encode()]


def render_error(status: int, path: str) -> RenderedError:
    return RenderedError(f"{status} Error", [("Content-Type", "text/plain")], path.encode())


class Served:
    """A server in a thread of this process."""

    def __init__(self, application: Application, body: int = LIMITS.body_bytes) -> None:
        limits = LIMITS._replace(body_bytes=body, waiting_bytes=max(body, LIMITS.waiting_bytes))
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.listener.setblocking(False)
        self.map: dict[int, Any] = {}
        self.closed: list[str] = []
        (self.server,) = make_servers(
            application, [self.listener], limits, render_error, self.map, self.closed.append
        )
        self.stopping = threading.Event()
        self.thread = threading.Thread(target=self.poll)
        self.thread.start()

    def poll(self) -> None:
        while not self.stopping.is_set():
            wasyncore.loop(0.02, use_poll=True, map=self.map, count=1)

    def stop(self) -> None:
        self.stopping.set()
        self.thread.join()
        close_servers([self.server], self.map)

    def connect(self, data: bytes = b"") -> socket.socket:
        client = socket.create_connection(self.listener.getsockname(), timeout=20)
        client.sendall(data)
        return client

    def ask(self, data: bytes) -> bytes:
        with self.connect(data) as client:
            return read_all(client)

    def wait_for(self, condition: Callable[[BufferingServer], bool]) -> None:
        end = time.monotonic() + 20
        while not condition(self.server):
            assert time.monotonic() < end
            time.sleep(0.01)


def read_all(client: socket.socket) -> bytes:
    parts = []
    while part := client.recv(65536):
        parts.append(part)
    return b"".join(parts)


@contextmanager
def serving(application: Application = echo_length) -> Iterator[Served]:
    served = Served(application)
    try:
        yield served
    finally:
        served.stop()


def post(body: bytes) -> bytes:
    return HEAD + b"Connection: close\r\nContent-Length: %d\r\n\r\n" % len(body) + body


def test_slow_clients_take_no_thread() -> None:
    with serving() as served:
        slow = [
            served.connect(begun)
            for begun in (HEAD, HEAD + b"Content-Length: 50\r\n\r\nabc", b"GET", b"") * 15
        ]
        for size in (0, 5, 90_000):
            answer = served.ask(post(b"x" * size))
            assert answer.startswith(b"HTTP/1.1 200")
            assert answer.endswith(b"\r\n%d" % size)
        for client in slow:
            client.close()


def test_an_answer_nobody_reads_takes_no_thread() -> None:
    def answer(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        start_response("200 OK", [])
        return [b"x" * 8_000_000]

    with serving(answer) as served:
        deaf = [served.connect(post(b"")) for _ in range(6)]
        for client in deaf:
            client.recv(1)
        assert len(served.ask(post(b""))) > 8_000_000
        for client in deaf:
            client.close()


def test_only_a_whole_request_reaches_the_application() -> None:
    bodies = []

    def note(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        bodies.append(environ["wsgi.input"].read())
        start_response("200 OK", [])
        return [b""]

    with serving(note) as served:
        with served.connect(HEAD + b"Content-Length: 10\r\n\r\n12345"):
            served.wait_for(lambda server: len(server.active_channels) == 1)
        served.wait_for(lambda server: not server.active_channels)
        # A chunk cut short, and an end that never comes, are no request either.
        with served.connect(HEAD + b"Transfer-Encoding: chunked\r\n\r\n5\r\nabcde\r\n"):
            served.wait_for(lambda server: len(server.active_channels) == 1)
        served.wait_for(lambda server: not server.active_channels)
    assert bodies == []


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"GET / HTTP/1.1\r\nNo colon\r\n\r\n", 400),
        (b"\x16\x03\x01\x02\r\n\r\n", 400),
        (b"GET / HTTP/9.9\r\n\r\n", 505),
        (b"POST / HTTP/2.0\r\nContent-Length: 3\r\n\r\nabc", 505),
        (b"GET /" + b"a" * 5000 + b" HTTP/1.1\r\n\r\n", 431),
        (HEAD + b"Transfer-Encoding: chunked\r\n\r\nZZ\r\n", 400),
        (HEAD + b"Transfer-Encoding: gzip\r\n\r\n", 501),
        (HEAD + b"Content-Length: 100001\r\n\r\n", 413),
        (HEAD + b"Transfer-Encoding: chunked\r\n\r\n" + b"4000\r\n" + b"x" * 0x4000 + b"\r\n", 0),
    ],
)
def test_errors_are_answered_by_the_application(data: bytes, status: int) -> None:
    with serving() as served:
        if status:
            assert served.ask(data).split(None, 2)[1] == str(status).encode()
        else:  # too much in chunks: rejected as soon as it is more than the limit, not cut
            chunk = data.split(b"\r\n\r\n", 1)[1]
            answer = served.ask(data + 9 * chunk)
            assert answer.split(None, 2)[1] == b"413"


def test_one_path_takes_larger_bodies() -> None:
    def send(path: bytes, size: int) -> bytes:
        return served.ask(post(b"x" * size).replace(b"POST /", b"POST " + path, 1))

    with serving() as served:
        assert send(b"/prefix/large?a=b", 200_000).endswith(b"\r\n200000")
        assert send(b"/large", 200_001).startswith(b"HTTP/1.1 413")
        assert send(b"/larger", 100_001).startswith(b"HTTP/1.1 413")


def test_a_rejected_upload_is_read_to_its_end_so_that_its_answer_arrives() -> None:
    size = 5_000_000
    with serving() as served, served.connect() as client:
        client.sendall(HEAD + b"Content-Length: %d\r\n\r\n" % size)
        for _ in range(size // 50_000):
            client.sendall(b"x" * 50_000)
        assert read_all(client).startswith(b"HTTP/1.1 413")


def test_bodies_that_wait_share_a_limited_room() -> None:
    begun = HEAD + b"Content-Length: 90000\r\n\r\nabc"
    with serving() as served:
        first, second = served.connect(begun), served.connect(begun)
        served.wait_for(lambda server: server.budget.taken == 180_000)
        assert served.ask(begun).startswith(b"HTTP/1.1 503")
        first.close()
        second.sendall(b"x" * (90_000 - 3))
        served.wait_for(lambda server: server.budget.taken == 0)
        assert second.recv(12) == b"HTTP/1.1 200"
        second.close()
        assert served.ask(post(b"x" * 90_000)).endswith(b"90000")


def test_a_budget_gives_no_more_than_it_has() -> None:
    budget = BodyBudget(10)
    assert budget.take(10)
    assert not budget.take(1)
    budget.give_back(10)
    assert budget.take(9)


def test_new_connections_find_room_where_others_idle() -> None:
    with serving() as served:
        served.server.max_connections = 4
        idle = served.connect()
        served.wait_for(lambda server: len(server.active_channels) == 1)
        slow = [served.connect(HEAD) for _ in range(3)]
        served.wait_for(lambda server: len(server.active_channels) == 4)
        assert served.ask(post(b"abc")).endswith(b"\r\n3")
        assert idle.recv(1) == b""  # it could best be spared
        assert served.closed == ["evicted"]
        for client in (idle, *slow):
            client.close()


def test_nobody_is_spared_who_waits_for_an_answer() -> None:
    going_on = threading.Event()

    def wait(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        going_on.wait(20)
        return echo_length(environ, start_response)

    with serving(wait) as served:
        served.server.max_connections = 3
        waiting = [served.connect(post(b"abc")) for _ in range(3)]
        served.wait_for(lambda server: len(server.active_channels) == 3)
        served.wait_for(lambda server: all(c.requests for c in server.active_channels.values()))
        assert b"Retry-After" in served.ask(b"")
        assert served.closed == ["refused"]
        going_on.set()
        for client in waiting:
            assert read_all(client).endswith(b"\r\n3")
            client.close()


def test_the_application_learns_that_the_client_has_left() -> None:
    begun, left, noticed = (threading.Event() for _ in range(3))

    def wait(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        begun.set()
        assert left.wait(20)
        end = time.monotonic() + 20
        while not environ["waitress.client_disconnected"]() and time.monotonic() < end:
            time.sleep(0.01)
        noticed.set()
        return echo_length(environ, start_response)

    with serving(wait) as served:
        client = served.connect(post(b""))
        assert begun.wait(20)
        client.close()
        left.set()
        assert noticed.wait(20)


class Clock:
    """Time that passes when told."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now

    def time(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(connections, "time", clock)
    return clock


@pytest.fixture
def channel(clock: Clock) -> Iterator[Channel]:
    """A connection whose bytes the tests hand over themselves."""
    listener = socket.create_server(("127.0.0.1", 0))
    polled: dict[int, Any] = {}
    closed: list[str] = []
    (server,) = make_servers(echo_length, [listener], LIMITS, render_error, polled, closed.append)
    ours, theirs = socket.socketpair()
    channel = Channel(server, ours, ("127.0.0.1", 1), server.adj, map=polled)
    channel.closed = closed
    yield channel
    theirs.close()
    close_servers([server], polled)


def test_an_idle_connection_has_its_time(channel: Channel, clock: Clock) -> None:
    clock.now += connections.IDLE_SECONDS - 1
    assert not channel.is_overdue(clock.now)
    clock.now += 2
    assert channel.is_overdue(clock.now)


def test_a_request_that_drips_is_cut_off_and_one_that_moves_is_not(
    channel: Channel, clock: Clock
) -> None:
    channel.received(HEAD + b"Content-Length: 99999\r\n\r\n")
    rate = connections.SLOWEST_BYTES_PER_SECOND
    for _ in range(20):
        clock.now += 1
        channel.received(b"x" * rate)
        assert not channel.is_overdue(clock.now)
    clock.now += connections.GRACE_SECONDS + 1
    assert channel.is_overdue(clock.now)


def test_dripping_headers_are_cut_off(channel: Channel, clock: Clock) -> None:
    for _ in range(int(connections.GRACE_SECONDS) + 1):
        assert not channel.is_overdue(clock.now)
        channel.received(b"G")
        clock.now += 1
    assert channel.is_overdue(clock.now)
    for _ in range(2):  # until the loop closes it, it is counted once
        channel.server.maintenance(clock.now)
    assert channel.will_close
    assert channel.closed == ["slow"]


def test_a_connection_that_was_kept_open_for_nothing_is_not_counted(
    channel: Channel, clock: Clock
) -> None:
    clock.now += connections.IDLE_SECONDS + 1
    channel.server.maintenance(clock.now)
    assert channel.will_close
    assert not channel.closed


def test_each_request_of_a_connection_has_its_own_time(channel: Channel, clock: Clock) -> None:
    for _ in range(30):
        channel.received(b"GET / HTTP/1.1\r\n")
        clock.now += 2
        assert not channel.is_overdue(clock.now)
        channel.received(b"\r\n")
        end = time.monotonic() + 20
        while channel.requests and time.monotonic() < end:
            time.sleep(0.001)
        channel.total_outbufs_len = 0


def test_an_answer_that_is_not_read_is_given_up(channel: Channel, clock: Clock) -> None:
    channel.write_soon(b"x" * 10_000_000)
    assert not channel.is_overdue(clock.now)
    clock.now += connections.GRACE_SECONDS + 1
    channel.moved = 0
    assert channel.is_overdue(clock.now)


def test_a_client_that_leaves_before_its_error_is_no_error_of_the_server(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with serving() as served:
        left = threading.Event()

        def render_late(status: int, path: str) -> RenderedError:
            left.wait(20)
            return render_error(status, path)

        served.server.render_error = render_late
        with served.connect(b"\x16\x03\x01 no HTTP\r\n\r\n"):
            served.wait_for(lambda server: any(c.requests for c in server.active_channels.values()))
        served.wait_for(lambda server: not server.active_channels)
        left.set()
        assert served.ask(post(b"x")).startswith(b"HTTP/1.1 200")
    # On a busy machine waitress says that a request had to wait.
    logged = [record for record in caplog.records if record.name != "waitress.queue"]
    assert [record.getMessage() for record in logged] == []

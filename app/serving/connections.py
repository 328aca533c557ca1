"""Connections that occupy no thread while they are slow.

waitress reads whole requests and sends answers in one thread for all connections; another thread
runs the application only while it computes. Here connections also get deadlines: a request or an
answer must move along, bodies that wait share a limited amount of disk, and when there are too many
connections the one that has made the others wait longest is closed, so that new ones always find
room.
"""

import resource
import socket
import threading
import time
from collections.abc import Callable, Mapping
from functools import partial
from types import MappingProxyType
from typing import Any, Literal, NamedTuple

from waitress import wasyncore
from waitress.adjustments import Adjustments
from waitress.channel import HTTPChannel
from waitress.parser import HTTPRequestParser
from waitress.server import BaseWSGIServer, TcpWSGIServer, UnixWSGIServer
from waitress.task import ErrorTask, ThreadedTaskDispatcher
from waitress.utilities import Error, RequestEntityTooLarge

GRACE_SECONDS = 20.0
"""How long a request, or an answer, may take however slow it is."""
SLOWEST_BYTES_PER_SECOND = 4096
"""How fast it must be on average after that."""
IDLE_SECONDS = 20.0
"""How long a connection may wait for its next request."""
LINGER_SECONDS = 30.0
"""How long the rest of a rejected request is read and discarded, so that its answer arrives."""
MAX_CONNECTIONS = 1000
VERSIONS = ("", "1.0", "1.1")
RESERVED_FILES = 256
"""Open files that are left to the rest of the process, of those that the system allows."""
CHECK_SECONDS = 1.0
"""Seconds between two checks of all connections."""
Phase = Literal["idle", "receiving", "working", "sending", "discarding"]
EVICTED = ("idle", "discarding", "receiving", "sending")
"""Phases in which a connection may be closed to make room for another, the first ones first."""
LIMITS: dict[Phase, float] = {"idle": IDLE_SECONDS, "discarding": LINGER_SECONDS}
TOO_MANY = (
    b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 30\r\nConnection: close\r\n"
    b"Content-Length: 0\r\n\r\n"
)


class RenderedError(NamedTuple):
    """An answer that the application made of an error: status line, headers and body."""

    status: str
    headers: list[tuple[str, str]]
    body: bytes


RenderError = Callable[[int, str], RenderedError]
"""Takes a status and the path that was asked for, if it is known."""
CountClosed = Callable[[Literal["slow", "evicted", "refused"]], None]
"""Takes why a connection was closed: its client was too slow, it had to make room for another, or
there was no room for it."""


class BusyError(Error):  # type: ignore[misc]
    """No room for the body of a request."""

    code = 503
    reason = "Service Unavailable"


class VersionError(Error):  # type: ignore[misc]
    """A version of HTTP that is not spoken here."""

    code = 505
    reason = "HTTP Version Not Supported"


class BodyBudget:
    """The bytes that bodies of unfinished requests may take together. Thread-safe."""

    def __init__(self, size: int) -> None:
        self.size, self.taken = size, 0
        self.lock = threading.Lock()

    def take(self, count: int) -> bool:
        """Take bytes, if so many are left."""
        with self.lock:
            fits = self.taken + count <= self.size
            self.taken += count if fits else 0
            return fits

    def give_back(self, count: int) -> None:
        """Give bytes back."""
        with self.lock:
            self.taken -= count


class Request(HTTPRequestParser):  # type: ignore[misc]
    """A request; its body takes room from the budget as soon as its length is known."""

    completed: bool
    error: Error | None
    path = ""
    """Empty in a request whose first line could not be read."""

    def __init__(
        self, adjustments: Adjustments, budget: BodyBudget, limits: "ServerLimits"
    ) -> None:
        super().__init__(adjustments)
        self.budget, self.limits, self.taken = budget, limits, 0

    def received(self, data: bytes) -> int:
        """Take bytes of the request; return how many."""
        count: int = super().received(data)
        if self.headers_finished and not self.error and self.version not in VERSIONS:
            self.error, self.completed = VersionError("unknown version of HTTP"), True
        most = self.limits.find_body_limit(self.path)
        if max(self.content_length, self.body_bytes_received) > most and not self.error:
            self.error, self.completed = RequestEntityTooLarge(f"more than {most} bytes"), True
        if self.headers_finished and not self.completed and not self.taken:
            # Of a chunked body only the limit is known.
            length = self.content_length or most
            if self.budget.take(length):
                self.taken = length
            else:
                self.error, self.completed = BusyError("no room for the body"), True
        return count

    def close(self) -> None:
        """Discard the body."""
        self.budget.give_back(self.taken)
        self.taken = 0
        super().close()


class PageErrorTask(ErrorTask):  # type: ignore[misc]
    """Answers a request that cannot be read with the application's own error page."""

    def execute(self) -> None:
        """Write the answer. What is left of the request is discarded, not refused."""
        self.channel.is_rejecting = True
        answer = self.channel.server.render_error(self.request.error.code, self.request.path)
        self.status = answer.status
        self.response_headers.extend(answer.headers)
        self.set_close_on_finish()
        self.content_length = len(answer.body)
        self.write(answer.body)


class Channel(HTTPChannel):  # type: ignore[misc]
    """A connection that knows what it waits for, and for how long."""

    error_task_class = PageErrorTask
    close_when_flushed: bool
    is_rejecting = False
    is_discarding = False

    def __init__(self, server: "BufferingServer", *arguments: Any, **named: Any) -> None:
        self.phase: Phase = "idle"
        self.since = time.monotonic()
        self.moved = 0
        self.parser_class = partial(Request, budget=server.budget, limits=server.limits)
        super().__init__(server, *arguments, **named)

    def find_phase(self) -> Phase:
        """Return what the connection is at."""
        if self.is_discarding:
            return "discarding"
        if self.total_outbufs_len:
            return "sending"
        if self.requests:
            return "working"
        return "idle" if self.request is None else "receiving"

    def is_overdue(self, now: float) -> bool:
        """Whether the client has been too slow for too long."""
        phase = self.find_phase()
        if phase != self.phase:
            self.phase, self.since, self.moved = phase, now, 0
        if phase == "working":
            return False
        allowed = LIMITS.get(phase, GRACE_SECONDS + self.moved / SLOWEST_BYTES_PER_SECOND)
        return now - self.since > allowed

    def received(self, data: bytes) -> bool:
        """Take bytes of a request."""
        if self.request is None and not self.requests:
            self.phase, self.since, self.moved = "receiving", time.monotonic(), 0
        self.moved += len(data)
        return bool(super().received(data))

    def send(self, data: bytes, do_close: bool = True) -> int:
        """Send bytes of an answer; return how many."""
        sent: int = super().send(data, do_close)
        self.moved += sent
        return sent

    def readable(self) -> bool:
        """Whether bytes of the client are wanted."""
        if self.is_discarding:
            return not self.will_close
        return bool(super().readable())

    def handle_read(self) -> None:
        """Read what has arrived."""
        if not self.is_discarding:
            super().handle_read()
        elif not self.recv(self.adj.recv_bytes):
            self.will_close = True

    def handle_write(self) -> None:
        """Send what waits. After an error, wait for the client to stop sending, then close.

        A connection closed with unread bytes is reset, and the client may lose the answer.
        """
        if not (self.is_rejecting and self.close_when_flushed):
            super().handle_write()
            return
        self._flush_exception(self._flush_some)
        if self.will_close:
            self.handle_close()
        elif not self.total_outbufs_len:
            self.close_when_flushed, self.is_discarding = False, True
            self.shut_down_sending()

    def shut_down_sending(self) -> None:
        """Tell the client that nothing more will come."""
        try:
            self.socket.shutdown(socket.SHUT_WR)
        except OSError:
            self.will_close = True

    def handle_close(self) -> None:
        """Close the connection and discard the request that was arriving."""
        for request in (self.request, *self.requests[1:]):
            if request is not None:
                request.close()
        super().handle_close()


class BufferingServer(BaseWSGIServer):  # type: ignore[misc]
    """Accepts connections on one socket."""

    channel_class = Channel
    budget: BodyBudget
    limits: "ServerLimits"
    render_error: RenderError
    count_closed: CountClosed
    max_connections: int

    def maintenance(self, now: float) -> None:
        """Close the connections whose client is too slow."""
        for channel in list(self.active_channels.values()):
            if channel.is_overdue(time.monotonic()) and not channel.will_close:
                channel.will_close = True
                if channel.phase != "idle":
                    self.count_closed("slow")

    def handle_accept(self) -> None:
        """Accept a connection, after making room for it."""
        if len(self.active_channels) >= self.max_connections and not self.evict():
            self.refuse()
            return
        super().handle_accept()

    def evict(self) -> bool:
        """Close the connection that can best be spared; return whether there was one."""
        spared = [c for c in self.active_channels.values() if c.find_phase() in EVICTED]
        if not spared:
            return False
        min(spared, key=lambda c: (EVICTED.index(c.find_phase()), c.since)).handle_close()
        self.count_closed("evicted")
        return True

    def refuse(self) -> None:
        """Answer a new connection that there are too many."""
        self.count_closed("refused")
        try:
            if (accepted := self.accept()) is not None:
                accepted[0].send(TOO_MANY)
                accepted[0].close()
        except OSError:
            pass


class TcpServer(BufferingServer, TcpWSGIServer):  # type: ignore[misc]
    """Accepts connections over TCP."""


class UnixServer(BufferingServer, UnixWSGIServer):  # type: ignore[misc]
    """Accepts connections through a file."""


class ServerLimits(NamedTuple):
    """threads: that run the application. waiting_bytes: of all bodies together.

    body_bytes: largest body. large_bodies: larger ones, by the end of the path that takes them.
    """

    threads: int
    body_bytes: int
    waiting_bytes: int
    header_bytes: int = 16 * 1024
    large_bodies: Mapping[str, int] = MappingProxyType({})

    def find_body_limit(self, path: str) -> int:
        """Return the bytes of the largest body that a path takes."""
        larger = (most for end, most in self.large_bodies.items() if path.endswith(end))
        return next(larger, self.body_bytes)


def make_servers(
    application: Any,
    sockets: list[socket.socket],
    limits: ServerLimits,
    render_error: RenderError,
    connections: dict[int, Any],
    count_closed: CountClosed,
) -> list[BufferingServer]:
    """Start to accept connections on bound sockets; `connections` gets all that is polled."""
    adjustments = Adjustments(
        threads=limits.threads,
        # waitress rejects from this number on, not above it.
        max_request_body_size=max(limits.body_bytes, *limits.large_bodies.values(), 0) + 1,
        max_request_header_size=limits.header_bytes,
        cleanup_interval=CHECK_SECONDS,
        connection_limit=2 * MAX_CONNECTIONS,
        # Noticing that a client has left needs a look beyond its request.
        channel_request_lookahead=1,
        asyncore_use_poll=True,
        log_socket_errors=False,
        ident=None,
        clear_untrusted_proxy_headers=False,
    )
    dispatcher = ThreadedTaskDispatcher()
    dispatcher.set_thread_count(limits.threads)
    budget = BodyBudget(limits.waiting_bytes)
    servers = []
    for listener in sockets:
        kind = UnixServer if listener.family == socket.AF_UNIX else TcpServer
        server = kind(
            application,
            connections,
            _sock=listener,
            dispatcher=dispatcher,
            adj=adjustments,
            sockinfo=(listener.family, listener.type, listener.proto, listener.getsockname()),
            bind_socket=False,
        )
        server.budget, server.limits, server.render_error = budget, limits, render_error
        server.count_closed = count_closed
        server.max_connections = count_connections()
        servers.append(server)
    return servers


def close_servers(servers: list[BufferingServer], connections: dict[int, Any]) -> None:
    """Close all connections, whatever they are at, and end the threads."""
    for server in servers:
        for channel in list(server.active_channels.values()):
            channel.handle_close()
        server.task_dispatcher.shutdown(timeout=1)
    wasyncore.close_all(connections)


def count_connections() -> int:
    """Return how many connections may be open, as far as the system's limit of files allows."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return max(1, min(MAX_CONNECTIONS, soft - RESERVED_FILES))

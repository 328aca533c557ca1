"""A gunicorn worker whose threads only ever see whole requests.

gunicorn starts, watches and restarts the process, and listens; waitress does the rest
(connections.py). Its own workers give each connection a thread, so that a few slow ones stop all.
"""

import ctypes
import logging
import os
import socket
import time
from datetime import timedelta
from types import SimpleNamespace
from typing import Any

from gunicorn.workers.base import Worker
from waitress import wasyncore

from app.serving.connections import BufferingServer, ServerLimits, close_servers, make_servers

POLL_SECONDS = 0.5
"""Seconds after which a worker looks at its orders even if nothing happens."""
WAITING_BODIES = 2 * 1024**3
"""Bytes on disk that the bodies of unfinished requests may take together."""
M_ARENA_MAX = -8
"""Of glibc's mallopt: how many arenas threads may get for their memory."""


class BufferedWorker(Worker):  # type: ignore[misc]
    """Serves a Flask application; its extension `render_error` makes the pages for errors."""

    def init_process(self) -> None:
        """Prepare this process, load the application and serve."""
        use_one_arena()
        super().init_process()

    def run(self) -> None:
        """Serve until told to stop, then finish what has been begun."""
        if self.cfg.is_ssl:
            self.log.error("this worker speaks no TLS; put a proxy in front of it")
            raise SystemExit(2)
        # It would report each request that waits for a thread.
        logging.getLogger("waitress.queue").setLevel(logging.ERROR)
        connections: dict[int, Any] = {}
        servers = self.start_servers(connections)
        while self.alive and self.ppid == os.getppid():
            self.notify()
            wasyncore.loop(POLL_SECONDS, use_poll=True, map=connections, count=1)
        self.finish(servers, connections)

    def start_servers(self, connections: dict[int, Any]) -> list[BufferingServer]:
        """Accept connections on the sockets that gunicorn has opened."""
        for listener in self.sockets:
            listener.setblocking(False)
        flask = self.wsgi
        limits = ServerLimits(
            threads=self.cfg.threads,
            body_bytes=flask.config["MAX_CONTENT_LENGTH"],
            waiting_bytes=WAITING_BODIES,
            large_bodies=flask.config.get("LARGE_BODIES", {}),
        )
        sockets = [
            listener if isinstance(listener, socket.socket) else listener.sock
            for listener in self.sockets
        ]
        application = self.count_requests(self.log_requests(flask))
        render = flask.extensions["render_error"]
        count_closed = flask.extensions["metrics"].count_closed_connection
        return make_servers(application, sockets, limits, render, connections, count_closed)

    def finish(self, servers: list[BufferingServer], connections: dict[int, Any]) -> None:
        """Let requests that have been received be answered, at most for graceful_timeout."""
        end = time.monotonic() + self.cfg.graceful_timeout
        for server in servers:
            server.accepting = False
            server.del_channel()
        while time.monotonic() < end and self.has_unanswered(servers):
            self.notify()
            wasyncore.loop(POLL_SECONDS / 5, use_poll=True, map=connections, count=1)
        close_servers(servers, connections)

    def has_unanswered(self, servers: list[BufferingServer]) -> bool:
        """Whether a request waits for its answer."""
        channels = [c for server in servers for c in server.active_channels.values()]
        return any(c.find_phase() in ("working", "sending") for c in channels)

    def count_requests(self, application: Any) -> Any:
        """Have the worker replaced after gunicorn's max_requests."""

        def counted(environ: dict[str, Any], start_response: Any) -> Any:
            self.nr += 1
            if self.nr >= self.max_requests:
                self.alive = False
            return application(environ, start_response)

        return counted

    def log_requests(self, application: Any) -> Any:
        """Write gunicorn's access log, if it is switched on."""
        if not (self.cfg.accesslog or self.cfg.logconfig or self.cfg.logconfig_dict):
            return application

        def logged(environ: dict[str, Any], start_response: Any) -> Any:
            started, seen = time.monotonic(), SimpleNamespace(status="", headers=[], sent=None)

            def note(status: str, headers: list[tuple[str, str]], *rest: Any) -> Any:
                seen.status, seen.headers = status, headers
                seen.sent = dict(headers).get("Content-Length")
                return start_response(status, headers, *rest)

            answer = application(environ, note)
            asked = SimpleNamespace(headers=[])
            environ["RAW_URI"] = environ.get("REQUEST_URI", "")
            self.log.access(seen, asked, environ, timedelta(seconds=time.monotonic() - started))
            return answer

        return logged


def use_one_arena() -> None:
    """Let all threads take their memory from one place, where the C library is glibc.

    What each has freed it otherwise keeps for itself: 30 to 40 MB in a process.
    """
    if (set_option := getattr(ctypes.CDLL(None), "mallopt", None)) is not None:
        set_option(M_ARENA_MAX, 1)

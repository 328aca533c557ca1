"""A name for each request: in its answer, and in every line of the structured log about it."""

import re
import secrets

import structlog
from flask import Flask, Response, g, request

HEADER = "X-Request-ID"
SAFE_ID = re.compile(r"[A-Za-z0-9._-]{8,64}")
"""What is taken over from a client or a proxy: such as a UUID, and nothing that a log, a terminal
or a page could misread."""


def name_requests(app: Flask) -> None:
    """Give every request of an application an id, its client's own if that is safe."""
    app.before_request(assign_request_id)
    app.after_request(add_request_id)
    app.teardown_request(forget_request_id)


def assign_request_id() -> None:
    """Give the request an id, which the log's lines bear from now on."""
    structlog.contextvars.clear_contextvars()
    g.request_id = choose_request_id(request.headers.get(HEADER, ""))
    structlog.contextvars.bind_contextvars(request_id=g.request_id)


def choose_request_id(sent: str) -> str:
    """Return the id that was sent, or a new one if that is not safe."""
    return sent if SAFE_ID.fullmatch(sent) else secrets.token_hex(16)


def add_request_id(response: Response) -> Response:
    """Say the id in the answer."""
    response.headers[HEADER] = g.get("request_id") or secrets.token_hex(16)
    return response


def forget_request_id(_: BaseException | None) -> None:
    """End the request's part of the log; the thread goes on with another."""
    structlog.contextvars.clear_contextvars()

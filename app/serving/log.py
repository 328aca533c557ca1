"""What the log may say: no token that opens a result, and one line for each message.

As text, which is the default, or as one JSON object a line.
"""

import logging
import re
import sys
import time
from typing import Any

import structlog
from flask import Flask, Response, g, request

TOKEN_IN_PATH = re.compile(
    r"((?:results/(?:together/)?|uploads/|[?&]of=))[A-Za-z0-9_-]{22}(?![A-Za-z0-9_-])"
)
CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")
"""Characters that end a line or move a terminal's cursor."""
SERVER_LOGGERS = ("gunicorn.access", "gunicorn.error", "waitress")
request_log = logging.getLogger("alexnet.request")
server_log = logging.getLogger("alexnet.server")


def make_discreet(record: logging.LogRecord) -> bool:
    """Logging filter: replace tokens, so that the log gives no access to uploads, and escape
    control characters, so that an address cannot forge a line."""
    record.msg, record.args = escape_controls(redact_text(record.getMessage())), ()
    if record.exc_info:
        record.exc_text = redact_text(logging.Formatter().formatException(record.exc_info))
    return True


def escape_controls(text: str) -> str:
    """Write control characters as Python does, such as \\n."""
    return CONTROL.sub(lambda found: repr(found.group())[1:-1], text)


def redact_text(text: str) -> str:
    """Replace each token in an address or a path by an ellipsis."""
    return TOKEN_IN_PATH.sub(r"\1…", text)


def log_as_json() -> None:
    """Write everything that this process logs to the error stream, as one JSON object a line."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(make_json_formatter())
    handler.addFilter(make_discreet)
    root = logging.getLogger()
    root.handlers[:] = [handler]
    for log in (request_log, server_log):
        log.setLevel(logging.INFO)
    logging.captureWarnings(True)
    format_server_logs()


def format_server_logs() -> None:
    """Have the handlers that gunicorn has made for its own loggers write JSON, too."""
    for name in SERVER_LOGGERS:
        for handler in logging.getLogger(name).handlers:
            handler.setFormatter(make_json_formatter())


def make_json_formatter() -> logging.Formatter:
    """Return a formatter of JSON lines: time, level, logger, event, and the request's id."""
    return structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=[
            structlog.contextvars.merge_contextvars,
            structlog.stdlib.add_log_level,
            add_logger_name,
            structlog.stdlib.ExtraAdder(),
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            take_redacted_traceback,
        ],
        processors=[
            structlog.stdlib.ProcessorFormatter.remove_processors_meta,
            structlog.processors.JSONRenderer(),
        ],
    )


def add_logger_name(_: Any, __: str, event: structlog.typing.EventDict) -> Any:
    """Add the name of the logger."""
    event["logger"] = event["_record"].name
    return event


def take_redacted_traceback(_: Any, __: str, event: structlog.typing.EventDict) -> Any:
    """Add the traceback as `make_discreet` has left it."""
    event.pop("exc_info", None)
    if text := event["_record"].exc_text:
        event["exception"] = text
    return event


def log_requests(app: Flask, name_route: Any) -> None:
    """Log each answer: its route, never its path, which may contain what opens a result.

    name_route: returns the current request's route.
    """

    def log_answer(response: Response) -> Response:
        started = g.get("started")
        taken = None if started is None else round(1000 * (time.perf_counter() - started), 1)
        request_log.info(
            "request",
            extra={
                "method": request.method,
                "route": name_route(),
                "status": response.status_code,
                "milliseconds": taken,
            },
        )
        return response

    app.after_request(log_answer)

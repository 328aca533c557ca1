"""Turns exceptions into HTTP responses: an error page, or a problem document for a program."""

import errno
import logging

from flask import Flask, Response, current_app, g, make_response, render_template, request
from flask.globals import request_ctx
from flask_wtf.csrf import CSRFError
from werkzeug.exceptions import HTTPException, RequestEntityTooLarge

from app import context
from app.database.session import DatabaseError
from app.inference.mean_query import PickError
from app.inference.state import NotReadyError
from app.inference.switch_weights import SwitchError
from app.problems import (
    BUSY_RETRY_AFTER_SECONDS,
    DOCS_PATH,
    PROBLEM_KINDS,
    Problem,
    add_retry_after,
    describe_field_problem,
    describe_image_problem,
    describe_too_large_problem,
    describe_upload_problem,
    get_status_phrase,
    make_problem_response,
)
from app.serving.admission import BusyError, ClientGoneError
from app.serving.connections import RenderedError
from app.serving.limits import find_seconds_to_wait
from app.uploads.receive import FORM_OVERHEAD_BYTES, UploadError, describe_upload_limits
from app.views.setup import SETUP_REASONS, render_setup_page
from index.damage import DamageError
from index.engines.protocol import SearchError
from model.image.decode import ImageError

DISK_FULL_ERRNOS = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
HEADINGS = {
    400: "Bad request",
    403: "Not allowed",
    404: "Page not found",
    405: "Method not allowed",
    408: "The request took too long",
    413: "Too large",
    415: "Not a supported image",
    431: "Address or header too long",
    429: "Too many requests",
    500: "Server error",
    503: "Temporarily unavailable",
    507: "The disk is full",
}
SENTENCES = {
    400: "The request could not be understood.",
    404: "The address may be mistyped, or the page may have been deleted.",
    405: "This address does not accept this kind of request.",
    415: "The request contains a type of data that is not accepted.",
    431: "The address, or what the browser sends with it, is longer than this server accepts.",
    429: "You have sent more requests than this server accepts in so short a time. Wait a little.",
    500: "Your request did not cause this error. The server's log has the details.",
    503: "The server cannot respond at the moment. Try again in a minute.",
}
PROGRAM_PATHS = (DOCS_PATH, "/livez", "/readyz", "/healthz", "/metrics")
"""Paths that programs ask for, besides those below the first."""
TEMPORARY_REASONS = ("database", "disk", "search")
"""Reasons that may pass by waiting: a page with one of them is a 503, too."""
MAX_DRAINED_BYTES = 256 * 1024 * 1024


def register_errors(app: Flask) -> None:
    """Register a handler for every exception that a view may raise."""
    app.register_error_handler(HTTPException, handle_http_error)
    app.register_error_handler(CSRFError, handle_csrf_error)
    app.register_error_handler(RequestEntityTooLarge, handle_too_large_request)
    app.register_error_handler(UploadError, handle_upload_error)
    app.register_error_handler(ImageError, handle_image_error)
    app.register_error_handler(PickError, handle_pick_error)
    app.register_error_handler(SwitchError, handle_switch_error)
    app.register_error_handler(BusyError, handle_busy)
    app.register_error_handler(ClientGoneError, handle_client_gone)
    app.register_error_handler(NotReadyError, handle_not_ready)
    app.register_error_handler(DamageError, handle_damage)
    app.register_error_handler(DatabaseError, handle_database_error)
    app.register_error_handler(SearchError, handle_search_error)
    app.register_error_handler(OSError, handle_os_error)


def render_server_error(app: Flask, status: int, path: str) -> RenderedError:
    """Describe, as a page or for a program, a request that the server could not read.

    path: what was asked for, as far as it is known; only what it begins with matters.
    """
    program = path == DOCS_PATH or path.startswith(f"{DOCS_PATH}/")
    with app.test_request_context(DOCS_PATH if program else "/"):
        g.unreadable = True
        if status == 413:
            problem = describe_too_large_problem(context.settings(), path)
        else:
            sentence = SENTENCES.get(status) or f"{get_status_phrase(status)}."
            problem = Problem(status=status, sentence=sentence)
        response = app.process_response(make_error_response(problem))
        return RenderedError(response.status, list(response.headers), response.get_data())


def wants_json() -> bool:
    """Whether the request expects JSON."""
    return request.path in PROGRAM_PATHS or request.path.startswith(f"{DOCS_PATH}/")


def make_error_response(problem: Problem) -> Response:
    """Return a problem as a page, or as a problem document for a program.

    Of a host that may not be asked for there are no addresses, so that no page can be made.
    """
    if wants_json() or request_ctx.url_adapter is None:
        return make_problem_response(problem)
    settings = context.settings()
    page = render_template(
        "error.html",
        heading=problem.heading
        or HEADINGS.get(problem.status)
        or get_status_phrase(problem.status),
        sentence=problem.sentence,
        retry=problem.retry,
        limits=describe_upload_limits(settings),
    )
    return add_retry_after(make_response(page, problem.status))


def handle_http_error(error: HTTPException) -> Response:
    """Handle a status raised by Flask, Werkzeug or `abort`."""
    status = error.code or 500
    reply = make_error_response(describe_http_problem(error, status))
    for name, value in error.get_headers(request.environ):
        if name not in ("Content-Type", "Content-Length"):
            reply.headers[name] = value
    if status == 429:
        reply.headers["Retry-After"] = str(find_seconds_to_wait())
    return reply


def describe_http_problem(error: HTTPException, status: int) -> Problem:
    """Describe a status, or the fields that the parser of parameters rejected."""
    messages = getattr(error, "data", {}).get("messages")
    if messages:
        return describe_field_problem(messages, status)
    # Flask-Limiter's description is the limit itself.
    own = (
        error.description
        if status != 429 and error.description != type(error).description
        else None
    )
    return Problem(
        status=status, sentence=own or SENTENCES.get(status) or f"{get_status_phrase(status)}."
    )


def handle_csrf_error(error: CSRFError) -> Response:
    """Handle a form whose CSRF token is missing, too old, or another browser's."""
    sentence = (
        "The form is too old or came from another site, or your browser blocks cookies. "
        "Nothing was stored. Send it again from here."
    )
    return make_error_response(
        Problem(status=400, sentence=sentence, heading="Please send the form again", retry=True)
    )


def handle_too_large_request(error: RequestEntityTooLarge) -> Response:
    """Handle a request over the size limit, after reading the rest of it (`drain_request`)."""
    drain_request()
    return make_error_response(describe_too_large_problem(context.settings(), request.path))


def drain_request() -> None:
    """Read the rest of a rejected upload and discard it.

    If the connection closed while the browser is still sending, it would show a network error
    instead of this page. Only if the length is known, and at most MAX_DRAINED_BYTES.
    """
    length, most = request.content_length, request.max_content_length
    if length is None or most is None or length <= most:
        return
    left = min(length, MAX_DRAINED_BYTES)
    while left > 0 and (got := request.environ["wsgi.input"].read(min(left, FORM_OVERHEAD_BYTES))):
        left -= len(got)


def handle_upload_error(error: UploadError) -> Response:
    """Handle a form without the images it should have."""
    return make_error_response(describe_upload_problem(error, context.settings()))


def handle_image_error(error: ImageError) -> Response:
    """Handle a file that cannot be read as an image."""
    return make_error_response(describe_image_problem(error, context.settings()))


def handle_pick_error(error: PickError) -> Response:
    """Handle a choice of images that cannot be searched with."""
    return make_error_response(Problem(status=400, sentence=str(error)))


def handle_switch_error(error: SwitchError) -> Response:
    """Handle weights that cannot be switched to."""
    current_app.logger.warning("nothing was switched: %s", error.__cause__ or error)
    heading = "Nothing was switched"
    return make_error_response(Problem(status=409, sentence=str(error), heading=heading))


def handle_busy(error: BusyError) -> Response:
    """Ask to come back later."""
    kind = PROBLEM_KINDS["busy"]
    problem = Problem(
        status=503, kind="busy", sentence=kind.meaning, heading=kind.title, retry=True
    )
    response = make_error_response(problem)
    response.headers["Retry-After"] = str(BUSY_RETRY_AFTER_SECONDS)
    return response


def handle_client_gone(error: ClientGoneError) -> Response:
    """End a request whose answer nobody will read."""
    return Response(status=503)


def handle_not_ready(error: NotReadyError) -> Response:
    """Say what is missing, and which command fixes it."""
    reason, command = error.state.reason, error.state.command
    # The state's own message may name files of the server: it is for the log. A new home is nothing
    # to warn of, and its page is asked for again every few seconds.
    level = logging.INFO if reason in SETUP_REASONS else logging.WARNING
    current_app.logger.log(level, "%s", error)
    kind = PROBLEM_KINDS[reason]
    if wants_json():
        sentence = f"{kind.meaning} Run `{command}`." if command else kind.meaning
        return make_error_response(
            Problem(
                status=503,
                kind=reason,
                sentence=sentence,
                more={"command": command} if command else {},
            )
        )
    if reason in SETUP_REASONS:
        page = render_setup_page(reason)
    else:
        page = render_template(
            "notice.html", heading=kind.title, sentence=kind.meaning, command=command
        )
    shown = request.method in ("GET", "HEAD") and reason not in TEMPORARY_REASONS
    return add_retry_after(make_response(page, 200 if shown else 503))


def handle_damage(error: DamageError) -> Response:
    """Withdraw an index whose files are damaged."""
    return handle_not_ready(NotReadyError(context.loader().withdraw(error)))


def handle_database_error(error: DatabaseError) -> Response:
    """Handle a database that is locked, unreachable or full."""
    current_app.logger.error("%s", error)
    if error.is_disk_full:
        return make_error_response(describe_full_disk())
    heading = "The database is not available"
    return make_error_response(
        Problem(status=503, kind="database", sentence=SENTENCES[503], heading=heading)
    )


def handle_search_error(error: SearchError) -> Response:
    """Handle a search server that does not respond."""
    current_app.logger.error("%s", error)
    kind = PROBLEM_KINDS["search"]
    return make_error_response(
        Problem(status=503, kind="search", sentence=kind.meaning, heading=kind.title)
    )


def handle_os_error(error: OSError) -> Response:
    """Handle a full disk; any other error of the file system is a 500."""
    current_app.logger.exception("a file could not be used", exc_info=error)
    if error.errno in DISK_FULL_ERRNOS:
        return make_error_response(describe_full_disk())
    return make_error_response(Problem(status=500, sentence=SENTENCES[500]))


def describe_full_disk() -> Problem:
    """Describe a full disk."""
    sentence = "The server's disk is full, so the result could not be saved. Nothing was stored."
    return Problem(status=507, kind="no-room", sentence=sentence)

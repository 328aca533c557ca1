"""Where errors become HTTP: a page in the look of the others, or JSON for the API."""

import errno
from dataclasses import dataclass
from http import HTTPStatus

from flask import Flask, Response, current_app, jsonify, make_response, render_template, request
from flask_wtf.csrf import CSRFError
from werkzeug.exceptions import HTTPException, RequestEntityTooLarge

from app.config import Settings
from app.db import DatabaseError
from app.engine import NotReadyError
from app.uploads import FORM_BYTES, UploadError, accepted, too_many_bytes
from index.candidates import SearchError
from model.images import ImageError

FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
DATABASE_FULL = ("disk is full", "No space left")
"""What SQLite and PostgreSQL say when they have no room."""
STATUS_OF = {"empty": 400, "unknown": 415, "too-large": 413, "damaged": 400}
HEADINGS = {
    400: "That cannot be answered",
    404: "There is no such page",
    405: "That page does not take this",
    413: "That is too large",
    415: "That is not an image we can read",
    500: "Something went wrong here",
    503: "Not now",
    507: "There is no room left",
}
SENTENCES = {
    400: "The request could not be understood.",
    404: "The address may be mistyped, or what stood here has been deleted.",
    405: "The address exists, but not for this kind of request.",
    415: "The request holds a kind of data that is not accepted.",
    500: "The log of the server has the error; nothing that you did was wrong.",
    503: "The server cannot answer at the moment. Try again in a minute.",
}
NOTICES = {
    "no-weights": (
        "There is no trained network yet",
        "Labels and neighbours are found by a network trained on photographs; training makes one.",
    ),
    "no-index": (
        "There is no index yet",
        "The network is there, but the training images it compares with are not indexed yet.",
    ),
    "mismatch": (
        "The index is of other weights",
        "The index was made by other weights than those in use now; it has to be built again.",
    ),
    "damaged": (
        "Something stored is damaged",
        "The weights or the index cannot be read; the log says what is wrong with them.",
    ),
    "search": (
        "The index does not answer",
        "The index lies with another server, which does not answer at the moment.",
    ),
    "database": (
        "The database is not ready",
        "The database cannot be read, or its tables are not up to date; the log says more.",
    ),
}
PASSING = ("database", "search")
"""What may be mended by waiting: then the answer is a 503 for whoever asks, people or programs."""
RETRY_AFTER = 30
"""Seconds after which asking again may help."""
MOST_DRAINED = 256 * 1024 * 1024


@dataclass(frozen=True, kw_only=True)
class Problem:
    """What to tell: a status, a sentence, and whether another upload is the way on."""

    status: int
    sentence: str
    heading: str | None = None
    retry: bool = False


def register_errors(app: Flask) -> None:
    """Turn every error of the rooms below into an answer."""
    app.register_error_handler(HTTPException, on_http)
    app.register_error_handler(CSRFError, on_csrf)
    app.register_error_handler(RequestEntityTooLarge, on_too_large)
    app.register_error_handler(UploadError, on_upload)
    app.register_error_handler(ImageError, on_image)
    app.register_error_handler(NotReadyError, on_not_ready)
    app.register_error_handler(DatabaseError, on_database)
    app.register_error_handler(SearchError, on_search)
    app.register_error_handler(OSError, on_os)


def wants_json() -> bool:
    """Whether the request is one of the API's."""
    return request.path.startswith("/api/") or request.path == "/healthz"


def tell(problem: Problem) -> Response:
    """Make the answer, as a page or as JSON."""
    if wants_json():
        answer = jsonify(error=problem.sentence)
        answer.status_code = problem.status
        return timed(answer)
    settings: Settings = current_app.extensions["settings"]
    page = render_template(
        "error.html",
        heading=problem.heading or HEADINGS.get(problem.status) or phrase(problem.status),
        sentence=problem.sentence,
        retry=problem.retry,
        limits={"bytes": settings.upload_bytes, "accepted": accepted(settings)},
    )
    return timed(make_response(page, problem.status))


def timed(answer: Response) -> Response:
    """Say when to ask again, where asking again may help."""
    if answer.status_code == 503:
        answer.headers["Retry-After"] = str(RETRY_AFTER)
    return answer


def phrase(status: int) -> str:
    """Give the standard's own words for a status."""
    return HTTPStatus(status).phrase.capitalize()


def on_http(error: HTTPException) -> Response:
    """Answer for a status raised by Flask, Werkzeug or `abort`."""
    status = error.code or 500
    own = error.description if error.description != type(error).description else None
    sentence = own or SENTENCES.get(status) or f"{phrase(status)}."
    answer = tell(Problem(status=status, sentence=sentence))
    for name, value in error.get_headers(request.environ):
        if name not in ("Content-Type", "Content-Length"):
            answer.headers[name] = value
    return answer


def on_csrf(error: CSRFError) -> Response:
    """Answer for a form whose token is missing, old, or another browser's."""
    sentence = (
        "This form is too old, came from another site, or your browser refuses cookies. "
        "Nothing was kept; send it again from here."
    )
    return tell(
        Problem(status=400, sentence=sentence, heading="Please send that again", retry=True)
    )


def on_too_large(error: RequestEntityTooLarge) -> Response:
    """Answer for a request over the limit, after reading it past: see `drain`."""
    drain()
    return tell(Problem(status=413, sentence=too_many_bytes(settings_now()), retry=True))


def drain() -> None:
    """Read the rest of a refused upload and forget it.

    A connection closed while the browser is still sending shows it a network error, not this
    page. Only when nothing was read yet and the length is known, and not without end.
    """
    length, most = request.content_length, request.max_content_length
    if length is None or most is None or length <= most:
        return
    left = min(length, MOST_DRAINED)
    while left > 0 and (got := request.environ["wsgi.input"].read(min(left, FORM_BYTES))):
        left -= len(got)


def on_upload(error: UploadError) -> Response:
    """Answer for a form without the one image it should hold."""
    sentence = f"{error} Accepted: {accepted(settings_now())}"
    return tell(Problem(status=error.status, sentence=sentence, retry=True))


def on_image(error: ImageError) -> Response:
    """Answer for a file that cannot be taken as an image."""
    status = STATUS_OF[error.reason]
    heading = "That image cannot be read" if status == 400 else None
    return tell(Problem(status=status, sentence=str(error), heading=heading, retry=True))


def on_not_ready(error: NotReadyError) -> Response:
    """Say what is missing and the command that mends it: a page of its own when asked for one."""
    # The engine's own words may name files of the server: they are for the log.
    current_app.logger.warning("%s", error)
    heading, sentence = NOTICES[error.state.reason]
    if wants_json():
        return tell(Problem(status=503, sentence=f"{sentence} Run `{error.state.command}`."))
    page = render_template(
        "notice.html", heading=heading, sentence=sentence, command=error.state.command
    )
    settled = request.method in ("GET", "HEAD") and error.state.reason not in PASSING
    return timed(make_response(page, 200 if settled else 503))


def on_database(error: DatabaseError) -> Response:
    """Answer for a database that is locked, gone, or full."""
    current_app.logger.error("%s", error)
    if any(words in str(error) for words in DATABASE_FULL):
        return tell(no_room())
    return tell(
        Problem(status=503, sentence=SENTENCES[503], heading="The database does not answer")
    )


def on_search(error: SearchError) -> Response:
    """Answer for an index on another server that does not answer."""
    current_app.logger.error("%s", error)
    heading, sentence = NOTICES["search"]
    return tell(Problem(status=503, sentence=sentence, heading=heading))


def on_os(error: OSError) -> Response:
    """Answer for a full disk; anything else of the file system is a fault of the server."""
    current_app.logger.exception("a file could not be used", exc_info=error)
    if error.errno in FULL:
        return tell(no_room())
    return tell(Problem(status=500, sentence=SENTENCES[500]))


def no_room() -> Problem:
    """Say that nothing more can be stored."""
    sentence = "The disk of the server is full, so the result was not kept. Nothing was stored."
    return Problem(status=507, sentence=sentence)


def settings_now() -> Settings:
    """Give the settings of the running application."""
    settings: Settings = current_app.extensions["settings"]
    return settings

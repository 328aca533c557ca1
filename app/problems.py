"""What went wrong, and the document that tells a program so: RFC 9457, problem details."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any
from urllib.parse import quote

from flask import Response, request

from app.config import Settings
from app.uploads.receive import UploadError, accepted_formats, request_too_large_message
from model.decode import ImageError

MEDIA_TYPE = "application/problem+json"
DOCS_PATH = "/api"
"""The page that says what each kind means, under its name."""
RETRY_AFTER_SECONDS = 30
"""Seconds after which asking again may help."""
ACCEPTED_MEDIA_TYPES = ("image/jpeg", "image/png", "image/webp")


@dataclass(frozen=True, kw_only=True)
class ProblemKind:
    """A kind of problem that a program may act on: its status, its title, what it means."""

    status: int
    title: str
    meaning: str


PROBLEM_KINDS = {
    "no-weights": ProblemKind(
        status=503,
        title="There is no trained network yet",
        meaning="Labels and neighbours are found by a network trained on photographs; training "
        "makes one.",
    ),
    "no-index": ProblemKind(
        status=503,
        title="There is no index yet",
        meaning="The network is there, but the training images it compares with are not indexed "
        "yet.",
    ),
    "mismatch": ProblemKind(
        status=503,
        title="The index is of other weights",
        meaning="The index was made by other weights than those in use now; it has to be built "
        "again.",
    ),
    "damaged": ProblemKind(
        status=503,
        title="Something stored is damaged",
        meaning="The weights or the index cannot be read; the log says what is wrong with them.",
    ),
    "search": ProblemKind(
        status=503,
        title="The index does not answer",
        meaning="The index lies with another server, which does not answer at the moment.",
    ),
    "database": ProblemKind(
        status=503,
        title="The database is not ready",
        meaning="The database cannot be read, or its tables are not up to date; the log says more.",
    ),
    "upload": ProblemKind(
        status=400,
        title="There is no image to look at",
        meaning="The request holds no image, an empty one, or more than are taken at once.",
    ),
    "image-empty": ProblemKind(
        status=400,
        title="The image is empty",
        meaning="A file without a byte was sent.",
    ),
    "image-unknown": ProblemKind(
        status=415,
        title="That is not an image we can read",
        meaning="What was sent is none of the formats that are taken.",
    ),
    "image-damaged": ProblemKind(
        status=400,
        title="The image cannot be read",
        meaning="The file begins as an image and is broken further on.",
    ),
    "image-too-large": ProblemKind(
        status=413,
        title="The image is too large",
        meaning="The image has more pixels or its file more bytes than are taken.",
    ),
    "invalid": ProblemKind(
        status=422,
        title="Something in the request is not as described",
        meaning="A parameter or the body does not fit the description of the operation; "
        "its errors say which and why.",
    ),
    "no-room": ProblemKind(
        status=507,
        title="There is no room left",
        meaning="The disk of the server is full. Nothing was stored.",
    ),
}


@dataclass(frozen=True, kw_only=True)
class Problem:
    """What to tell: a status, a sentence, a page's heading, and whether to offer another upload.

    kind: one of `KINDS`, or nothing where the status says all. more: further members of the
    document.
    """

    status: int
    sentence: str
    kind: str = ""
    heading: str | None = None
    retry: bool = False
    more: Mapping[str, Any] = field(default_factory=dict)


def problem_document(problem: Problem) -> dict[str, Any]:
    """Put a problem into the members of RFC 9457; only within a request."""
    kind = problem.kind
    return {
        "type": f"{request.script_root}{DOCS_PATH}#{kind}" if kind else "about:blank",
        "title": PROBLEM_KINDS[kind].title if kind else HTTPStatus(problem.status).phrase,
        "status": problem.status,
        "detail": problem.sentence,
        "instance": quote(request.script_root + request.path),
        **problem.more,
    }


def problem_response(problem: Problem) -> Response:
    """Answer a program."""
    body = json.dumps(problem_document(problem), ensure_ascii=False)
    return add_retry_after(Response(f"{body}\n", problem.status, content_type=MEDIA_TYPE))


def add_retry_after(response: Response) -> Response:
    """Say when to ask again, where asking again may help."""
    if response.status_code == 503:
        response.headers["Retry-After"] = str(RETRY_AFTER_SECONDS)
    return response


def status_phrase(status: int) -> str:
    """Give the standard's own words for a status."""
    return HTTPStatus(status).phrase.capitalize()


def accepted_uploads(settings: Settings) -> dict[str, Any]:
    """What images are taken, for a program."""
    return {
        "types": list(ACCEPTED_MEDIA_TYPES),
        "bytes": settings.upload_bytes,
        "pixels": settings.upload_pixels,
        "files": settings.upload_files,
    }


def upload_problem(error: UploadError, settings: Settings) -> Problem:
    """Tell of a request without the images it should hold."""
    return Problem(
        status=error.status,
        kind="image-too-large" if error.status == 413 else "upload",
        sentence=f"{error} Accepted: {accepted_formats(settings)}",
        retry=True,
        more={"accepted": accepted_uploads(settings)},
    )


def image_problem(error: ImageError, settings: Settings) -> Problem:
    """Tell of a file that cannot be taken as an image."""
    kind = f"image-{error.reason}"
    status = PROBLEM_KINDS[kind].status
    return Problem(
        status=status,
        kind=kind,
        sentence=str(error),
        heading="That image cannot be read" if status == 400 else None,
        retry=True,
        more={"accepted": accepted_uploads(settings)},
    )


def request_too_large_problem(settings: Settings) -> Problem:
    """Tell of a request over the limit."""
    return Problem(
        status=413,
        kind="image-too-large",
        sentence=request_too_large_message(settings),
        retry=True,
        more={"accepted": accepted_uploads(settings)},
    )


def field_problem(messages: object, status: int) -> Problem:
    """Tell which fields of a request are wrong: what marshmallow says of each."""
    wrong = list(field_errors(messages))
    named = " ".join(f"{one['field'] or one['in']}: {one['detail']}" for one in wrong)
    return Problem(status=status, kind="invalid", sentence=named, more={"errors": wrong})


def field_errors(messages: object, path: tuple[str, ...] = ()) -> Iterator[dict[str, str]]:
    """Walk through marshmallow's messages: where each field stands, its name, what is wrong."""
    if isinstance(messages, Mapping):
        for name, inner in messages.items():
            yield from field_errors(inner, (*path, str(name)))
    elif isinstance(messages, list | tuple):
        for inner in messages:
            yield from field_errors(inner, path)
    else:
        where, *names = path or ("request",)
        own = [name for name in names if name != "_schema"]
        yield {"in": where, "field": ".".join(own), "detail": str(messages)}

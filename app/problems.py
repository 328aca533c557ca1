"""Problems as data, and as the documents that programs get: RFC 9457, problem details."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any
from urllib.parse import quote

from flask import Response, request

from app.classroom.zip_file import ZIP_PATH
from app.config import Settings
from app.uploads.receive import UploadError, describe_accepted_formats, explain_request_too_large
from model.image.decode import ImageError

MEDIA_TYPE = "application/problem+json"
DOCS_PATH = "/api"
"""The page that explains each kind of problem, under its name."""
RETRY_AFTER_SECONDS = 30
"""Seconds after which a retry may succeed."""
BUSY_RETRY_AFTER_SECONDS = 2
"""The same where others are being answered: as many as may wait take about a second."""
ACCEPTED_MEDIA_TYPES = ("image/jpeg", "image/png", "image/webp")


@dataclass(frozen=True, kw_only=True)
class ProblemKind:
    """A kind of problem that a program may act on: status, title and meaning."""

    status: int
    title: str
    meaning: str


PROBLEM_KINDS = {
    "no-weights": ProblemKind(
        status=503,
        title="There is no trained network yet",
        meaning="Labels and neighbours come from a network that has been trained on photographs; "
        "train one first.",
    ),
    "no-index": ProblemKind(
        status=503,
        title="There is no index yet",
        meaning="There is a trained network, but its training images have not been indexed yet.",
    ),
    "mismatch": ProblemKind(
        status=503,
        title="The weights of the index are missing",
        meaning="The weights that the index was built with are no longer there. Put their file "
        "back, or build an index with the weights there are.",
    ),
    "damaged": ProblemKind(
        status=503,
        title="The weights or the index are damaged",
        meaning="The weights or the index cannot be read; the log says why.",
    ),
    "search": ProblemKind(
        status=503,
        title="The search server is not responding",
        meaning="The index is on another server, which is not responding.",
    ),
    "database": ProblemKind(
        status=503,
        title="The database is not ready",
        meaning="The database cannot be read, or its tables are not up to date; the log says more.",
    ),
    "disk": ProblemKind(
        status=503,
        title="The disk is full",
        meaning="The disk that holds the database is full. Delete results, or make room.",
    ),
    "busy": ProblemKind(
        status=503,
        title="Too many requests are waiting",
        meaning="As many requests are waiting for their turn as the server accepts. Try again in a "
        "moment.",
    ),
    "upload": ProblemKind(
        status=400,
        title="There is no image in the request",
        meaning="The request contains no image, an empty file, or too many images.",
    ),
    "image-empty": ProblemKind(
        status=400,
        title="The image is empty",
        meaning="The file has no content.",
    ),
    "image-unknown": ProblemKind(
        status=415,
        title="Not a supported image",
        meaning="The file is not in any of the accepted formats.",
    ),
    "image-damaged": ProblemKind(
        status=400,
        title="The image cannot be read",
        meaning="The file starts like an image but is damaged.",
    ),
    "image-too-large": ProblemKind(
        status=413,
        title="The image is too large",
        meaning="The image has too many pixels, its file has too many bytes, or decoding it would "
        "take too much memory or time.",
    ),
    "invalid": ProblemKind(
        status=422,
        title="The request is invalid",
        meaning="A parameter or the body does not match the operation's description; "
        "“errors” lists what is wrong.",
    ),
    "no-room": ProblemKind(
        status=507,
        title="The disk is full",
        meaning="The server's disk is full. Nothing was stored.",
    ),
}


@dataclass(frozen=True, kw_only=True)
class Problem:
    """A problem: status, sentence, a page's heading, and whether to offer another upload.

    kind: one of `PROBLEM_KINDS`, or empty if the status says it all. more: further members of the
    document.
    """

    status: int
    sentence: str
    kind: str = ""
    heading: str | None = None
    retry: bool = False
    more: Mapping[str, Any] = field(default_factory=dict)


def dump_problem(problem: Problem) -> dict[str, Any]:
    """Return a problem's members as in RFC 9457; needs a request."""
    kind = problem.kind
    return {
        "type": f"{request.script_root}{DOCS_PATH}#{kind}" if kind else "about:blank",
        "title": PROBLEM_KINDS[kind].title if kind else HTTPStatus(problem.status).phrase,
        "status": problem.status,
        "detail": problem.sentence,
        "instance": quote(request.script_root + request.path),
        **problem.more,
    }


def make_problem_response(problem: Problem) -> Response:
    """Return a problem as a response for a program."""
    body = json.dumps(dump_problem(problem), ensure_ascii=False)
    return add_retry_after(Response(f"{body}\n", problem.status, content_type=MEDIA_TYPE))


def add_retry_after(response: Response) -> Response:
    """Add Retry-After to a 503 response."""
    if response.status_code == 503:
        response.headers["Retry-After"] = str(RETRY_AFTER_SECONDS)
    return response


def get_status_phrase(status: int) -> str:
    """Return the standard phrase for a status."""
    return HTTPStatus(status).phrase.capitalize()


def dump_upload_limits(settings: Settings) -> dict[str, Any]:
    """Return the limits of an upload, for a program."""
    return {
        "types": list(ACCEPTED_MEDIA_TYPES),
        "bytes": settings.upload_bytes,
        "pixels": settings.upload_pixels,
        "side": settings.upload_side,
        "files": settings.upload_files,
    }


def describe_upload_problem(error: UploadError, settings: Settings) -> Problem:
    """Describe a request without the images it should have."""
    return Problem(
        status=error.status,
        kind="image-too-large" if error.status == 413 else "upload",
        sentence=f"{error} Accepted: {describe_accepted_formats(settings)}",
        retry=True,
        more={"accepted": dump_upload_limits(settings)},
    )


def describe_image_problem(error: ImageError, settings: Settings) -> Problem:
    """Describe a file that cannot be read as an image."""
    kind = f"image-{error.reason}"
    status = PROBLEM_KINDS[kind].status
    return Problem(
        status=status,
        kind=kind,
        sentence=str(error),
        heading="That image cannot be read" if status == 400 else None,
        retry=True,
        more={"accepted": dump_upload_limits(settings)},
    )


def describe_too_large_problem(settings: Settings, path: str) -> Problem:
    """Describe a request, sent to a path, over the size limit."""
    if path.endswith(ZIP_PATH):
        sentence = f"The zip is larger than {settings.dataset_megabytes:,} MB, the limit for one."
        return Problem(status=413, sentence=sentence)
    return Problem(
        status=413,
        kind="image-too-large",
        sentence=explain_request_too_large(settings),
        retry=True,
        more={"accepted": dump_upload_limits(settings)},
    )


def describe_field_problem(messages: object, status: int) -> Problem:
    """Describe the invalid fields of a request, with marshmallow's message for each."""
    wrong = list(list_field_errors(messages))
    named = " ".join(f"{one['field'] or one['in']}: {one['detail']}" for one in wrong)
    return Problem(status=status, kind="invalid", sentence=named, more={"errors": wrong})


def list_field_errors(messages: object, path: tuple[str, ...] = ()) -> Iterator[dict[str, str]]:
    """Yield location, name and error of each field in marshmallow's nested messages."""
    if isinstance(messages, Mapping):
        for name, inner in messages.items():
            yield from list_field_errors(inner, (*path, str(name)))
    elif isinstance(messages, list | tuple):
        for inner in messages:
            yield from list_field_errors(inner, path)
    else:
        where, *names = path or ("request",)
        own = [name for name in names if name != "_schema"]
        yield {"in": where, "field": ".".join(own), "detail": str(messages)}

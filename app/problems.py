"""What went wrong, and the document that tells a program so: RFC 9457, problem details."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any
from urllib.parse import quote

from flask import Response, request

from app.config import Settings
from app.uploads.receive import UploadError, accepted, too_much_together
from model.preprocess import ImageError

MEDIA = "application/problem+json"
PAGE = "/api"
"""The page that says what each kind means, under its name."""
RETRY_AFTER = 30
"""Seconds after which asking again may help."""
ACCEPTED = ("image/jpeg", "image/png", "image/webp")


@dataclass(frozen=True, kw_only=True)
class Kind:
    """A kind of problem that a program may act on: its status, its title, what it means."""

    status: int
    title: str
    meaning: str


KINDS = {
    "no-weights": Kind(
        status=503,
        title="There is no trained network yet",
        meaning="Labels and neighbours are found by a network trained on photographs; training "
        "makes one.",
    ),
    "no-index": Kind(
        status=503,
        title="There is no index yet",
        meaning="The network is there, but the training images it compares with are not indexed "
        "yet.",
    ),
    "mismatch": Kind(
        status=503,
        title="The index is of other weights",
        meaning="The index was made by other weights than those in use now; it has to be built "
        "again.",
    ),
    "damaged": Kind(
        status=503,
        title="Something stored is damaged",
        meaning="The weights or the index cannot be read; the log says what is wrong with them.",
    ),
    "search": Kind(
        status=503,
        title="The index does not answer",
        meaning="The index lies with another server, which does not answer at the moment.",
    ),
    "database": Kind(
        status=503,
        title="The database is not ready",
        meaning="The database cannot be read, or its tables are not up to date; the log says more.",
    ),
    "upload": Kind(
        status=400,
        title="There is no image to look at",
        meaning="The request holds no image, an empty one, or more than are taken at once.",
    ),
    "image-empty": Kind(
        status=400,
        title="The image is empty",
        meaning="A file without a byte was sent.",
    ),
    "image-unknown": Kind(
        status=415,
        title="That is not an image we can read",
        meaning="What was sent is none of the formats that are taken.",
    ),
    "image-damaged": Kind(
        status=400,
        title="The image cannot be read",
        meaning="The file begins as an image and is broken further on.",
    ),
    "image-too-large": Kind(
        status=413,
        title="The image is too large",
        meaning="The image has more pixels or its file more bytes than are taken.",
    ),
    "invalid": Kind(
        status=422,
        title="Something in the request is not as described",
        meaning="A parameter or the body does not fit the description of the operation; "
        "its errors say which and why.",
    ),
    "no-room": Kind(
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


def document(problem: Problem) -> dict[str, Any]:
    """Put a problem into the members of RFC 9457; only within a request."""
    kind = problem.kind
    return {
        "type": f"{request.script_root}{PAGE}#{kind}" if kind else "about:blank",
        "title": KINDS[kind].title if kind else HTTPStatus(problem.status).phrase,
        "status": problem.status,
        "detail": problem.sentence,
        "instance": quote(request.script_root + request.path),
        **problem.more,
    }


def answer(problem: Problem) -> Response:
    """Answer a program."""
    body = json.dumps(document(problem), ensure_ascii=False)
    return timed(Response(f"{body}\n", problem.status, content_type=MEDIA))


def timed(response: Response) -> Response:
    """Say when to ask again, where asking again may help."""
    if response.status_code == 503:
        response.headers["Retry-After"] = str(RETRY_AFTER)
    return response


def phrase(status: int) -> str:
    """Give the standard's own words for a status."""
    return HTTPStatus(status).phrase.capitalize()


def taken(settings: Settings) -> dict[str, Any]:
    """What images are taken, for a program."""
    return {
        "types": list(ACCEPTED),
        "bytes": settings.upload_bytes,
        "pixels": settings.upload_pixels,
        "files": settings.upload_files,
    }


def of_upload(error: UploadError, settings: Settings) -> Problem:
    """Tell of a request without the images it should hold."""
    return Problem(
        status=error.status,
        kind="image-too-large" if error.status == 413 else "upload",
        sentence=f"{error} Accepted: {accepted(settings)}",
        retry=True,
        more={"accepted": taken(settings)},
    )


def of_image(error: ImageError, settings: Settings) -> Problem:
    """Tell of a file that cannot be taken as an image."""
    kind = f"image-{error.reason}"
    status = KINDS[kind].status
    return Problem(
        status=status,
        kind=kind,
        sentence=str(error),
        heading="That image cannot be read" if status == 400 else None,
        retry=True,
        more={"accepted": taken(settings)},
    )


def of_size(settings: Settings) -> Problem:
    """Tell of a request over the limit."""
    return Problem(
        status=413,
        kind="image-too-large",
        sentence=too_much_together(settings),
        retry=True,
        more={"accepted": taken(settings)},
    )


def of_fields(messages: object, status: int) -> Problem:
    """Tell which fields of a request are wrong: what marshmallow says of each."""
    wrong = list(each_field(messages))
    named = " ".join(f"{one['field'] or one['in']}: {one['detail']}" for one in wrong)
    return Problem(status=status, kind="invalid", sentence=named, more={"errors": wrong})


def each_field(messages: object, path: tuple[str, ...] = ()) -> Iterator[dict[str, str]]:
    """Walk through marshmallow's messages: where each field stands, its name, what is wrong."""
    if isinstance(messages, Mapping):
        for name, inner in messages.items():
            yield from each_field(inner, (*path, str(name)))
    elif isinstance(messages, list | tuple):
        for inner in messages:
            yield from each_field(inner, path)
    else:
        where, *names = path or ("request",)
        own = [name for name in names if name != "_schema"]
        yield {"in": where, "field": ".".join(own), "detail": str(messages)}

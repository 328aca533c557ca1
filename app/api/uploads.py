"""The images of a request: a form's files, or one as the body itself."""

import io
from collections.abc import Callable
from typing import Any

from flask import abort, request
from marshmallow import Schema, fields
from werkzeug.datastructures import FileStorage
from werkzeug.exceptions import RequestEntityTooLarge

from app import context
from app.config import Settings
from app.errors import drain_request
from app.problems import ACCEPTED_MEDIA_TYPES, image_problem, problem_document, upload_problem
from app.uploads.receive import (
    FIELD,
    Upload,
    UploadError,
    display_name,
    file_too_large_message,
    read_upload,
    sent_files,
)
from model.decode import ImageError

FORM_TYPE = "multipart/form-data"
IMAGE_TYPES = (*ACCEPTED_MEDIA_TYPES, "application/octet-stream")
EXPECTED_BODY = (
    f"Send a multipart form with the field “{FIELD}”, or the bytes of one image as "
    f"{', '.join(IMAGE_TYPES[:-1])} or {IMAGE_TYPES[-1]}."
)
ONE_IMAGE = {"type": "string", "format": "binary", "description": "JPEG, PNG or WebP"}
SEVERAL_IMAGES = {"type": "array", "items": ONE_IMAGE, "minItems": 1}
Process = Callable[[Upload], dict[str, Any]]


class RejectedUploadSchema(Schema):
    """An image among several that could not be taken, and why."""

    filename = fields.String(required=True)
    problem = fields.Nested("ProblemSchema", required=True)


def form_body(field: dict[str, Any]) -> dict[str, Any]:
    """Describe a form with one image, or several."""
    form = {"type": "object", "required": [FIELD], "properties": {FIELD: field}}
    return {FORM_TYPE: {"schema": form}}


def image_body(field: dict[str, Any], **others: Any) -> dict[str, Any]:
    """Describe a body that holds an image, or several, or something else."""
    raw = {kind: {"schema": ONE_IMAGE} for kind in IMAGE_TYPES}
    return {"required": True, "content": {**form_body(field), **raw, **others}}


def uploaded_files() -> list[FileStorage]:
    """Take the files of the request, at least one.

    Raises UploadError where there is none or there are too many; aborts with 413 or 415.
    """
    kind = request.mimetype
    if kind in IMAGE_TYPES or kind.startswith("image/"):
        return [FileStorage(io.BytesIO(read_image_body(context.settings())))]
    if kind not in (FORM_TYPE, ""):
        abort(415, f"{kind} is not taken. {EXPECTED_BODY}")
    return sent_files(request, context.settings())


def read_image_body(settings: Settings) -> bytes:
    """Read the body. Raises UploadError where it is larger than an image may be."""
    request.max_content_length = settings.upload_bytes
    try:
        return request.get_data(cache=False)
    except RequestEntityTooLarge:
        drain_request()
        raise UploadError(file_too_large_message(settings), 413) from None


def process_uploads(look: Process) -> list[dict[str, Any]]:
    """What `look` gives for every image; of several, a bad one has its problem in that place.

    One alone that is bad raises UploadError or ImageError.
    """
    sent = uploaded_files()
    if len(sent) == 1:
        return [look(read_upload(sent[0], context.settings()))]
    return [process_upload(file, look) for file in sent]


def process_upload(file: FileStorage, look: Process) -> dict[str, Any]:
    """Look at one of several images."""
    try:
        return look(read_upload(file, context.settings()))
    except UploadError as error:
        problem = upload_problem(error, context.settings())
    except ImageError as error:
        problem = image_problem(error, context.settings())
    return {"filename": display_name(file.filename), "problem": problem_document(problem)}

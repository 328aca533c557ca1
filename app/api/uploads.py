"""The images of a request: the files of a form, or one image as the body."""

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
from app.problems import (
    ACCEPTED_MEDIA_TYPES,
    describe_image_problem,
    describe_upload_problem,
    dump_problem,
)
from app.uploads.receive import (
    IMAGE_FIELD,
    Upload,
    UploadError,
    explain_file_too_large,
    list_sent_files,
    make_display_name,
)
from model.image.decode import ImageError

FORM_TYPE = "multipart/form-data"
IMAGE_TYPES = (*ACCEPTED_MEDIA_TYPES, "application/octet-stream")
EXPECTED_BODY = (
    f"Send a multipart form with the field “{IMAGE_FIELD}”, or the bytes of one image as "
    f"{', '.join(IMAGE_TYPES[:-1])} or {IMAGE_TYPES[-1]}."
)
ONE_IMAGE = {"type": "string", "format": "binary", "description": "JPEG, PNG or WebP"}
SEVERAL_IMAGES = {"type": "array", "items": ONE_IMAGE, "minItems": 1}
Process = Callable[[Upload], dict[str, Any]]


class RejectedUploadSchema(Schema):
    """One of several uploads that was rejected, and why."""

    filename = fields.String(required=True)
    problem = fields.Nested("ProblemSchema", required=True)


def describe_image_body(field: dict[str, Any], **others: Any) -> dict[str, Any]:
    """Describe a request body: a form with one image or several, an image, or another type."""
    form = {"type": "object", "required": [IMAGE_FIELD], "properties": {IMAGE_FIELD: field}}
    raw = {media_type: {"schema": ONE_IMAGE} for media_type in IMAGE_TYPES}
    return {"required": True, "content": {FORM_TYPE: {"schema": form}, **raw, **others}}


def read_uploaded_files() -> list[FileStorage]:
    """Return the files of the request, at least one.

    Raises UploadError if there are none or too many; aborts with 413 or 415.
    """
    kind = request.mimetype
    if kind in IMAGE_TYPES or kind.startswith("image/"):
        return [FileStorage(io.BytesIO(read_image_body(context.settings())))]
    if kind not in (FORM_TYPE, ""):
        abort(415, f"{kind} is not supported. {EXPECTED_BODY}")
    return list_sent_files(request, context.settings())


def read_image_body(settings: Settings) -> bytes:
    """Read the body. Raises UploadError if it is larger than an image may be."""
    request.max_content_length = settings.upload_bytes
    try:
        return request.get_data(cache=False)
    except RequestEntityTooLarge:
        drain_request()
        raise UploadError(explain_file_too_large(settings), 413) from None


def process_uploads(process: Process) -> list[dict[str, Any]]:
    """Process each image of the request; of several, an invalid one yields its problem.

    Raises UploadError or ImageError if a single image is invalid.
    """
    uploads = read_uploaded_files()
    if len(uploads) == 1:
        return [process(context.accept_upload(uploads[0]))]
    return [process_upload(file, process) for file in uploads]


def process_upload(file: FileStorage, process: Process) -> dict[str, Any]:
    """Process one of several images, or return its problem."""
    try:
        return process(context.accept_upload(file))
    except UploadError as error:
        problem = describe_upload_problem(error, context.settings())
    except ImageError as error:
        problem = describe_image_problem(error, context.settings())
    return {"filename": make_display_name(file.filename), "problem": dump_problem(problem)}

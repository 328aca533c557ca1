"""Receives uploaded images: takes them from a request, or says why it cannot."""

import re
import unicodedata
from dataclasses import dataclass
from pathlib import Path

from flask import Request
from werkzeug.datastructures import FileStorage

from app.config import Settings
from app.decoding.child import DecodeRequest

IMAGE_FIELD = "image"
MAX_NAME_LENGTH = 120
FORM_OVERHEAD_BYTES = 64 * 1024
"""Room in a request for what surrounds the files: boundaries, names, the form's token."""


class UploadError(ValueError):
    """An upload that cannot be accepted; the message is a sentence for people."""

    def __init__(self, message: str, status: int = 400) -> None:
        super().__init__(message)
        self.status = status


@dataclass(frozen=True, kw_only=True)
class Upload:
    """An uploaded file: its bytes, and a name that is only displayed, never used as a path.

    server_file: whether it is one of the server's own files, which may exceed the limits.
    """

    data: bytes
    filename: str
    server_file: bool = False


def list_sent_files(request: Request, settings: Settings) -> list[FileStorage]:
    """Return a form's files, unread, without the empty fields of unused file choosers.

    Raises UploadError for no file, for too many, and for a file in another field.
    """
    if other := next((name for name in request.files if name != IMAGE_FIELD), None):
        raise UploadError(
            f"A file was sent in the field “{make_display_name(other)}”; send images in the field "
            f"“{IMAGE_FIELD}”."
        )
    fields = request.files.getlist(IMAGE_FIELD)
    if not fields:
        raise UploadError(explain_missing_image(request))
    sent = [file for file in fields if file.filename or file.read(1)]
    if not sent:
        raise UploadError("No image was chosen.")
    if len(sent) > settings.upload_files:
        raise UploadError(
            f"{len(sent)} images were sent; at most {settings.upload_files} can be sent at a time.",
            413,
        )
    return sent


def read_upload(file: FileStorage, settings: Settings) -> Upload:
    """Read one file. Raises UploadError if it is empty or too large."""
    file.seek(0)
    data = file.read(settings.upload_bytes + 1)
    name = make_display_name(file.filename)
    if not data:
        raise UploadError(f"{name} is empty.")
    if len(data) > settings.upload_bytes:
        raise UploadError(explain_file_too_large(settings), 413)
    return Upload(data=data, filename=name)


def make_decode_request(settings: Settings) -> DecodeRequest:
    """Return a request to decode an upload within the limits of the settings."""
    return DecodeRequest(max_pixels=settings.upload_pixels, max_side=settings.upload_side)


def explain_missing_image(request: Request) -> str:
    """Say why a request has no image."""
    if IMAGE_FIELD in request.form:
        return f"The field “{IMAGE_FIELD}” contains text, not a file."
    if request.mimetype != "multipart/form-data":
        return f"No file was sent; send a multipart form with the field “{IMAGE_FIELD}”."
    return f"No image was sent; send it in the field “{IMAGE_FIELD}”."


def explain_file_too_large(settings: Settings) -> str:
    """Say that a file exceeds the limit in bytes."""
    return f"The file is larger than the limit of {settings.upload_megabytes} MB."


def explain_request_too_large(settings: Settings) -> str:
    """Say that a request exceeds the limit of all its images together."""
    most = settings.upload_files * settings.upload_megabytes
    return (
        f"The images are larger than {most} MB in total, the limit for one upload: "
        f"{settings.upload_files} images of up to {settings.upload_megabytes} MB each."
    )


def describe_upload_limits(settings: Settings) -> dict[str, int | str]:
    """Return what a form needs to know of the limits, in words and in numbers."""
    return {
        "accepted": describe_accepted_formats(settings),
        "bytes": settings.upload_bytes,
        "files": settings.upload_files,
    }


def describe_accepted_formats(settings: Settings) -> str:
    """Say in one sentence which files are accepted."""
    return (
        f"JPEG, PNG or WebP, up to {settings.upload_megabytes} MB "
        f"and {settings.upload_megapixels} megapixels."
    )


def make_display_name(name: str | None) -> str:
    """Shorten the browser's name for a file to one that can be displayed."""
    last = re.split(r"[/\\]", name or "")[-1]
    visible = "".join(c for c in last if c == " " or unicodedata.category(c)[0] not in "CZ").strip()
    if len(visible) > MAX_NAME_LENGTH:
        visible = f"{visible[: MAX_NAME_LENGTH - 12]}…{Path(visible).suffix[:12]}"
    return visible or "unnamed image"

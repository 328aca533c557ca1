"""Photographs sent by class in one form: taken by webcam, or chosen as files."""

import re
from collections.abc import Iterable, Mapping
from functools import partial

from werkzeug.datastructures import FileStorage

from app.classroom.datasets import (
    DatasetError,
    Incoming,
    IncomingPhotograph,
    PassedOver,
    check_class_name,
)
from app.uploads.receive import make_display_name
from model.dataset.folder import UPLOAD_SUFFIXES, is_photograph

MAX_PICTURES = 1500
"""In one request, of all classes together."""
MAX_FORM_PARTS = 2 * MAX_PICTURES
"""Fields and files of a request, so that one with too many pictures is still understood."""
FILES_FIELD = re.compile(r"photographs-(\d{1,4})")


def read_pictures(
    form: Mapping[str, str], files: Iterable[tuple[str, FileStorage]], max_file_bytes: int
) -> Incoming:
    """List the photographs of a form: `photographs-N` are of the class that `class-N` names.

    files: with their fields. Raises DatasetError; so does reading a photograph that is too large.
    """
    photographs: list[IncomingPhotograph] = []
    others: list[str] = []
    for field, file in files:
        found = FILES_FIELD.fullmatch(field)
        if not found or not file.filename:
            continue
        name = make_display_name(file.filename)
        typed = form.get(f"class-{found[1]}", "")
        if not typed.strip():
            raise DatasetError(f"Name the class of {name}.")
        if not is_photograph(name, UPLOAD_SUFFIXES):
            others.append(name)
            continue
        photographs.append(
            IncomingPhotograph(
                name=name,
                label=check_class_name(typed),
                split=None,
                read=partial(read_picture, file, name, max_file_bytes),
            )
        )
    if len(photographs) > MAX_PICTURES:
        raise DatasetError(
            f"{len(photographs):,} pictures are more than the {MAX_PICTURES:,} that can be sent at "
            "once; send a zip instead.",
            413,
        )
    return Incoming(photographs=photographs, passed_over=PassedOver().add(others))


def read_picture(file: FileStorage, name: str, max_bytes: int) -> bytes:
    """Read a picture. Raises DatasetError if it is too large."""
    data = file.stream.read(max_bytes + 1)
    if len(data) > max_bytes:
        raise DatasetError(f"{name} is larger than {max_bytes // 10**6:,} MB.", 413)
    return data

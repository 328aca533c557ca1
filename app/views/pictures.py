"""Pictures on the pages: always encoded here, never the bytes that were found or sent."""

import io
from collections.abc import Callable
from pathlib import Path

from flask import Response, current_app
from PIL import Image

from app import context
from app.decoding.child import DecodeRequest, Pixels
from app.web import check_not_modified, set_cache_headers
from model.image.decode import ImageError
from model.network.config import SQUARE_SIDE

JPEG_QUALITY = 88


def encode_picture(pixels: Pixels) -> bytes:
    """Encode uint8 [height, width, 3] as JPEG."""
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, "JPEG", quality=JPEG_QUALITY, optimize=True)
    return out.getvalue()


def encode_png(image: Image.Image) -> bytes:
    """Encode a picture that was drawn here as PNG."""
    out = io.BytesIO()
    image.save(out, "PNG")
    return out.getvalue()


def make_picture_response(
    data: bytes, etag: str, mimetype: str = "image/jpeg", *, version: str = ""
) -> Response:
    """Return an encoded picture; with a version it may be kept for a year (`set_cache_headers`)."""
    return set_cache_headers(Response(data, mimetype=mimetype), etag, version=version)


def serve_image_file(
    read: Callable[[], bytes],
    etag: str,
    *,
    whole: bool,
    version: str = "",
    encoded_here: bool = False,
) -> Response:
    """Return an image file of the owner's, or one that was written or checked here: its whole
    picture or its central square; 404 when it cannot be read.

    etag: empty for a picture that nobody may keep. encoded_here: the file was written by
    `encode_picture`, so the whole of it is sent as it is.
    """
    if etag and (fresh := check_not_modified(etag, version=version)):
        return fresh
    try:
        data = read()
        if not (whole and encoded_here):
            with context.compute_slot():
                side = 0 if whole else SQUARE_SIDE
                request = DecodeRequest(side=side, picture=whole, trusted=True)
                image = context.decoder().decode(data, request)
                data = encode_picture(image.picture if whole else image.square)
    except (ImageError, OSError):
        return make_missing_picture_response()
    if not etag:
        return Response(data, mimetype="image/jpeg")
    return make_picture_response(data, etag, version=version)


def make_missing_picture_response() -> Response:
    """Return 404 with a drawing in the picture's place."""
    file = Path(current_app.static_folder or "") / "shared" / "missing.svg"
    response = Response(file.read_bytes(), status=404, mimetype="image/svg+xml")
    response.cache_control.no_store = True
    return response

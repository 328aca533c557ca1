"""Pictures on the pages: always encoded here, never the bytes that were found or sent."""

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
from flask import Response, current_app
from PIL import Image

from app import context
from app.web import check_not_modified, set_cache_headers
from model.decode import ImageError, decode_image
from model.preprocess import cut_central_square

MAX_SIDE = 1024
MAX_ASPECT = 4
JPEG_QUALITY = 88


def encode_picture(image: Image.Image) -> bytes:
    """Encode an RGB image as JPEG, without any of its metadata."""
    out = io.BytesIO()
    # A copy of the pixels alone: Pillow would carry a colour profile or comment over.
    plain = Image.frombytes("RGB", image.size, image.tobytes())
    plain.save(out, "JPEG", quality=JPEG_QUALITY, optimize=True)
    return out.getvalue()


def encode_png(image: Image.Image) -> bytes:
    """Encode a picture that was drawn here as PNG."""
    out = io.BytesIO()
    image.save(out, "PNG")
    return out.getvalue()


def encode_square(pixels: npt.NDArray[np.uint8]) -> bytes:
    """Encode the square that the network sees, uint8 [256, 256, 3], as JPEG."""
    return encode_picture(Image.fromarray(pixels))


def encode_reduced(image: Image.Image) -> bytes:
    """Encode the whole picture, its longer side at most 1024 pixels.

    Beyond four to one the ends are cut off, so that the central square stays sharp.
    """
    width, height = image.size
    kept_width, kept_height = min(width, MAX_ASPECT * height), min(height, MAX_ASPECT * width)
    left, top = (width - kept_width) // 2, (height - kept_height) // 2
    reduced = image.crop((left, top, left + kept_width, top + kept_height))
    reduced.thumbnail((MAX_SIDE, MAX_SIDE), Image.Resampling.LANCZOS, reducing_gap=3.0)
    return encode_picture(reduced)


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
    """Return an image file's whole picture or central square; 404 when it cannot be read.

    etag: empty for a picture that nobody may keep. encoded_here: the file was written by
    `encode_reduced`, so the whole of it is sent as it is.
    """
    if etag and (fresh := check_not_modified(etag, version=version)):
        return fresh
    try:
        data = read()
        if not (whole and encoded_here):
            with context.compute_slot():
                image = decode_image(data)
                data = encode_reduced(image) if whole else encode_square(cut_central_square(image))
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

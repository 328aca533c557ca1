"""Pictures for the pages: always encoded here, never the bytes that were found or sent."""

import io
from pathlib import Path

import numpy as np
import numpy.typing as npt
from flask import Response, current_app, request
from PIL import Image

LONGEST = 1024
QUALITY = 88
YEAR = 365 * 24 * 3600


def encode(image: Image.Image) -> bytes:
    """Encode an RGB image as JPEG, without any of its metadata."""
    out = io.BytesIO()
    # A copy of the pixels alone: Pillow would carry a colour profile or comment over.
    plain = Image.frombytes("RGB", image.size, image.tobytes())
    plain.save(out, "JPEG", quality=QUALITY, optimize=True)
    return out.getvalue()


def png(image: Image.Image) -> bytes:
    """Encode a picture that was drawn here as PNG."""
    out = io.BytesIO()
    image.save(out, "PNG")
    return out.getvalue()


def encode_square(pixels: npt.NDArray[np.uint8]) -> bytes:
    """Encode what the network sees: uint8 [256, 256, 3]."""
    return encode(Image.fromarray(pixels))


def encode_reduced(image: Image.Image) -> bytes:
    """Encode the whole picture, its longer side at most 1024 pixels.

    Beyond four to one the ends are cut off, so that the central square stays sharp.
    """
    return encode(reduced(image))


def reduced(image: Image.Image) -> Image.Image:
    """Cut to at most four to one, then shrink to at most 1024 pixels."""
    width, height = image.size
    across, down = min(width, 4 * height), min(height, 4 * width)
    left, top = (width - across) // 2, (height - down) // 2
    cut = image.crop((left, top, left + across, top + down))
    cut.thumbnail((LONGEST, LONGEST), Image.Resampling.LANCZOS, reducing_gap=3.0)
    return cut


def not_modified(etag: str, *, for_long: bool = True) -> Response | None:
    """Give the 304 answer when the browser has this version already, before any work is done."""
    if not request.if_none_match.contains_weak(etag):
        return None
    return cached(Response(status=304), etag, for_long)


def cached(response: Response, etag: str, for_long: bool) -> Response:
    """Let the browser, and nothing on the way to it, keep a picture.

    With `for_long`, an address that names its version (`?v=`) is kept for a year; any other is
    asked about again each time.
    """
    response.set_etag(etag)
    response.cache_control.private = True
    if for_long and request.args.get("v") and etag.startswith(request.args["v"]):
        response.cache_control.max_age = YEAR
        response.cache_control.immutable = True
    else:
        response.cache_control.no_cache = True
    return response


def picture(
    data: bytes, etag: str, mimetype: str = "image/jpeg", *, for_long: bool = True
) -> Response:
    """Answer with an encoded picture."""
    return cached(Response(data, mimetype=mimetype), etag, for_long)


def missing() -> Response:
    """Answer 404 with a drawing in the picture's place."""
    file = Path(current_app.static_folder or "") / "missing.svg"
    response = Response(file.read_bytes(), status=404, mimetype="image/svg+xml")
    response.cache_control.no_store = True
    return response

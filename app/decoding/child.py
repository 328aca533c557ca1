"""The process that decodes images: it reads requests and writes answers, a line of JSON each.

`DecoderProcess` starts this file as a script, so that neither Flask nor torch is imported. The
file's bytes, and the pixels made of them, pass through a shared file in memory. Per image:

1. the request, with the number of bytes in the shared file, and the memory that it may take;
2. if it takes more: {"memory": BYTES}, which is answered by {"go": true}, or false to leave it;
3. {"size": [WIDTH, HEIGHT], "shapes": [SQUARE'S, PICTURE'S]}, or {"reason": …, "message": …}.
"""

import json
import os
import resource
import signal
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

if not __package__:
    # Run as a script, Python puts this file's folder on the path, not the project's root.
    sys.path[0] = str(Path(__file__).resolve().parents[2])

import numpy as np
import numpy.typing as npt
from PIL import Image

from model.image.containers.container import Container
from model.image.decode import (
    MAX_PIXELS,
    MAX_SIDE,
    ImageError,
    decode_container,
    estimate_memory,
    read_container,
)
from model.image.further_formats import find_further_kind
from model.image.preprocess import make_square
from model.network.config import Resize

MAX_PICTURE_SIDE = 1024
MAX_ASPECT = 4
MARGIN_BYTES = 64_000_000
"""Memory for the interpreter and for reading the file, beside what decoding takes."""

Pixels = npt.NDArray[np.uint8]


@dataclass(frozen=True, kw_only=True)
class DecodeRequest:
    """What is accepted, and what to make of it.

    max_pixels, max_side: as in `read_container`. side, resize: of the square, as in `make_square`;
    side 0 for none. picture: whether a picture for people is wanted too. trusted: whether the file
    is the owner's own, of which more kinds are read (model/image/further_formats.py); those have no
    limit of memory to keep to, since their decoders start threads, each of which reserves addresses
    that it never uses.
    """

    max_pixels: int = MAX_PIXELS
    max_side: int = MAX_SIDE
    side: int = 0
    resize: Resize = "bicubic"
    picture: bool = False
    trusted: bool = False

    def read_container(self, data: bytes) -> Container:
        """Read everything but the pixels. Raises ImageError."""
        return read_container(
            data, max_pixels=self.max_pixels, max_side=self.max_side, trusted=self.trusted
        )


@dataclass(frozen=True, kw_only=True)
class DecodedImage:
    """What was made of an image. Both arrays are empty unless they were requested.

    width, height: of the upright image, in pixels. square: uint8 [side, side, 3]. picture: the
    image as `shrink_picture` leaves it, uint8 [height, width, 3].
    """

    width: int
    height: int
    square: Pixels
    picture: Pixels


def decode_here(data: bytes, request: DecodeRequest) -> DecodedImage:
    """Decode in this process, for files that are trusted. Raises ImageError."""
    return make_decoded_image(request.read_container(data), request)


def make_decoded_image(container: Container, request: DecodeRequest) -> DecodedImage:
    """Decode an image and make what is requested of it. Raises ImageError."""
    image = decode_container(container)
    width, height = image.size
    square = picture = np.empty((0, 0, 3), np.uint8)
    if request.side:
        square = make_square(image, request.side, request.resize)
    if request.picture:
        picture = np.asarray(shrink_picture(image))
    return DecodedImage(width=width, height=height, square=square, picture=picture)


def shrink_picture(image: Image.Image) -> Image.Image:
    """Shrink an RGB image, perhaps in place, to at most 1024 pixels on its longer side.

    Beyond four to one the ends are cut off, so that the central square stays sharp.
    """
    width, height = image.size
    kept_width, kept_height = min(width, MAX_ASPECT * height), min(height, MAX_ASPECT * width)
    if (kept_width, kept_height) != image.size:
        left, top = (width - kept_width) // 2, (height - kept_height) // 2
        image = image.crop((left, top, left + kept_width, top + kept_height))
    image.thumbnail((MAX_PICTURE_SIDE, MAX_PICTURE_SIDE), Image.Resampling.LANCZOS, reducing_gap=3)
    return image


def serve_requests(shared: int, seconds: float) -> None:
    """Answer requests until standard input ends; `shared` is the shared file's descriptor.

    A request that takes longer than `seconds` of computing time ends the process by SIGPROF.
    """
    write_message({"ready": True})
    while request := read_message():
        signal.setitimer(signal.ITIMER_PROF, seconds)
        try:
            answer = answer_request(shared, request)
        except ImageError as error:
            answer = {"reason": error.reason, "message": str(error)}
        except MemoryError:
            message = "The image takes too much memory to decode. Make it smaller and try again."
            answer = {"reason": "too-large", "message": message}
        signal.setitimer(signal.ITIMER_PROF, 0)
        limit_memory(None)
        write_message(answer)


def answer_request(shared: int, message: dict[str, Any]) -> dict[str, Any]:
    """Decode the image in the shared file, and put pixels in its place. Raises ImageError."""
    size, granted = message.pop("bytes"), message.pop("granted")
    request = DecodeRequest(**message)
    data = os.pread(shared, size, 0)
    limited = not (request.trusted and find_further_kind(data))
    limit_memory(5 * size + MARGIN_BYTES if limited else None)
    container = request.read_container(data)
    del data  # what the container needs of it is its own
    memory = estimate_memory(container)
    if memory > granted:
        write_message({"memory": memory})
        if not read_message().get("go"):
            return {}
    limit_memory(memory + MARGIN_BYTES if limited else None)
    decoded = make_decoded_image(container, request)
    os.ftruncate(shared, 0)
    os.pwrite(shared, decoded.square.data, 0)
    os.pwrite(shared, decoded.picture.data, decoded.square.nbytes)
    shapes = [decoded.square.shape, decoded.picture.shape]
    return {"size": [decoded.width, decoded.height], "shapes": shapes}


def limit_memory(extra: int | None) -> None:
    """Let this process use so many bytes more than it does now; None for any number."""
    if sys.platform != "linux":
        return  # elsewhere the limit is not enforced, or cannot be set
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    soft = hard if extra is None else used + extra
    if hard != resource.RLIM_INFINITY:
        soft = min(soft, hard)
    resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


def read_message() -> dict[str, Any]:
    """Read a line of JSON from standard input; empty at its end."""
    message: dict[str, Any] = json.loads(sys.stdin.buffer.readline() or b"{}")
    return message


def write_message(message: dict[str, Any]) -> None:
    """Write a line of JSON to standard output."""
    sys.stdout.buffer.write(json.dumps(message).encode() + b"\n")
    sys.stdout.buffer.flush()


if __name__ == "__main__":
    signal.signal(signal.SIGPROF, signal.SIG_DFL)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    try:
        serve_requests(int(sys.argv[1]), float(sys.argv[2]))
    except BrokenPipeError:
        os._exit(1)  # the server is gone, and nobody reads what Python would say of that

"""A process that decodes images, seen from the server."""

import json
import os
import select
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from app.decoding.budget import MemoryBudget
from app.decoding.child import DecodedImage, DecodeRequest
from model.image.decode import ImageError

CHILD = Path(__file__).with_name("child.py")
START_SECONDS = 60
ORDINARY_BYTES = 200_000_000
"""Memory that is reserved before anything is known of an image; 15 megapixels take this much."""
WAITING_FACTOR = 20
"""Seconds to wait for each second of computing time: the machine may be busy."""
PASSED_VARIABLES = ("PATH", "LANG", "LC_", "LD_", "DYLD_", "PYTHON", "COVERAGE_")
"""Beginnings of the environment's variables that the process gets: none is a secret."""
EXTRA_VARIABLES = {
    # Of several threads, each would have address space of its own.
    "OPENBLAS_NUM_THREADS": "1",
    # Glibc would otherwise keep the memory of large images.
    "MALLOC_MMAP_THRESHOLD_": "1000000",
    "MALLOC_TRIM_THRESHOLD_": "1000000",
}


class ProcessEndedError(Exception):
    """The process has ended, or cannot be talked to any more."""


class NoAnswerError(ProcessEndedError):
    """The process has not answered for a long time."""


class DecoderProcess:
    """A running process of `app/decoding/child.py`. Not for several threads at once."""

    def __init__(self, seconds: float) -> None:
        """Start it. seconds: computing time per image. Raises ProcessEndedError and OSError."""
        self.patience = seconds * WAITING_FACTOR
        self.shared = create_shared_file()
        try:
            self.process = subprocess.Popen(
                [sys.executable, CHILD, str(self.shared), str(seconds)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                bufsize=0,
                pass_fds=[self.shared],
                env=select_variables() | EXTRA_VARIABLES,
                start_new_session=True,  # Ctrl-C in a terminal is for the server alone
            )
        except BaseException:
            os.close(self.shared)
            raise
        try:
            self.receive(START_SECONDS)
        except BaseException:
            self.stop()
            raise

    def is_running(self) -> bool:
        """Return whether the process is there, also if it was killed by something else."""
        return self.process.poll() is None

    def decode(self, data: bytes, request: DecodeRequest, budget: MemoryBudget) -> DecodedImage:
        """Decode an image. Raises ImageError, and ProcessEndedError; then it has to be stopped."""
        os.ftruncate(self.shared, 0)
        os.lseek(self.shared, 0, os.SEEK_SET)
        write_all(self.shared, data)
        granted = min(ORDINARY_BYTES, budget.max_bytes)
        with budget.reserve(granted):
            answer = self.ask({"bytes": len(data), "granted": granted, **asdict(request)})
        if "memory" in answer:
            answer = self.decode_large(answer["memory"], budget)
        return self.read_pixels(answer)

    def decode_large(self, memory: int, budget: MemoryBudget) -> dict[str, Any]:
        """Go on with an image that needs more memory than an ordinary one, when this is free."""
        with ExitStack() as reserved:
            try:
                reserved.enter_context(budget.reserve(memory))
            except ImageError:
                self.ask({"go": False})
                raise
            return self.ask({"go": True})

    def ask(self, message: dict[str, Any]) -> dict[str, Any]:
        """Send a message and return the answer. Raises the ImageError that it describes."""
        assert self.process.stdin is not None
        try:
            write_all(self.process.stdin.fileno(), json.dumps(message).encode() + b"\n")
        except BrokenPipeError as error:
            raise ProcessEndedError("it was gone before the request") from error
        answer = self.receive(self.patience)
        if "reason" in answer:
            raise ImageError(answer["message"], answer["reason"])
        return answer

    def receive(self, patience: float) -> dict[str, Any]:
        """Wait so many seconds for a message. Raises ProcessEndedError and NoAnswerError."""
        assert self.process.stdout is not None
        poll, deadline = select.poll(), time.monotonic() + patience
        poll.register(self.process.stdout, select.POLLIN)
        line = b""
        while not line.endswith(b"\n"):
            if not poll.poll(max(0.0, deadline - time.monotonic()) * 1000):
                raise NoAnswerError(f"no answer within {patience:.0f} seconds")
            part = os.read(self.process.stdout.fileno(), 4096)
            if not part:
                raise ProcessEndedError("it ended")
            line += part
        message: dict[str, Any] = json.loads(line)
        return message

    def read_pixels(self, answer: dict[str, Any]) -> DecodedImage:
        """Copy what was decoded out of the shared file."""
        square, picture = (np.empty(shape, np.uint8) for shape in answer["shapes"])
        if square.size:
            os.preadv(self.shared, [square.data], 0)
        if picture.size:
            os.preadv(self.shared, [picture.data], square.nbytes)
        os.ftruncate(self.shared, 0)
        width, height = answer["size"]
        return DecodedImage(width=width, height=height, square=square, picture=picture)

    def stop(self) -> int:
        """End the process and release what belongs to it; return its exit status."""
        self.process.kill()
        status = self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout):
            assert pipe is not None
            pipe.close()
        if self.shared >= 0:
            os.close(self.shared)
            self.shared = -1
        return status


def create_shared_file() -> int:
    """Create a file without a name, in memory where the system has this; return its descriptor."""
    if sys.platform == "linux":
        return os.memfd_create("image")
    with tempfile.TemporaryFile() as file:
        return os.dup(file.fileno())


def write_all(descriptor: int, data: bytes) -> None:
    """Write all bytes at the descriptor's position."""
    rest = memoryview(data)
    while rest:
        rest = rest[os.write(descriptor, rest) :]


def select_variables() -> dict[str, str]:
    """Return the environment's variables that the process gets."""
    return {name: text for name, text in os.environ.items() if name.startswith(PASSED_VARIABLES)}

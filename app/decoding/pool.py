"""Decodes the images of several threads in a few processes, within a budget of memory."""

import logging
import queue
import signal
import weakref

from app.decoding.budget import MemoryBudget
from app.decoding.child import DecodedImage, DecodeRequest
from app.decoding.process import DecoderProcess, NoAnswerError, ProcessEndedError
from model.image.decode import ImageError

logger = logging.getLogger(__name__)


class DecoderPool:
    """Decodes images in up to `processes` processes, started when they are first needed.

    max_bytes: the memory that decoding takes at once, all processes together; who asks for more
    than is free waits. seconds: computing time per image. The processes end with the pool or with
    this process; one that dies is replaced at the next request. For any number of threads.
    """

    def __init__(self, processes: int, max_bytes: int, seconds: float) -> None:
        self.seconds = seconds
        self.budget = MemoryBudget(max_bytes)
        self.running: set[DecoderProcess] = set()
        self.idle: queue.LifoQueue[DecoderProcess | None] = queue.LifoQueue()
        for _ in range(processes):
            self.idle.put(None)
        self.close = weakref.finalize(self, stop_processes, self.running)

    def decode(self, data: bytes, request: DecodeRequest) -> DecodedImage:
        """Decode an image, waiting for a process and for memory.

        Raises ImageError, also for an image that takes too much memory or time or makes the
        decoder crash, and ProcessEndedError if no process can be started.
        """
        process = self.take()
        try:
            decoded = process.decode(data, request, self.budget)
        except ImageError:
            self.idle.put(process)
            raise
        except ProcessEndedError as error:
            status = self.discard(process)
            raise self.explain_end(status, error) from error
        except BaseException:
            self.discard(process)  # or its next answer would be to this request
            raise
        self.idle.put(process)
        return decoded

    def warm_up(self) -> None:
        """Start a process, so that the first image need not wait for it."""
        self.idle.put(self.take())

    def take(self) -> DecoderProcess:
        """Wait for a process that is idle; start one in place of one that has ended."""
        process = self.idle.get()
        if process is not None and process.is_running():
            return process
        if process is not None:
            self.running.discard(process)
            process.stop()
        try:
            started = DecoderProcess(self.seconds)
        except BaseException:
            self.idle.put(None)
            raise
        self.running.add(started)
        return started

    def discard(self, process: DecoderProcess) -> int:
        """End a process, make room for another, and return its exit status."""
        self.running.discard(process)
        status = process.stop()
        self.idle.put(None)
        return status

    def explain_end(self, status: int, error: ProcessEndedError) -> ImageError:
        """Describe, for whoever sent the image, why its process ended."""
        logger.warning("a decoding process ended with status %d: %s", status, error)
        if status == -signal.SIGPROF or isinstance(error, NoAnswerError):
            why = f"takes longer than {self.seconds:g} seconds to decode"
        else:
            why = "cannot be decoded within the limits on memory and time"
        message = f"The image {why}. Make it smaller, or save it again, and try again."
        return ImageError(message, "too-large")


def stop_processes(running: set[DecoderProcess]) -> None:
    """End all processes."""
    while running:
        running.pop().stop()

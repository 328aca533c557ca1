"""Signals that ask a run to stop: recorded or forwarded, instead of ending the process."""

import os
import signal
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from multiprocessing.process import BaseProcess
from types import FrameType

STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT)
"""The signals that ask a run to stop."""


@contextmanager
def catch_stop_signals() -> Iterator[Callable[[], int]]:
    """Record SIGTERM and SIGINT; yield a function that returns the first one received, or 0.

    A second SIGINT raises KeyboardInterrupt, for users who do not want to wait for the
    checkpoint; not in one process of several, which may get the same Ctrl-C from both the
    terminal and the launcher.
    """
    received = 0

    def record(number: int, _frame: FrameType | None) -> None:
        nonlocal received
        if received and number == signal.SIGINT and not os.environ.get("LOCAL_RANK"):
            raise KeyboardInterrupt
        received = received or number

    with handle_stop_signals(record):
        yield lambda: received


@contextmanager
def forward_stop_signals(processes: Sequence[BaseProcess]) -> Iterator[list[int]]:
    """Terminate these processes when this one is asked to stop; yield the signals received.

    The processes save a checkpoint before they end.
    """
    received: list[int] = []

    def forward(number: int, _frame: FrameType | None) -> None:
        received.append(number)
        for process in processes:
            if process.is_alive():
                process.terminate()

    with handle_stop_signals(forward):
        yield received


@contextmanager
def handle_stop_signals(handler: Callable[[int, FrameType | None], None]) -> Iterator[None]:
    """Call `handler` on SIGTERM and SIGINT within the block."""
    before = [signal.signal(number, handler) for number in STOP_SIGNALS]
    try:
        yield
    finally:
        for number, old in zip(STOP_SIGNALS, before, strict=True):
            signal.signal(number, old)


@contextmanager
def block_interrupts() -> Iterator[None]:
    """Hold back SIGINT, also in processes started meanwhile, until `unblock_interrupts`."""
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        unblock_interrupts()


def unblock_interrupts() -> None:
    """Deliver SIGINT again, and one that was held back."""
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})

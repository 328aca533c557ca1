"""Signals that ask to stop: noted, or handed on, instead of dying of them."""

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
    """Note SIGTERM and SIGINT; give what tells the one noted, or 0.

    A second SIGINT interrupts at once, for people who do not want to wait for the checkpoint; but
    not one process of several, which may get the same Ctrl-C from the terminal and its starter.
    """
    noted = 0

    def note(number: int, _frame: FrameType | None) -> None:
        nonlocal noted
        if noted and number == signal.SIGINT and not os.environ.get("LOCAL_RANK"):
            raise KeyboardInterrupt
        noted = noted or number

    with handle_stop_signals(note):
        yield lambda: noted


@contextmanager
def forward_stop_signals(processes: Sequence[BaseProcess]) -> Iterator[list[int]]:
    """Have these processes save and end when this one is asked to; give the signals that came."""
    handed: list[int] = []

    def hand_on(number: int, _frame: FrameType | None) -> None:
        handed.append(number)
        for process in processes:
            if process.is_alive():
                process.terminate()

    with handle_stop_signals(hand_on):
        yield handed


@contextmanager
def handle_stop_signals(handler: Callable[[int, FrameType | None], None]) -> Iterator[None]:
    """Have this called for SIGTERM and SIGINT, for a while."""
    before = [signal.signal(number, handler) for number in STOP_SIGNALS]
    try:
        yield
    finally:
        for number, old in zip(STOP_SIGNALS, before, strict=True):
            signal.signal(number, old)


@contextmanager
def block_interrupts() -> Iterator[None]:
    """Let SIGINT wait, also in the processes started meanwhile, until `let_interrupts_in`."""
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        unblock_interrupts()


def unblock_interrupts() -> None:
    """Take SIGINT again, and what has waited."""
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})

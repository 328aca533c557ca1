"""What each abuse of the server is given and gives, and how the others fare meanwhile."""

import io
import re
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from experiments.abused_server import (
    Answer,
    Server,
    ask,
)

MAX_SECONDS = 10.0
"""How long others may wait for a page, or for a refusal, while the server is abused."""
STYLESHEET = re.compile(r'href="([^"]+\.css[^"]*)"')
MEGABYTE = 1_000_000


class Outcome(NamedTuple):
    """What was sent, what was seen, and whether it held; None if it could not be tried."""

    sent: str
    seen: str
    held: bool | None = None


@dataclass(frozen=True)
class Scene:
    """A server, a photograph to send, a folder for files; and its home, if it was started here."""

    address: str
    photograph: bytes
    place: Path
    home: Path | None = None
    server: Server | None = None

    @property
    def own_home(self) -> Path:
        """The home."""
        assert self.home is not None
        return self.home


def draw_photograph(side: int = 300, seed: int = 0) -> bytes:
    """Return a JPEG of noise, about as large as its number of pixels."""
    pixels = np.random.default_rng(seed).integers(0, 256, (side, side, 3), np.uint8)
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, "JPEG", quality=95)
    return out.getvalue()


@contextmanager
def watched(address: str) -> Iterator[dict[str, list[Answer]]]:
    """Ask for health and a stylesheet again and again, as others would, during the body."""
    found = STYLESHEET.search(ask(address, "/models").body.decode(errors="replace"))
    paths = {"health": "/livez", "stylesheet": found[1] if found else "/livez"}
    seen: dict[str, list[Answer]] = {name: [] for name in paths}
    ended = threading.Event()

    def watch(name: str) -> None:
        while not ended.is_set():
            seen[name].append(ask(address, paths[name]))
            ended.wait(0.05)

    threads = [threading.Thread(target=watch, args=(name,)) for name in paths]
    for thread in threads:
        thread.start()
    try:
        yield seen
    finally:
        ended.set()
        for thread in threads:
            thread.join()


def summarise(seen: dict[str, list[Answer]]) -> tuple[str, bool]:
    """Describe the others' latency, and whether each was answered in time."""
    words, held = [], True
    for name, answers in seen.items():
        slowest = max(answer.seconds for answer in answers)
        failed = sum(answer.status != 200 for answer in answers)
        held = held and not failed and slowest < MAX_SECONDS
        words.append(f"{name} {len(answers)} times, {1000 * slowest:.0f} ms at most")
        if failed:
            words[-1] += f", {failed} failed"
    return "; ".join(words), held


def count_statuses(answers: list[Answer]) -> str:
    """Say how often each status came."""
    counted = sorted(Counter(answer.status for answer in answers).items())
    return ", ".join(f"{count}× {status or 'closed'}" for status, count in counted)


def count_numbers(statuses: list[int]) -> str:
    """Say how often each status came."""
    return ", ".join(f"{count}× {status}" for status, count in sorted(Counter(statuses).items()))


def wait_until(condition: Callable[[], bool], *, seconds: float = 30) -> None:
    """Wait, so many seconds at most."""
    end = time.monotonic() + seconds
    while not condition() and time.monotonic() < end:
        time.sleep(0.2)

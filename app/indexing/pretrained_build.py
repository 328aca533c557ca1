"""Builds the index of the weights that ship: `python -m app.indexing.pretrained_build`.

app/indexing/pretrained.py starts it as a process of its own. The settings come pickled on its
input, which the server leaves open: when that ends, so has the server, and the build stops.
"""

import os
import pickle
import sys
import threading
from collections.abc import Callable

from app.config import Settings
from app.database.session import DatabaseError, session_factory
from app.indexing.build import BuildOptions, build_index
from app.indexing.pretrained import BUSY
from index.engines.protocol import SearchError
from index.manifest import StoreError
from model.dataset.folder import FolderError
from model.weights.header import WeightsError
from storage.pretrained import PRETRAINED_RUN
from storage.runs import RunFolder

NICENESS = 10
"""So that requests come first."""

BUILD_ERRORS = (StoreError, SearchError, DatabaseError, WeightsError, FolderError, OSError)


class ServerEndedError(Exception):
    """The server ends, and the build with it."""


def main() -> int | str:
    """Build the index; return what the process ends with: BUSY, or what went wrong."""
    settings = pickle.load(sys.stdin.buffer)  # noqa: S301 - from the server that started this
    os.nice(NICENESS)
    ended = threading.Event()
    threading.Thread(target=wait_for_end, args=(sys.stdin.fileno(), ended), daemon=True).start()
    try:
        build_pretrained_index(settings, ended)
    except ServerEndedError:
        return 0
    except BUILD_ERRORS as error:
        if isinstance(error, StoreError) and isinstance(error.__cause__, BlockingIOError):
            return BUSY
        return str(error)
    return 0


def wait_for_end(pipe: int, ended: threading.Event) -> None:
    """Set `ended` when nobody holds the other end of a pipe any more, given its descriptor.

    Python could not end while a daemon thread waits in `sys.stdin`, whose lock it holds.
    """
    while os.read(pipe, 1024):
        pass
    ended.set()


def build_pretrained_index(settings: Settings, ended: threading.Event) -> None:
    """Index the demo photographs with the weights that ship, unless that is done.

    Raises ServerEndedError as soon as `ended` is set, and BUILD_ERRORS.
    """

    def report(_name: str, _total: int) -> Callable[[int], None]:
        """Show no progress, but end the build when the server ends."""
        raise_if_ended()
        return lambda _done: raise_if_ended()

    def raise_if_ended() -> None:
        if ended.is_set():
            raise ServerEndedError

    home = settings.home
    options = BuildOptions(weights=RunFolder(home.runs / PRETRAINED_RUN).weights, data=home.demo)
    build_index(settings, session_factory(settings), report, options, if_needed=True)


if __name__ == "__main__":
    sys.exit(main())

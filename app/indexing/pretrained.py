"""Indexes the demo photographs with the weights that ship, while the application serves.

So they can be switched to with one click, and `make demo` need not wait for their index.
"""

import logging
import os
import sys
import threading
from collections.abc import Callable

from app.config import Settings
from app.database.session import DatabaseError, Sessions
from app.inference.loader import ModelLoader
from app.inference.state import Ready
from app.inference.weights_files import find_index_versions_by_weights
from index.engines.protocol import SearchError
from index.manifest import StoreError
from model.dataset import FolderError
from model.weights_header import WeightsError, read_weights_header
from storage.pretrained import PRETRAINED_RUN
from storage.runs import RunFolder

NICENESS = 10
"""Of the thread that builds, so that requests come first."""
RETRY_SECONDS = 10.0
"""How long to wait for a build in another process before trying again."""
STOP_SECONDS = 5.0
"""How long `stop` waits for the thread."""

BUILD_ERRORS = (StoreError, SearchError, DatabaseError, WeightsError, FolderError, OSError)


class StopBuildError(Exception):
    """The application ends, and the build with it."""


class PretrainedIndexing:
    """A thread that builds that index if it is missing.

    Of several processes of the server one builds at a time, by the lock that every build takes;
    the others wait beside their requests, and one of them takes over if the first is killed. A
    build that fails is logged, and tried again when the server starts the next time.
    """

    def __init__(self, settings: Settings, sessions: Sessions, loader: ModelLoader) -> None:
        self.settings, self.sessions, self.loader = settings, sessions, loader
        self.thread: threading.Thread | None = None
        self.stopping = threading.Event()
        self.is_running = False

    def start(self) -> None:
        """Start the thread, which first loads weights and index as a first request would."""
        self.thread = threading.Thread(target=self.run, name="first load", daemon=True)
        self.thread.start()

    def stop(self) -> None:
        """End a build that is running; the next one continues where it was."""
        self.stopping.set()
        if self.thread:
            self.thread.join(STOP_SECONDS)

    def run(self) -> None:
        """Load weights and index; build the other index if it is missing."""
        state = self.loader.get_state()
        try:
            if isinstance(state, Ready) and state.manifest.data == str(self.settings.home.demo):
                self.build_if_missing()
        except StopBuildError:
            pass
        except BUILD_ERRORS as error:
            logging.getLogger(__name__).warning("%s is not indexed: %s", PRETRAINED_RUN, error)
        finally:
            self.is_running = False

    def build_if_missing(self) -> None:
        """Build the index unless there is one, after any build that is running elsewhere.

        Raises StopBuildError and BUILD_ERRORS.
        """
        while self.is_missing():
            self.is_running = True
            try:
                self.build()
            except StoreError as error:
                if not isinstance(error.__cause__, BlockingIOError):
                    raise
                if self.stopping.wait(RETRY_SECONDS):
                    return
            else:
                return

    def is_missing(self) -> bool:
        """Whether the weights that ship are here and have no index.

        Raises WeightsError, DatabaseError and OSError.
        """
        home = self.settings.home
        weights = RunFolder(home.runs / PRETRAINED_RUN).weights
        if not weights.exists():
            return False
        identity = read_weights_header(weights).identity
        return identity not in find_index_versions_by_weights(home, self.sessions)

    def build(self) -> None:
        """Build the index. Raises StopBuildError and BUILD_ERRORS."""
        if sys.platform == "linux":
            # Of this thread and of those that it starts.
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), NICENESS)
        # Not above: building takes torch, which a server may do without.
        from app.indexing.build import BuildOptions, build_index

        home = self.settings.home
        options = BuildOptions(
            weights=RunFolder(home.runs / PRETRAINED_RUN).weights, data=home.demo
        )
        build_index(self.settings, self.sessions, self.report, options, if_needed=True)

    def report(self, _name: str, _total: int) -> Callable[[int], None]:
        """Show no progress, but end the build when the application ends."""
        self.raise_if_stopping()
        return lambda _done: self.raise_if_stopping()

    def raise_if_stopping(self) -> None:
        """Raise StopBuildError when the application ends."""
        if self.stopping.is_set():
            raise StopBuildError

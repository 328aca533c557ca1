"""Has the demo photographs indexed with the weights that ship, while the application serves.

So they can be switched to with one click, and the demo's own index need not wait for theirs. A
process of its own builds it: that takes torch and much memory, which the server does without.
"""

import logging
import os
import pickle
import subprocess
import sys
import threading
from contextlib import suppress
from pathlib import Path

from app.config import Settings
from app.database.session import DatabaseError, Sessions
from app.inference.loader import ModelLoader
from app.inference.state import Ready
from app.inference.weights_files import find_index_versions_by_weights
from model.runtime.prepared import is_torch_installed
from model.weights.header import WeightsError, read_weights_header
from storage.pretrained import PRETRAINED_RUN
from storage.runs import RunFolder

ROOT = Path(__file__).resolve().parents[2]
BUSY = os.EX_TEMPFAIL
"""The exit status of app/indexing/pretrained_build.py while another build is running."""
RETRY_SECONDS = 10.0
"""How long to wait for another build before trying again."""
STOP_SECONDS = 5.0
"""How long `stop` waits for the build to end; then it is killed."""
logger = logging.getLogger(__name__)


class PretrainedIndexing:
    """A thread that has that index built if it is missing.

    Of several processes of the server one builds at a time, by the lock that every build takes;
    the others wait beside their requests, and one of them takes over if the first is killed. A
    build that fails is logged, and tried again when the server starts the next time.
    """

    def __init__(self, settings: Settings, sessions: Sessions, loader: ModelLoader) -> None:
        self.settings, self.sessions, self.loader = settings, sessions, loader
        self.thread: threading.Thread | None = None
        self.process: subprocess.Popen[bytes] | None = None
        self.stopping = threading.Event()
        self.is_running = False

    def start(self) -> None:
        """Start the thread, which first loads weights and index as a first request would."""
        self.thread = threading.Thread(target=self.run, name="first load", daemon=True)
        self.thread.start()

    def stop(self) -> None:
        """End a build that is running; the next one continues where it was."""
        self.stopping.set()
        if self.process and self.process.stdin:
            self.process.stdin.close()
        if self.thread:
            self.thread.join(STOP_SECONDS)
            if self.process and self.thread.is_alive():
                self.process.kill()
                self.thread.join(STOP_SECONDS)

    def run(self) -> None:
        """Load weights and index once there are any; build the other index if it is missing."""
        while not isinstance(state := self.loader.get_state(), Ready):
            if self.stopping.wait(RETRY_SECONDS):
                return
        if state.manifest.data != str(self.settings.home.demo):
            return
        if not is_torch_installed():
            return  # such a server is given what it serves
        try:
            while self.is_missing() and not self.stopping.is_set():
                self.is_running = True
                status, error = self.build()
                if self.stopping.is_set():
                    return
                if status == BUSY:
                    self.stopping.wait(RETRY_SECONDS)
                elif status:
                    logger.warning("%s is not indexed: %s", PRETRAINED_RUN, error)
                    return
        except (WeightsError, DatabaseError, OSError) as error:
            logger.warning("%s is not indexed: %s", PRETRAINED_RUN, error)
        finally:
            self.is_running = False

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

    def build(self) -> tuple[int, str]:
        """Build the index in a process; return its exit status and the last line of its errors.

        Raises OSError if it cannot be started.
        """
        paths = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
        process = subprocess.Popen(
            [sys.executable, "-m", "app.indexing.pretrained_build"],
            cwd=ROOT,
            env=os.environ | {"PYTHONPATH": os.pathsep.join(paths)},
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            bufsize=0,
            start_new_session=True,  # Ctrl-C in a terminal is for the server alone
        )
        assert process.stdin is not None
        assert process.stderr is not None
        with process:
            with suppress(BrokenPipeError):  # if it died, its errors say why
                process.stdin.write(pickle.dumps(self.settings))
            self.process = process
            if self.stopping.is_set():
                process.stdin.close()
            errors = process.stderr.read().decode(errors="replace").strip().splitlines()
        return process.wait(), errors[-1] if errors else "it ended without a word"

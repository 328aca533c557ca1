"""How often a secret was guessed wrongly lately: after a few times nobody may try for a while."""

import threading
import time
from collections import deque
from collections.abc import Callable

MOST, SECONDS = 5, 60.0


class Tries:
    """Wrong tries in this process. At most MOST in SECONDS; may be used from several threads."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.clock = clock
        self.wrong: deque[float] = deque(maxlen=MOST)
        self.lock = threading.Lock()

    def wait(self) -> float:
        """Seconds until somebody may try again; 0 when at once."""
        with self.lock:
            if len(self.wrong) < MOST:
                return 0.0
            return max(self.wrong[0] + SECONDS - self.clock(), 0.0)

    def failed(self) -> None:
        """Count a wrong one."""
        with self.lock:
            self.wrong.append(self.clock())

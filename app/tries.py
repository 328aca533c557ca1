"""How often a secret was guessed wrongly lately: after a few times nobody may try for a while."""

import threading
import time
from collections import deque
from collections.abc import Callable

MAX_FAILURES, FAILURE_WINDOW = 5, 60.0


class RateLimit:
    """Wrong tries in this process. At most MOST in SECONDS; may be used from several threads."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.clock = clock
        self.wrong: deque[float] = deque(maxlen=MAX_FAILURES)
        self.lock = threading.Lock()

    def seconds_to_wait(self) -> float:
        """Seconds until somebody may try again; 0 when at once."""
        with self.lock:
            if len(self.wrong) < MAX_FAILURES:
                return 0.0
            return max(self.wrong[0] + FAILURE_WINDOW - self.clock(), 0.0)

    def record_failure(self) -> None:
        """Count a wrong one."""
        with self.lock:
            self.wrong.append(self.clock())

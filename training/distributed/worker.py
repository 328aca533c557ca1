"""One process of a run: its environment, its exit code, and what it reports.

A run of one process prints its errors itself. The processes of a larger run send them to the
launcher, which prints each once.
"""

import io
import multiprocessing
import os
import signal
import sys
import traceback
from collections.abc import Sequence
from dataclasses import dataclass, field
from multiprocessing.queues import SimpleQueue
from typing import Literal, Protocol

from rich.console import Console

from storage.home import home_from_environment
from storage.parallel import rank
from training.distributed.mesh import EXIT_PEER_LOST, PeerLostError
from training.distributed.signals import unblock_interrupts
from training.records.callbacks import StoppedError
from training.train import EXPECTED_ERRORS, train_from_options

EXIT_EXPLAINED = 2
"""Exit code of a process that has reported its error."""
Message = tuple[Literal["error", "hint", "peer lost"], str]
Messages = SimpleQueue[Message]


class Channel(Protocol):
    """Where a process sends its messages."""

    def send_error(self, text: str) -> None:
        """Send a line that the user should see once."""

    def send_hint(self, text: str) -> None:
        """Send how to resume, in case this process or another dies."""

    def send_peer_lost(self, reason: str) -> None:
        """Send torch's error when another process is gone and this one must end."""


@dataclass(frozen=True)
class StderrChannel:
    """Prints the messages: for a single process, and for one that torchrun started."""

    hints: list[str] = field(default_factory=list)

    def send_error(self, text: str) -> None:
        print(text, file=sys.stderr)  # noqa: T201

    def send_hint(self, text: str) -> None:
        self.hints.append(text)

    def send_peer_lost(self, reason: str) -> None:
        # Only rank 0 has a hint, so that one process prints the line.
        for hint in self.hints[-1:]:
            self.send_error(
                f"training/run.py: another process is gone ({reason}), which ends the run. {hint}"
            )


@dataclass(frozen=True)
class QueueChannel:
    """Sends the messages to the launcher, which prints each once."""

    messages: Messages

    def send_error(self, text: str) -> None:
        self.messages.put(("error", text))

    def send_hint(self, text: str) -> None:
        self.messages.put(("hint", text))

    def send_peer_lost(self, reason: str) -> None:
        self.messages.put(("peer lost", reason))


def train_in_process(arguments: Sequence[str], channel: Channel) -> int:
    """Train, alone or as one of several processes; return the exit code."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # where only ASCII can be written
    # Without markup: brackets in a path are no style.
    console = Console(markup=False, highlight=False, soft_wrap=True, quiet=rank() > 0)
    try:
        train_from_options(arguments, home_from_environment(), console, channel.send_hint)
    except EXPECTED_ERRORS as error:
        channel.send_error(f"training/run.py: {error}")
        return EXIT_EXPLAINED
    except (StoppedError, KeyboardInterrupt) as error:
        channel.send_error("training/run.py: interrupted")
        return 128 + getattr(error, "signal", signal.SIGINT)
    except PeerLostError as error:
        channel.send_peer_lost(str(error))
        return EXIT_PEER_LOST
    return 0


def run_worker(
    rank: int, arguments: Sequence[str], processes: int, port: int, messages: Messages
) -> None:
    """Run one process of several on this machine; the entry point that `launch` spawns.

    Sets the environment variables that torchrun would set.
    """
    launcher = multiprocessing.parent_process()
    if launcher is not None and not launcher.is_alive():
        raise SystemExit(EXIT_PEER_LOST)  # It died too early for the kernel to notify this process.
    os.environ |= {
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
        "WORLD_SIZE": str(processes),
        "LOCAL_WORLD_SIZE": str(processes),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
    }
    try:
        unblock_interrupts()
        code = train_in_process(arguments, QueueChannel(messages))
    except KeyboardInterrupt:
        code = 128 + signal.SIGINT
    except Exception:  # noqa: BLE001 - a bug: its traceback is shown by the process that hit it
        traceback.print_exc()
        code = 1
    raise SystemExit(code)

"""`python training/run.py`: train the network on a folder of photographs."""

import sys
from collections.abc import Sequence
from pathlib import Path

if not __package__:
    # Run as a script, Python puts this file's folder on the path, not the project's root.
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from rich.console import Console

from storage.home import home_from_environment
from training.distributed.launch import ProcessError, launch
from training.distributed.mesh import PEER_LOST, PeerLostError, rank
from training.distributed.messages import Channel, StderrChannel
from training.state import StoppedError
from training.train import EXPECTED_ERRORS, train_from_options


def work(arguments: Sequence[str], voice: Channel) -> int:
    """Train, as the only process or one of several; give the exit code."""
    console = Console(highlight=False, soft_wrap=True, quiet=rank() > 0)
    try:
        train_from_options(arguments, home_from_environment(), console, voice.note)
    except EXPECTED_ERRORS as error:
        voice.say(f"training/run.py: {error}")
        return 2
    except (StoppedError, KeyboardInterrupt) as error:
        voice.say("training/run.py: interrupted")
        return 128 + getattr(error, "signal", 2)
    except PeerLostError as error:
        voice.lost(str(error))
        return PEER_LOST
    return 0


def main() -> int:
    """0 when weights were made, 2 and one line when not, 128 + its number after a signal."""
    try:
        return launch(work, sys.argv[1:])
    except (ProcessError, *EXPECTED_ERRORS) as error:
        StderrChannel().say(f"training/run.py: {error}")
        return 2


if __name__ == "__main__":
    sys.exit(main())

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
from training.distributed.mesh import LOST, LostError, rank
from training.distributed.messages import Alone, Voice
from training.state import StoppedError
from training.train import EXPECTED, run


def work(arguments: Sequence[str], voice: Voice) -> int:
    """Train, as the only process or one of several; give the exit code."""
    console = Console(highlight=False, soft_wrap=True, quiet=rank() > 0)
    try:
        run(arguments, home_from_environment(), console, voice.note)
    except EXPECTED as error:
        voice.say(f"training/run.py: {error}")
        return 2
    except (StoppedError, KeyboardInterrupt) as error:
        voice.say("training/run.py: interrupted")
        return 128 + getattr(error, "signal", 2)
    except LostError as error:
        voice.lost(str(error))
        return LOST
    return 0


def main() -> int:
    """0 when weights were made, 2 and one line when not, 128 + its number after a signal."""
    try:
        return launch(work, sys.argv[1:])
    except (ProcessError, *EXPECTED) as error:
        Alone().say(f"training/run.py: {error}")
        return 2


if __name__ == "__main__":
    sys.exit(main())

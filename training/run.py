"""`python training/run.py`: train the network on a folder of photographs."""

import sys
from pathlib import Path

if not __package__:
    # Run as a script, Python puts this file's folder on the path, not the project's root.
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from rich.console import Console

from model.home import home_from_environment
from model.photographs import FolderError
from training.config import RecipeError
from training.fetch import FetchError
from training.loop import DivergedError
from training.prepare import DataError
from training.record import RunError
from training.stages import run

EXPECTED = (FolderError, DataError, RecipeError, RunError, FetchError, DivergedError, OSError)


def main() -> int:
    """Train; 0 when weights were made, 2 and one line when not, 130 when interrupted."""
    try:
        run(sys.argv[1:], home_from_environment(), Console(highlight=False, soft_wrap=True))
    except EXPECTED as error:
        print(f"training/run.py: {error}", file=sys.stderr)  # noqa: T201
        return 2
    except KeyboardInterrupt:
        print("training/run.py: interrupted", file=sys.stderr)  # noqa: T201
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""`python training/ship.py`: make the folder of weights that ships with the project from a run."""

import sys
from pathlib import Path

if not __package__:
    # Run as a script, Python puts this file's folder on the path, not the project's root.
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from rich.console import Console

from model.dataset.folder import FolderError
from model.weights.header import WeightsError
from storage.home import home_from_environment
from training.shipping.run import ShipError, ship


def main() -> int:
    """Return 0 on success, 2 after an error shown in one line."""
    try:
        ship(sys.argv[1:], home_from_environment(), Console(highlight=False, soft_wrap=True))
    except (ShipError, WeightsError, FolderError, OSError) as error:
        print(f"training/ship.py: {error}", file=sys.stderr)  # noqa: T201
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())

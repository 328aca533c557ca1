"""`python training/photographs.py`: find or fetch photographs, and print their folder."""

import argparse
import sys
from pathlib import Path

if not __package__:
    # Run as a script, Python puts this file's folder on the path, not the project's root.
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from rich.console import Console

from storage.home import home_from_environment
from storage.progress import show_step_bars
from training.dataset.demo import make_demo
from training.dataset.fetch import FetchError, fetch_imagenette


def main() -> int:
    """Return 0 on success, 2 after an error shown in one line."""
    parser = argparse.ArgumentParser(description="Find or fetch photographs; print their folder.")
    parser.add_argument(
        "--data", help="a folder, or imagenette, which is downloaded; by default the demo's"
    )
    name, home = parser.parse_args().data, home_from_environment()
    try:
        if not name:
            folder = make_demo(home.demo)
        elif name == "imagenette":
            with show_step_bars(Console(stderr=True)) as report:
                folder = fetch_imagenette(home.imagenette, report)
        else:
            folder = Path(name)
    except (FetchError, OSError) as error:
        print(f"training/photographs.py: {error}", file=sys.stderr)  # noqa: T201
        return 2
    print(folder)  # noqa: T201
    return 0


if __name__ == "__main__":
    sys.exit(main())

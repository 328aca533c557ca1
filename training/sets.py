"""`python training/sets.py`: list the prepared training sets, and remove those no longer used."""

import argparse
import sys
import time
from datetime import UTC, datetime
from pathlib import Path

if not __package__:
    # Run as a script, Python puts this file's folder on the path, not the project's root.
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from rich.console import Console
from rich.table import Table
from rich.text import Text

from storage.home import home_from_environment
from training.dataset.sets import StoredSet, list_sets, prune_sets

DAY = 24 * 3600


def main() -> int:
    """Return 0 on success, 2 after an error shown in one line."""
    parser = argparse.ArgumentParser(
        description="List the training sets that were decoded into ALEXNET_HOME/prepared."
    )
    parser.add_argument(
        "--prune",
        action="store_true",
        help="remove those whose photographs have changed or are gone, and unfinished ones; "
        "sets that an unfinished run needs stay",
    )
    parser.add_argument(
        "--unused-days", type=float, help="with --prune: also those unused for so many days"
    )
    options, console = parser.parse_args(), Console(highlight=False)
    if options.unused_days is not None and not options.prune:
        parser.error("--unused-days needs --prune")
    home = home_from_environment()
    try:
        sets = list_sets(home)
        if options.prune:
            days = options.unused_days
            sets = prune_sets(home, sets, None if days is None else time.time() - days * DAY)
    except OSError as error:
        print(f"training/sets.py: {error}", file=sys.stderr)  # noqa: T201
        return 2
    if sets:
        console.print(make_table(sets))
    size = sum(stored.size for stored in sets)
    verb = "Removed" if options.prune else "There are"
    console.print(f"{verb} {len(sets)} prepared sets of {size / 1e9:.2f} GB.")
    return 0


def make_table(sets: list[StoredSet]) -> Table:
    """Make a table of sets, a row each."""
    table = Table("set", "photographs", "images", "GB", "last used", "state")
    for stored in sets:
        state = stored.obsolete or "in use"
        if stored.runs:
            state += f"; needed by {', '.join(stored.runs)}"
        table.add_row(
            stored.folder.name,
            Text(stored.root),
            "" if stored.images is None else f"{stored.images:,}",
            f"{stored.size / 1e9:.2f}",
            f"{datetime.fromtimestamp(stored.used, UTC):%Y-%m-%d}",
            Text(state),
        )
    return table


if __name__ == "__main__":
    sys.exit(main())

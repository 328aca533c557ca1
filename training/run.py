"""`python training/run.py`: train the network on a folder of photographs."""

import signal
import sys
from pathlib import Path

if not __package__:
    # Run as a script, Python puts this file's folder on the path, not the project's root.
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
if __name__ == "__main__":
    # Importing takes seconds: until it is done, Ctrl-C ends the process without a traceback.
    signal.signal(signal.SIGINT, signal.SIG_DFL)

from training.distributed.launch import LAUNCH_ERRORS, launch


def main() -> int:
    """Return 0 on success, 2 after an error shown in one line, 128 + n after signal n."""
    try:
        return launch(sys.argv[1:])
    except LAUNCH_ERRORS as error:
        print(f"training/run.py: {error}", file=sys.stderr)  # noqa: T201
        return 2


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.default_int_handler)
    sys.exit(main())

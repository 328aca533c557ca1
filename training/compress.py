"""`python training/compress.py`: compress weights to a few megabytes, or decompress them."""

import sys
from pathlib import Path

if not __package__:
    # Run as a script, Python puts this file's folder on the path, not the project's root.
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from rich.console import Console

from storage.home import home_from_environment
from training.compression.options import CompressionError
from training.compression.run import compress
from training.train import EXPECTED_ERRORS


def main() -> int:
    """Return 0 on success, 2 after an error shown in one line, 130 when interrupted."""
    try:
        compress(sys.argv[1:], home_from_environment(), Console(highlight=False, soft_wrap=True))
    except (CompressionError, *EXPECTED_ERRORS) as error:
        print(f"training/compress.py: {error}", file=sys.stderr)  # noqa: T201
        return 2
    except KeyboardInterrupt:
        print("training/compress.py: interrupted", file=sys.stderr)  # noqa: T201
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())

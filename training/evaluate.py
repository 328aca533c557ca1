"""`python training/evaluate.py`: evaluate networks on labelled photographs."""

import sys
from pathlib import Path

if not __package__:
    # Run as a script, Python puts this file's folder on the path, not the project's root.
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from rich.console import Console

from model.dataset.folder import FolderError
from model.weights.header import WeightsError
from storage.home import home_from_environment
from training.evaluation.networks import NetworksError
from training.evaluation.predictions import PredictionError
from training.evaluation.run import EvaluationError, evaluate

EVALUATION_ERRORS = (
    FolderError,
    WeightsError,
    PredictionError,
    EvaluationError,
    NetworksError,
    OSError,
)


def main() -> int:
    """Return 0 on success, 2 after an error shown in one line, 130 when interrupted."""
    try:
        evaluate(sys.argv[1:], home_from_environment(), Console(highlight=False, soft_wrap=True))
    except EVALUATION_ERRORS as error:
        print(f"training/evaluate.py: {error}", file=sys.stderr)  # noqa: T201
        return 2
    except KeyboardInterrupt:
        print("training/evaluate.py: interrupted", file=sys.stderr)  # noqa: T201
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""What the application answers with, or why it cannot: the loader's results."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from app.database.images import IndexVersionInfo
from app.database.session import UPGRADE_COMMAND, DatabaseError
from index.calibration import Calibration
from index.engines.protocol import SearchError
from index.review.stored import Review
from index.sample import ImageSample
from index.store import Index, Manifest
from index.units import TopImages
from model.predict import Predictor
from model.weights.header import WeightsError

Reason = Literal["no-weights", "no-index", "mismatch", "damaged", "database", "disk", "search"]
PASSING_REASONS = ("database", "disk", "no-index", "search")
"""What may pass without any change of the links."""
BUILD_COMMAND, TRAIN_COMMAND = "flask index build", "python training/run.py"
STATS_COMMAND = "flask index stats"


@dataclass(frozen=True, kw_only=True)
class NotReady:
    """Why nothing can be classified, or no neighbours found. `command` fixes it, if one does.

    message: for the log, since it may name files of the server.
    """

    reason: Reason
    message: str
    command: str


@dataclass(frozen=True, kw_only=True)
class Ready:
    """Weights and an index built with them.

    sample: what the index stores of some images beyond their features; units: the images that
    excite each unit most; calibration: what is usual for validation images; review: what was found
    about its images. None for an index that was built without.
    """

    predictor: Predictor
    index: Index
    version: IndexVersionInfo
    sample: ImageSample | None = None
    calibration: Calibration | None = None
    review: Review | None = None
    units: TopImages | None = None

    @property
    def manifest(self) -> Manifest:
        """The index version's manifest."""
        return self.index.manifest


@dataclass(frozen=True, kw_only=True)
class LabelsOnly:
    """Weights without an index: they give labels, layers and filters, but no neighbours."""

    predictor: Predictor

    @property
    def missing(self) -> NotReady:
        """What neighbours lack."""
        message = "The training images are not indexed yet."
        return NotReady(reason="no-index", message=message, command=BUILD_COMMAND)


class NotReadyError(Exception):
    """Weights, or weights and an index built with them, are needed and missing."""

    def __init__(self, state: NotReady) -> None:
        advice = f" Run `{state.command}`." if state.command else ""
        super().__init__(f"{state.message}{advice}")
        self.state = state


def describe_missing_weights(link: Path) -> NotReady:
    """Describe that no weights exist yet."""
    message = f"There are no weights yet at {link}."
    return NotReady(reason="no-weights", message=message, command=TRAIN_COMMAND)


def describe_damaged_weights(error: WeightsError, command: str = TRAIN_COMMAND) -> NotReady:
    """Describe a weights file that cannot be used."""
    return NotReady(reason="damaged", message=f"{error}.", command=command)


def describe_outdated_tables() -> NotReady:
    """Describe a database that needs a migration."""
    message = "The database's tables belong to another version of the application."
    return NotReady(reason="database", message=message, command=UPGRADE_COMMAND)


def describe_unknown_version() -> NotReady:
    """Describe an index version that the database does not list."""
    message = "The database does not list the current index; it may be a different database."
    return NotReady(reason="no-index", message=message, command=BUILD_COMMAND)


def describe_database_error(error: DatabaseError) -> NotReady:
    """Describe a database that cannot be used now."""
    reason: Reason = "disk" if error.is_disk_full else "database"
    return NotReady(reason=reason, message=str(error), command=error.command)


def describe_failed_search(error: SearchError) -> NotReady:
    """Describe a search server that does not respond."""
    return NotReady(reason="search", message=f"{error}.", command=STATS_COMMAND)

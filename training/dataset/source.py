"""What `prepare` requires of a source of photographs, whether a folder or tar shards."""

from collections.abc import Iterator
from pathlib import Path
from typing import Literal, NamedTuple, Protocol

from model.dataset.folder import ClassName

SplitName = Literal["train", "val"]
SPLITS: tuple[SplitName, SplitName] = ("train", "val")


class DataError(ValueError):
    """Photographs that cannot be prepared for training."""


class UnfinishedError(DataError):
    """Preparation was interrupted. What was done is kept; calling again continues from there."""


class Sample(NamedTuple):
    """A photograph not yet decoded.

    where: its name in messages. label: its class. data: its bytes, or its file. name: what it is
    called within the source, wherever that lies.
    """

    where: str
    label: str
    data: bytes | Path
    name: str


class Source(Protocol):
    """A source of labelled photographs, divided into chunks."""

    @property
    def root(self) -> Path | str:
        """The folder, or the URL pattern."""

    @property
    def classes(self) -> tuple[ClassName, ...]:
        """The classes by index; empty if they are known only from the samples."""

    def fingerprint(self) -> str:
        """Return a text that changes when the content does."""

    def count_photographs(self) -> int:
        """Return how many photographs there are; an estimate for shards."""

    def count_chunks(self, split: SplitName) -> int:
        """Return how many chunks a split has."""

    def read_samples(self, split: SplitName, chunk: int) -> Iterator[Sample]:
        """Yield the photographs of one chunk, always in the same order."""

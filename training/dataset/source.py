"""A photograph before it is decoded, and what `prepare` asks of wherever photographs come from."""

from collections.abc import Iterator
from pathlib import Path
from typing import Literal, NamedTuple, Protocol

from model.dataset import ClassName

SplitName = Literal["train", "val"]
SPLITS: tuple[SplitName, SplitName] = ("train", "val")


class DataError(ValueError):
    """Photographs that cannot be prepared for training."""


class UnfinishedError(DataError):
    """Work that was cut off and that the same call takes up again: what was done is kept."""


class Sample(NamedTuple):
    """A photograph not yet decoded: a name for messages, its class, its bytes or its file."""

    where: str
    label: str
    data: bytes | Path


class Source(Protocol):
    """What `prepare` asks of either kind."""

    @property
    def root(self) -> Path | str:
        """The folder, or the URL pattern."""

    @property
    def classes(self) -> tuple[ClassName, ...]:
        """In the order of their indices; empty where only the samples tell."""

    def listing(self) -> str:
        """Name the content: another name when it changes."""

    def images(self) -> int:
        """How many photographs there are, or about how many."""

    def chunks(self, split: SplitName) -> int:
        """How many parts a split has."""

    def samples(self, split: SplitName, chunk: int) -> Iterator[Sample]:
        """Give the photographs of one part, always in the same order."""

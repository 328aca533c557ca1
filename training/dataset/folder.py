"""A folder's photographs, parted into chunks that can be decoded one after the other."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from model.dataset import ClassName, ImageFolder, Photograph, digest_listing
from training.dataset.source import Sample, SplitName

PHOTOGRAPHS_PER_CHUNK = 1024
"""Photographs of a folder that are decoded between two points to go on from: some seconds of work,
and at 256×256 a file of 200 MB."""


@dataclass(frozen=True)
class FolderSource:
    """A folder's listing in chunks."""

    folder: ImageFolder

    @property
    def root(self) -> Path:
        """The folder."""
        return self.folder.root

    @property
    def classes(self) -> tuple[ClassName, ...]:
        """Sorted by the folders' names."""
        return self.folder.classes

    def listing(self) -> str:
        """By the files' names, sizes and times, and how they are parted."""
        listed = (*self.folder.train, *self.folder.val)
        return f"{digest_listing(self.folder.root, listed)} {PHOTOGRAPHS_PER_CHUNK}"

    def images(self) -> int:
        """Exactly so many."""
        return len(self.folder.train) + len(self.folder.val)

    def chunks(self, split: SplitName) -> int:
        """Of CHUNK photographs each, the last of fewer."""
        return -(-len(self.photographs(split)) // PHOTOGRAPHS_PER_CHUNK)

    def samples(self, split: SplitName, chunk: int) -> Iterator[Sample]:
        """In the order of the listing."""
        for photograph in self.photographs(split)[chunk * PHOTOGRAPHS_PER_CHUNK :][
            :PHOTOGRAPHS_PER_CHUNK
        ]:
            path = self.root / photograph.path
            yield Sample(str(path), self.classes[photograph.class_index].folder, path)

    def photographs(self, split: SplitName) -> tuple[Photograph, ...]:
        """One split's listing."""
        return self.folder.train if split == "train" else self.folder.val

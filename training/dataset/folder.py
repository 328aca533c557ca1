"""A folder of photographs as a source, divided into chunks that are decoded one by one."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from model.dataset.folder import ClassName, ImageFolder, Photograph, digest_listing
from training.dataset.source import Sample, SplitName

PHOTOGRAPHS_PER_CHUNK = 1024
"""An interrupted preparation loses at most the chunk being written: some seconds of work. At
256×256 pixels a chunk is a file of 200 MB."""


@dataclass(frozen=True)
class FolderSource:
    """A listed folder, divided into chunks."""

    folder: ImageFolder

    @property
    def root(self) -> Path:
        """The folder, absolute."""
        return self.folder.root

    @property
    def classes(self) -> tuple[ClassName, ...]:
        """The classes, sorted by folder name."""
        return self.folder.classes

    def fingerprint(self) -> str:
        """Return a digest of the files' names, sizes and times, and the chunk size."""
        listed = (*self.folder.train, *self.folder.val)
        return f"{digest_listing(self.folder.root, listed)} {PHOTOGRAPHS_PER_CHUNK}"

    def count_photographs(self) -> int:
        """Return how many photographs both splits have."""
        return len(self.folder.train) + len(self.folder.val)

    def count_chunks(self, split: SplitName) -> int:
        """Return how many chunks a split has; the last one may be smaller."""
        return -(-len(self.list_split(split)) // PHOTOGRAPHS_PER_CHUNK)

    def read_samples(self, split: SplitName, chunk: int) -> Iterator[Sample]:
        """Yield the photographs of one chunk, in the order of the listing."""
        first = chunk * PHOTOGRAPHS_PER_CHUNK
        for photograph in self.list_split(split)[first : first + PHOTOGRAPHS_PER_CHUNK]:
            path = self.root / photograph.path
            label = self.classes[photograph.class_index].folder
            yield Sample(str(path), label, path, photograph.path)

    def list_split(self, split: SplitName) -> tuple[Photograph, ...]:
        """Return the photographs of one split."""
        return self.folder.train if split == "train" else self.folder.val

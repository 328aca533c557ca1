"""Images in Parquet files, as Hugging Face distributes data sets: `data/train-*.parquet`."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from model.dataset.folder import ClassName, Photograph, digest_listing
from training.dataset.source import DataError, Sample, SplitName

VALIDATION_NAMES = ("validation", "val", "valid", "test")
"""What the files of the validation set begin with; the first that exists is taken."""
ROWS_PER_BATCH = 64
"""Images that are in memory at a time."""


@dataclass(frozen=True)
class ParquetFiles:
    """Parquet files of a training and a validation set, as a source; a file is a chunk.

    train, val: paths relative to `root`, in order.
    """

    root: Path
    train: tuple[str, ...]
    val: tuple[str, ...]

    @cached_property
    def columns(self) -> tuple[str, str]:
        """The names of the columns of images and of labels. Raises DataError."""
        schema = self.read_schema()
        images = [f.name for f in schema if "struct" in str(f.type) and "bytes" in str(f.type)]
        labels = [f.name for f in schema if str(f.type).startswith(("int", "uint"))]
        label = "label" if "label" in labels else next(iter(labels), None)
        if not images or label is None:
            raise DataError(
                f"{self.root / self.train[0]} needs a column of images (bytes and path) and one of "
                f"labels (numbers), but has {', '.join(map(str, schema.names))}"
            )
        return images[0], label

    @cached_property
    def classes(self) -> tuple[ClassName, ...]:
        """The classes that the files' description names, by number; empty if it names none."""
        metadata = self.read_schema().metadata or {}
        try:
            features = json.loads(metadata[b"huggingface"])["info"]["features"]
            names = features[self.columns[1]]["names"]
        except (KeyError, TypeError, ValueError):
            return ()
        if len(set(names)) != len(names):
            raise DataError(f"{self.root / self.train[0]} names a class twice")
        return tuple(ClassName(str(name), str(name)) for name in names)

    def read_schema(self) -> Any:
        """Read the columns of the first file. Raises DataError."""
        with open_parquet(self.root / self.train[0]) as file:
            return file.schema_arrow

    def fingerprint(self) -> str:
        """Return a digest of the files' names, sizes and times."""
        files = [Photograph(name, 0) for name in (*self.train, *self.val)]
        return f"parquet {digest_listing(self.root, files)}"

    def describe(self) -> str:
        """Describe what the files hold."""
        return (
            f"{len(self.train):,} Parquet files with {self.count_rows(self.train):,} photographs, "
            f"{self.count_rows(self.val):,} for validation ({self.val[0]})"
        )

    def count_rows(self, names: tuple[str, ...]) -> int:
        """Count the rows of files. Raises DataError."""
        count = 0
        for name in names:
            with open_parquet(self.root / name) as file:
                count += file.metadata.num_rows
        return count

    def count_photographs(self) -> int:
        """Return how many photographs both splits have. Raises DataError."""
        return self.count_rows((*self.train, *self.val))

    def count_chunks(self, split: SplitName) -> int:
        """Return how many files a split has."""
        return len(self.train if split == "train" else self.val)

    def read_samples(self, split: SplitName, chunk: int) -> Iterator[Sample]:
        """Yield the photographs of one file. Raises DataError."""
        name = (self.train if split == "train" else self.val)[chunk]
        image, label = self.columns
        row = 0
        with open_parquet(self.root / name) as file:
            for batch in file.iter_batches(batch_size=ROWS_PER_BATCH, columns=[image, label]):
                for one in batch.to_pylist():
                    where = f"{self.root / name}: row {row:,}"
                    data = (one[image] or {}).get("bytes") or b""
                    yield Sample(where, self.name_class(one[label], where), data, f"{name}/{row}")
                    row += 1

    def name_class(self, number: int | None, where: str) -> str:
        """Return the folder name of a class. Raises DataError if there is none."""
        if number is None or number < 0:
            raise DataError(f"{where} has no label")
        if not self.classes:
            return str(number)
        if number >= len(self.classes):
            raise DataError(
                f"{where} has the label {number}, the last one named is {len(self.classes) - 1}"
            )
        return self.classes[number].folder


def find_parquet(root: Path) -> ParquetFiles | None:
    """Return a folder's Parquet files, there or in `data`; None if it has none.

    Raises DataError if there are none for training or for validation.
    """
    for folder in (root, root / "data"):
        found = sorted(path.relative_to(root).as_posix() for path in folder.glob("*.parquet"))
        if not found:
            continue
        by_split: dict[str, list[str]] = {}
        for name in found:
            by_split.setdefault(Path(name).name.split("-")[0].split(".")[0], []).append(name)
        val = next((name for name in VALIDATION_NAMES if name in by_split), None)
        if "train" not in by_split or val is None:
            raise DataError(
                f"{folder} holds Parquet files of {', '.join(by_split)}; files whose names begin "
                f"with train and with {', '.join(VALIDATION_NAMES)} are needed"
            )
        return ParquetFiles(root, tuple(by_split["train"]), tuple(by_split[val]))
    return None


@contextmanager
def open_parquet(file: Path) -> Iterator[Any]:
    """Open a Parquet file; whatever is wrong with it while it is read raises DataError."""
    try:
        # Not above: the package is optional, and large.
        import pyarrow
        from pyarrow.parquet import ParquetFile
    except ImportError as error:
        raise DataError(
            f"{file} takes the package pyarrow; install the project with its extra parquet"
        ) from error
    try:
        with ParquetFile(file) as opened:
            yield opened
    except (pyarrow.ArrowException, OSError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else "it is damaged"
        raise DataError(f"{file} cannot be read: {reason}") from error

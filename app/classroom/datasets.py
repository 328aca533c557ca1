"""Data sets of the classroom: `datasets/NAME/train/CLASS/*` and `val/CLASS/*` in ALEXNET_HOME.

So that training and index take them as they are. A data set is written under a hidden name and
renamed, so that it is there as a whole or not at all.
"""

import json
import os
import re
import shutil
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Literal

from model.dataset.folder import Photograph, is_ignored, list_files_below
from model.image.decode import ImageError
from storage.files import fsync_folder, lock_file, write_atomically
from storage.home import Home
from storage.tolerant_json import (
    bounded_text,
    list_folders,
    natural_number,
    read_json_object,
)

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_\-]{0,39}")
PHOTOGRAPH_PATH = re.compile(r"(train|val)/[^./][^/]*/\d{5}\.[a-z]+")
"""Of a photograph in a data set's folder, as `write_photographs` names it."""
NAME_RULE = "up to 40 letters, digits, hyphens and underscores"
MAX_CLASSES = 1000
MAX_CLASS_NAME_BYTES = 80
MAX_PHOTOGRAPHS = 20_000
MIN_PHOTOGRAPHS_PER_CLASS = 2
"""One to train on, and one to validate with."""
VALIDATION_SHARE = 5
"""One in so many photographs of a class is kept for validation, where no folder says which."""
MAX_LISTED = 30
"""Names of files that were passed over that are kept; the others are counted."""
MAX_JSON_BYTES = 64 * 1024

Split = Literal["train", "val"]


class DatasetError(ValueError):
    """Photographs that do not become a data set; the message is one sentence for people."""

    def __init__(self, message: str, status: int = 400) -> None:
        super().__init__(message)
        self.status = status


@dataclass(frozen=True, kw_only=True)
class IncomingPhotograph:
    """A photograph that is sent. name: to report it by. split: None if the sender named none."""

    name: str
    label: str
    split: Split | None
    read: Callable[[], bytes]


@dataclass(frozen=True, kw_only=True)
class PassedOver:
    """Files that were sent and not taken: the first few by name, with the reason, and how many."""

    names: tuple[str, ...] = ()
    count: int = 0

    def add(self, names: Sequence[str]) -> "PassedOver":
        """Return these and some more."""
        return PassedOver(names=(*self.names, *names)[:MAX_LISTED], count=self.count + len(names))


@dataclass(frozen=True, kw_only=True)
class Incoming:
    """What is sent: the photographs, and the files that are none."""

    photographs: Sequence[IncomingPhotograph]
    passed_over: PassedOver = PassedOver()


@dataclass(frozen=True, kw_only=True)
class ClassroomDataset:
    """A data set on disk. classes: sorted."""

    name: str
    folder: Path
    classes: tuple[str, ...]
    created_at: datetime | None
    passed_over: PassedOver

    @cached_property
    def photographs(self) -> tuple[Photograph, ...]:
        """The photographs, by their paths in the folder, class by class."""
        return tuple(
            Photograph(f"{split}/{label}/{path}", index)
            for index, label in enumerate(self.classes)
            for split in ("train", "val")
            for path in list_files_below(self.folder / split / label, Counter())
        )

    @property
    def counts(self) -> list[int]:
        """How many photographs each class has."""
        counted = Counter(photograph.class_index for photograph in self.photographs)
        return [counted[index] for index in range(len(self.classes))]


def check_dataset_name(name: str) -> str:
    """Return a name for a data set, without spaces around it. Raises DatasetError."""
    name = name.strip()
    if not NAME.fullmatch(name):
        raise DatasetError(f"Give the data set a name: {NAME_RULE}, beginning with a letter.")
    return name


def check_class_name(text: str) -> str:
    """Return the name of a class as a folder can have it. Raises DatasetError."""
    name = " ".join(unicodedata.normalize("NFC", text).split())
    shown = name[:40] or "(empty)"
    if not name or is_ignored(name) or any(unicodedata.category(c)[0] == "C" for c in name):
        raise DatasetError(f"“{shown}” cannot be the name of a class.")
    if "/" in name or "\\" in name:
        raise DatasetError(f"The class “{shown}” has a slash in its name.")
    if len(name.encode()) > MAX_CLASS_NAME_BYTES:
        raise DatasetError(f"The name of the class “{shown}…” is too long.")
    return name


def list_datasets(home: Home) -> list[ClassroomDataset]:
    """Return the data sets, newest first."""
    found = [read_dataset(home, name) for name in list_folders(home.datasets)]
    oldest = datetime.min.replace(tzinfo=UTC)
    known = [dataset for dataset in found if dataset]
    return sorted(known, key=lambda one: (one.created_at or oldest, one.name), reverse=True)


def read_dataset(home: Home, name: str) -> ClassroomDataset | None:
    """Read a data set; None if there is none of this name."""
    folder = home.datasets / name
    if not NAME.fullmatch(name) or not (folder / "train").is_dir():
        return None
    described = read_json_object(folder / "dataset.json", MAX_JSON_BYTES)
    classes = tuple(sorted(entry.name for entry in (folder / "train").iterdir()))
    names = described.get("passed_over")
    return ClassroomDataset(
        name=name,
        folder=folder,
        classes=classes,
        created_at=parse_moment(bounded_text(described.get("created"))),
        passed_over=PassedOver(
            names=tuple(bounded_text(one) for one in names) if isinstance(names, list) else (),
            count=natural_number(described.get("passed_over_count")) or 0,
        ),
    )


def parse_moment(text: str) -> datetime | None:
    """Parse a time as `make_dataset` writes it; None if it is no time."""
    try:
        return datetime.fromisoformat(text).astimezone(UTC)
    except ValueError:
        return None


def delete_dataset(dataset: ClassroomDataset) -> None:
    """Delete a data set with all that was made of it but its runs. Raises OSError."""
    gone = dataset.folder.with_name(f".{dataset.name}.deleted")
    shutil.rmtree(gone, ignore_errors=True)
    dataset.folder.rename(gone)
    shutil.rmtree(gone)


def measure_folder(folder: Path) -> int:
    """Return the bytes that the files in a folder and below it take."""
    return sum(
        (Path(place) / name).lstat().st_size
        for place, _, names in os.walk(folder)
        for name in names
    )


def make_dataset(
    home: Home, name: str, incoming: Incoming, check: Callable[[bytes], None], quota: int
) -> ClassroomDataset:
    """Write a data set from what was sent.

    check: decodes a photograph and raises ImageError; such files are passed over. quota: bytes that
    all data sets may take together. Raises DatasetError, and OSError if the disk does not take it;
    nothing is left of it then.
    """
    name = check_dataset_name(name)
    with open_new_folder(home, name) as folder:
        free = quota - measure_folder(home.datasets)
        passed_over = write_photographs(folder, incoming, check, free)
        split_off_validation(folder)
        check_classes(folder)
        described = {
            "created": f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}",
            "passed_over": passed_over.names,
            "passed_over_count": passed_over.count,
        }
        write_atomically(folder / "dataset.json", json.dumps(described, ensure_ascii=False))
        for place in {*folder.glob("*/*"), folder / "train", folder / "val", folder}:
            if place.is_dir():
                fsync_folder(place)
        folder.rename(home.datasets / name)
    made = read_dataset(home, name)
    if made is None:
        raise DatasetError(f"The data set {name} was deleted meanwhile.", 409)
    return made


@contextmanager
def open_new_folder(home: Home, name: str) -> Iterator[Path]:
    """Yield a hidden folder to fill, which is removed if it is still there at the end.

    One at a time, so that what killed processes left can be removed. Raises DatasetError.
    """
    home.datasets.mkdir(parents=True, exist_ok=True)
    try:
        with lock_file(home.datasets / ".new.lock", wait=False):
            for left in home.datasets.glob(".*.part"):
                shutil.rmtree(left)
            if (home.datasets / name).exists():
                raise DatasetError(f"There is a data set {name} already; choose another name.", 409)
            folder = home.datasets / f".{name}.part"
            folder.mkdir()
            try:
                yield folder
            finally:
                shutil.rmtree(folder, ignore_errors=True)
    except BlockingIOError as error:
        raise DatasetError("Another data set is just being received; try again.", 409) from error


def write_photographs(
    folder: Path, incoming: Incoming, check: Callable[[bytes], None], free: int
) -> PassedOver:
    """Write each photograph that can be decoded; return what was passed over."""
    written, passed_over = 0, incoming.passed_over
    counts = Counter[str]()
    check_counts(incoming.photographs)
    for photograph in incoming.photographs:
        data = photograph.read()
        try:
            check(data)
        except ImageError as error:
            passed_over = passed_over.add([f"{photograph.name}: {error}"])
            continue
        written += len(data)
        if written > free:
            raise DatasetError(
                "The data sets together would be larger than this server allows; delete one first.",
                413,
            )
        counts[photograph.label] += 1
        place = folder / (photograph.split or "train") / photograph.label
        place.mkdir(parents=True, exist_ok=True)
        suffix = Path(photograph.name).suffix.lower()
        (place / f"{counts[photograph.label]:05}{suffix}").write_bytes(data)
    return passed_over


def check_counts(photographs: Sequence[IncomingPhotograph]) -> None:
    """Raise DatasetError for too many photographs, and too few or too many classes."""
    classes = {photograph.label for photograph in photographs}
    if len(photographs) > MAX_PHOTOGRAPHS:
        raise DatasetError(
            f"{len(photographs):,} photographs are more than {MAX_PHOTOGRAPHS:,}.", 413
        )
    if len(classes) > MAX_CLASSES:
        raise DatasetError(f"{len(classes):,} classes are more than {MAX_CLASSES:,}.", 413)
    if not classes:
        raise DatasetError("There is no photograph in it: JPEG, PNG or WebP, a folder per class.")
    if len(classes) == 1:
        raise DatasetError(f"There is only one class, {classes.pop()}; at least two are needed.")


def split_off_validation(folder: Path) -> None:
    """Move the last photographs of each class to `val`, unless the sender has named some.

    The last and not some at random: pictures taken one after another are nearly the same, and
    would be in both.
    """
    if (folder / "val").exists():
        return
    for label in list((folder / "train").iterdir()):
        files = sorted(label.iterdir())
        place = folder / "val" / label.name
        place.mkdir(parents=True)
        for file in files[len(files) - max(1, len(files) // VALIDATION_SHARE) :]:
            file.rename(place / file.name)


def check_classes(folder: Path) -> None:
    """Raise DatasetError unless each class has photographs to train on and to validate with."""
    names = {split: list_class_names(folder / split) for split in ("train", "val")}
    every = names["train"] | names["val"]
    if len(every) < 2:
        raise DatasetError("Fewer than two classes have a photograph that can be read.")
    for split, other in (("train", "val"), ("val", "train")):
        if missing := sorted(every - names[split]):
            had = sum(1 for _ in (folder / other / missing[0]).iterdir())
            raise DatasetError(
                f"The class {missing[0]} has too few photographs that can be read, {had}: "
                f"{MIN_PHOTOGRAPHS_PER_CLASS} are needed, one of them in {split}."
            )


def list_class_names(place: Path) -> set[str]:
    """Return the classes of a split that have a photograph."""
    if not place.is_dir():
        return set()
    return {entry.name for entry in place.iterdir() if any(entry.iterdir())}

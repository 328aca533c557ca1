"""A run's folder: what it was told, its epochs, what it left, and when it last wrote."""

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path
from typing import Any

from storage.home import Home
from storage.tolerant_json import (
    entries,
    folders,
    number,
    read_bytes,
    read_object,
    share,
    table,
    text,
    whole,
    written,
)

MOST_JSON = 256 * 1024
MOST_EPOCHS = 1024 * 1024
"""Bytes read of a run's epochs, the last ones: some three thousand."""
STAMP = re.compile(r"(\d{8}-\d{6})-")
PICTURE = re.compile(r"epoch-(\d{1,6})\.png")
WEIGHTS, BEST, CHECKPOINT = "weights.safetensors", "best.safetensors", "checkpoint.safetensors"
WRITTEN = ("run.json", "environment.json", "epochs.jsonl", "conv1", CHECKPOINT, BEST, WEIGHTS)
"""What a run writes, each anew or longer as it goes on."""


@dataclass(frozen=True, kw_only=True)
class Epoch:
    """What one pass over the training images gave; None for what is missing or no number.

    rate: learning rate. loss: mean cross-entropy of the training batches. top1_error, top5_error:
    of the validation images' centre crops, 0–1. data_wait: seconds it waited for images.
    seconds: in all, validation included. memory: the most so far, in GiB.
    """

    epoch: int
    rate: float | None
    loss: float | None
    top1_error: float | None
    top5_error: float | None
    images_per_second: float | None
    data_wait: float | None
    seconds: float | None
    memory: float | None


@dataclass(frozen=True, kw_only=True)
class Run:
    """A run as its files tell of it; what they do not tell is empty or None.

    data: the name of its folder of photographs. start: the identity of the weights it began from.
    weights: that of its result. ten_crops: the result's top-1 and top-5 error from ten crops, 0–1.
    pictures: the epochs after which conv1 was drawn. began, noted, wrote: when it began, noted its
    last epoch, and wrote anything. resumable: whether it can be gone on with.
    """

    name: str
    folder: Path
    preset: str
    data: str
    start: str
    precision: str
    commit: str
    finished: bool
    weights: str
    ten_crops: tuple[float, float] | None
    recipe: Mapping[str, Any]
    options: Mapping[str, Any]
    environment: Mapping[str, Any]
    epochs: tuple[Epoch, ...]
    pictures: tuple[int, ...]
    began: datetime | None
    noted: datetime | None
    wrote: datetime | None
    resumable: bool

    @property
    def planned(self) -> int | None:
        """Epochs that it makes at most."""
        return whole(self.recipe.get("epochs")) or None

    @property
    def last(self) -> Epoch | None:
        """Its last epoch."""
        return self.epochs[-1] if self.epochs else None

    @property
    def best(self) -> Epoch | None:
        """The epoch of the lowest top-1 error."""
        judged = [epoch for epoch in self.epochs if epoch.top1_error is not None]
        return min(judged, key=lambda epoch: epoch.top1_error or 0, default=None)


def read_runs(home: Home) -> list[Run]:
    """Every run found on disk, newest first."""
    found = (read(name, folder) for name, folder in folders(home.runs).items())
    return sorted((run for run in found if run), key=newness, reverse=True)


def read_run(home: Home, name: str) -> Run | None:
    """The run of that name; None where none of the folders is one."""
    folder = folders(home.runs).get(name)
    return read(name, folder) if folder else None


def newness(run: Run) -> tuple[float, str]:
    """Sort by the time a run began."""
    moment = run.began or run.wrote
    return (moment.timestamp() if moment else 0.0), run.name


def read(name: str, folder: Path) -> Run | None:
    """Read a folder; None when nothing in it is a run's."""
    told, epochs = read_object(folder / "run.json", MOST_JSON), read_epochs(folder)
    if not told and not epochs:
        return None
    last = max((t for file in WRITTEN if (t := written(folder / file))), default=None)
    return Run(
        name=name,
        folder=folder,
        preset=text(told.get("preset")),
        # Its own name: where it lies on the server is nobody's business.
        data=Path(text(told.get("data"))).name,
        start=text(told.get("from")),
        precision=text(told.get("precision")),
        commit=text(told.get("commit")),
        finished=told.get("finished") is True,
        weights=text(told.get("weights")),
        ten_crops=pair(told.get("ten_crops")),
        recipe=table(told.get("recipe")),
        options=table(told.get("options")),
        environment=read_object(folder / "environment.json", MOST_JSON),
        epochs=epochs,
        pictures=tuple(sorted(pictures(folder))),
        began=began(name),
        noted=moment(written(folder / "epochs.jsonl")),
        wrote=moment(last),
        resumable=written(folder / CHECKPOINT) is not None,
    )


def read_epochs(folder: Path) -> tuple[Epoch, ...]:
    """The epochs in their order; of several with one number, as after a resumption, the last.

    A line that is not whole, as the last one may be, is left out.
    """
    file = folder / "epochs.jsonl"
    try:
        found = file.stat()
    except OSError:
        return ()
    return epochs_in(file, (found.st_ino, found.st_size, found.st_mtime_ns))


@lru_cache(maxsize=1024)
def epochs_in(file: Path, stamp: tuple[int, ...]) -> tuple[Epoch, ...]:
    """The epochs of a file, which is read once as long as its stamp stays: few of many grow."""
    data = read_bytes(file, MOST_EPOCHS, end=True) or b""
    found: dict[int, Epoch] = {}
    for line in data.split(b"\n"):
        if epoch := read_epoch(line):
            found[epoch.epoch] = epoch
    return tuple(found[n] for n in sorted(found))


def read_epoch(line: bytes) -> Epoch | None:
    """Read a line; None when it is no epoch's."""
    try:
        values = table(json.loads(line.decode("utf-8", "replace")))
    except (ValueError, RecursionError):
        return None
    epoch = whole(values.get("epoch"), most=1_000_000)
    if not epoch:
        return None
    numbers = {field.name: number(values.get(field.name)) for field in fields(Epoch)}
    errors = {name: share(values.get(name)) for name in ("top1_error", "top5_error")}
    return Epoch(**{**numbers, **errors, "epoch": epoch})  # type: ignore[arg-type]


def pictures(folder: Path) -> Iterator[int]:
    """The epochs after which conv1 was drawn."""
    for path in entries(folder / "conv1"):
        if match := PICTURE.fullmatch(path.name):
            yield int(match[1])


def picture_file(run: Run, epoch: int) -> Path:
    """Where conv1 after an epoch is drawn."""
    return run.folder / "conv1" / f"epoch-{epoch:03d}.png"


def began(name: str) -> datetime | None:
    """The moment in the names that training gives its runs' folders."""
    match = STAMP.match(name)
    try:
        return datetime.strptime(match[1], "%Y%m%d-%H%M%S").replace(tzinfo=UTC) if match else None
    except ValueError:
        return None


def moment(seconds: float | None) -> datetime | None:
    """A moment of so many seconds since 1970; None for one that no calendar has."""
    try:
        return datetime.fromtimestamp(seconds, UTC) if seconds is not None else None
    except (OverflowError, ValueError, OSError):
        return None


def pair(value: object) -> tuple[float, float] | None:
    """Two shares, or None."""
    found = [share(part) for part in value] if isinstance(value, list) else []
    match found:
        case [float() as first, float() as second]:
            return first, second
    return None

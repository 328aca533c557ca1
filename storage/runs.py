"""A training run's folder: where its files lie, how training writes them, how others read them.

Training writes with `RunFolder`. Others read a `Run` with `read_runs` or `read_run`, during the
run or afterwards; what its files lack is empty or None.
"""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path
from typing import Any, Generic, TypeVar

from storage.files import write_atomically
from storage.home import Home
from storage.tolerant_json import (
    bounded_text,
    dict_or_empty,
    finite_number,
    fraction,
    list_entries,
    list_folders,
    modification_time,
    natural_number,
    read_bounded,
    read_json_object,
)

MAX_JSON_BYTES = 256 * 1024
MAX_EPOCHS_BYTES = 1024 * 1024
"""The end of epochs.jsonl that is read: about three thousand epochs."""
START_TIME = re.compile(r"(\d{8}-\d{6})-")
"""The time with which a run's name begins."""
SHARES = ("top1_error", "top5_error", "training_top1_error", "conv1_low_frequency")
"""An epoch's numbers from 0 to 1."""
CONV1_PICTURE = re.compile(r"epoch-(\d{1,6})\.png")
Number_co = TypeVar("Number_co", bound=float | None, covariant=True)


@dataclass(frozen=True, kw_only=True)
class Epoch(Generic[Number_co]):
    """The measurements of one pass over the training set: a line of epochs.jsonl.

    Training writes `Epoch[float]`; reading returns `Epoch[float | None]`, with None for what is
    missing or not a number.
    """

    epoch: int
    """Counted from 1."""
    rate: Number_co
    """The learning rate."""
    loss: Number_co
    """Mean cross-entropy of the training batches, dropout and augmentation on."""
    top1_error: Number_co
    """Top-1 error on the validation images' centre crops, 0–1."""
    top5_error: Number_co
    """Top-5 error on the same crops, 0–1."""
    images_per_second: Number_co
    """Training speed, without validation."""
    data_wait: Number_co
    """Seconds the training loop waited for batches."""
    seconds: Number_co
    """Duration of the epoch in seconds, validation included."""
    memory: Number_co
    """Peak memory so far in GiB: the GPU's if it trains on one, else the process's."""
    conv1_low_frequency: float | None = None
    """Share of the energy of conv1's kernels at low frequencies, 0–1
    (model/visualization/kernels.py). Older runs lack it."""
    training_top1_error: float | None = None
    """Top-1 error on the training batches, dropout and augmentation on, 0–1. Older runs lack it."""
    validation_loss: float | None = None
    """Mean cross-entropy on the validation images' centre crops. Older runs lack it."""
    planned: int | None = None
    """The run's maximum number of epochs at that time, which --epochs may extend later. Older runs
    lack it."""
    skipped_steps: int | None = None
    """Steps without an update, since float16 could not hold their gradients; None in others."""


@dataclass(frozen=True)
class RunFolder:
    """A run's folder, `runs/<time>-<preset>-<dataset>` in ALEXNET_HOME."""

    path: Path

    @property
    def description(self) -> Path:
        """run.json: preset, recipe, data and options, and whether the run has finished."""
        return self.path / "run.json"

    @property
    def environment(self) -> Path:
        """environment.json: the machine and the versions of libraries."""
        return self.path / "environment.json"

    @property
    def epochs(self) -> Path:
        """epochs.jsonl: the finished epochs, one line of JSON each."""
        return self.path / "epochs.jsonl"

    @property
    def steps(self) -> Path:
        """steps.jsonl: a line every few seconds (storage/steps.py)."""
        return self.path / "steps.jsonl"

    @property
    def config(self) -> Path:
        """config.toml: all values of the run, for `training/run.py --config`."""
        return self.path / "config.toml"

    @property
    def profile(self) -> Path:
        """profile.json: torch's profile of some steps, for chrome://tracing or Perfetto."""
        return self.path / "profile.json"

    @property
    def conv1(self) -> Path:
        """The folder of the pictures of conv1's kernels, one per epoch."""
        return self.path / "conv1"

    def conv1_picture(self, epoch: int) -> Path:
        """Return the path of the picture of conv1's kernels after an epoch."""
        return self.conv1 / f"epoch-{epoch:03d}.png"

    @property
    def tensorboard(self) -> Path:
        """The folder of TensorBoard's event files."""
        return self.path / "tensorboard"

    @property
    def checkpoint(self) -> Path:
        """The last checkpoint: the weights and velocities to resume from, or to train on from."""
        return self.path / "checkpoint.safetensors"

    @property
    def previous_checkpoint(self) -> Path:
        """The checkpoint before the last, in case that one is damaged; removed at the end."""
        return self.path / "checkpoint-previous.safetensors"

    def drop_checkpoint(self, epoch: int) -> Path:
        """Return the path of the checkpoint after whose epoch the learning rate dropped."""
        return self.path / f"checkpoint-epoch-{epoch:03d}.safetensors"

    def list_checkpoints(self) -> list[Path]:
        """Return the checkpoints that exist, newest first."""
        drops = sorted(self.path.glob("checkpoint-epoch-*.safetensors"), reverse=True)
        files = (self.checkpoint, self.previous_checkpoint, *drops)
        return [file for file in files if file.exists()]

    @property
    def lock(self) -> Path:
        """A file that is locked while a process trains the run."""
        return self.path / ".lock"

    @property
    def best(self) -> Path:
        """The weights of the epoch with the lowest validation error so far."""
        return self.path / "best.safetensors"

    @property
    def weights(self) -> Path:
        """The weights after the last epoch: the run's result."""
        return self.path / "weights.safetensors"

    def read_description(self) -> dict[str, Any]:
        """Return the content of run.json; empty if it is missing or damaged."""
        try:
            content = json.loads(self.description.read_text())
        except (OSError, ValueError):
            return {}
        return content if isinstance(content, dict) else {}

    def update_description(self, **values: Any) -> None:
        """Set values in run.json, atomically."""
        content = json.dumps(self.read_description() | values, indent=2) + "\n"
        write_atomically(self.description, content)

    def append_epoch(self, epoch: Epoch[float]) -> None:
        """Append a line to epochs.jsonl."""
        with self.epochs.open("a") as file:
            file.write(format_json_line(epoch))

    def write_epochs(self, epochs: Sequence[Epoch[float]]) -> None:
        """Replace epochs.jsonl atomically, as when resuming from a checkpoint."""
        write_atomically(self.epochs, "".join(map(format_json_line, epochs)))


def format_json_line(epoch: Epoch[float]) -> str:
    """Format an epoch as a line of epochs.jsonl."""
    return json.dumps(asdict(epoch)) + "\n"


@dataclass(frozen=True, kw_only=True)
class Run:
    """A run as read from its files; whatever they lack is empty or None."""

    name: str
    folder: RunFolder
    preset: str
    data: str
    """The name of its folder of photographs."""
    initial_weights: str
    """The identity of the weights it was initialised from; empty if drawn at random."""
    precision: str
    """Precision of the layers' arithmetic: f32, bf16 or f16."""
    commit: str
    """The project's commit that it was trained with."""
    finished: bool
    ended: str
    """How it ended: finished, stopped, diverged or failed; empty while it runs, or if it was
    killed."""
    weights: str
    """The identity of its resulting weights; empty until it finishes."""
    ten_crops: tuple[float, float] | None
    """Top-1 and top-5 error of the resulting weights with ten crops, 0–1."""
    recipe: Mapping[str, Any]
    options: Mapping[str, Any]
    environment: Mapping[str, Any]
    epochs: tuple[Epoch[float | None], ...]
    conv1_epochs: tuple[int, ...]
    """The epochs after which conv1's kernels were drawn."""
    started_at: datetime | None
    last_epoch_at: datetime | None
    """When its last epoch was recorded."""
    last_write_at: datetime | None
    """When it last wrote any of its files."""
    resumable: bool
    pretrained: bool
    """Whether it is a copy of the run that ships with the project (storage/pretrained.py)."""

    @property
    def planned_epochs(self) -> int | None:
        """The maximum number of epochs."""
        return natural_number(self.recipe.get("epochs")) or None

    @property
    def last_epoch(self) -> Epoch[float | None] | None:
        """The last finished epoch."""
        return self.epochs[-1] if self.epochs else None

    @property
    def best_epoch(self) -> Epoch[float | None] | None:
        """The epoch with the lowest top-1 error."""
        validated = [epoch for epoch in self.epochs if epoch.top1_error is not None]
        return min(validated, key=lambda epoch: epoch.top1_error or 0, default=None)


def read_runs(home: Home) -> list[Run]:
    """Read all runs, newest first."""
    runs = (read_run_folder(name, path) for name, path in list_folders(home.runs).items())
    return sorted((run for run in runs if run), key=recency, reverse=True)


def read_run(home: Home, name: str) -> Run | None:
    """Read the run of this name; None if it does not exist."""
    path = list_folders(home.runs).get(name)
    return read_run_folder(name, path) if path else None


def recency(run: Run) -> tuple[float, str]:
    """Return a sort key: when a run was started, then its name."""
    moment = run.started_at or run.last_write_at
    return (moment.timestamp() if moment else 0.0), run.name


def read_run_folder(name: str, path: Path) -> Run | None:
    """Read a run's folder; None if it holds neither a description nor epochs."""
    folder = RunFolder(path)
    description = read_json_object(folder.description, MAX_JSON_BYTES)
    epochs = read_epochs(folder.epochs)
    if not description and not epochs:
        return None
    return Run(
        name=name,
        folder=folder,
        preset=bounded_text(description.get("preset")),
        # Only the name: visitors must not see paths on the server.
        data=Path(bounded_text(description.get("data"))).name,
        initial_weights=bounded_text(description.get("from")),
        precision=bounded_text(description.get("precision")),
        commit=bounded_text(description.get("commit")),
        finished=description.get("finished") is True,
        ended=bounded_text(description.get("ended")),
        weights=bounded_text(description.get("weights")),
        ten_crops=parse_fraction_pair(description.get("ten_crops")),
        recipe=dict_or_empty(description.get("recipe")),
        options=dict_or_empty(description.get("options")),
        environment=read_json_object(folder.environment, MAX_JSON_BYTES),
        epochs=epochs,
        conv1_epochs=tuple(sorted(list_conv1_epochs(folder))),
        started_at=parse_start_time(name),
        last_epoch_at=datetime_from_timestamp(modification_time(folder.epochs)),
        last_write_at=datetime_from_timestamp(find_last_write_time(folder)),
        resumable=modification_time(folder.checkpoint) is not None,
        pretrained=description.get("pretrained") is True,
    )


def find_last_write_time(folder: RunFolder) -> float | None:
    """Return when any file of a run was last written, in seconds since 1970."""
    files = (
        folder.description,
        folder.environment,
        folder.epochs,
        folder.steps,
        folder.conv1,
        folder.checkpoint,
        folder.best,
        folder.weights,
    )
    return max((time for file in files if (time := modification_time(file))), default=None)


def read_epochs(file: Path) -> tuple[Epoch[float | None], ...]:
    """Read the epochs of an epochs.jsonl, in order.

    Of repeated epochs, as in a run resumed after a kill, the last counts. Invalid lines are
    skipped, since the last one may be incomplete.
    """
    try:
        status = file.stat()
    except OSError:
        return ()
    return parse_epochs(file, (status.st_ino, status.st_size, status.st_mtime_ns))


@lru_cache(maxsize=1024)
def parse_epochs(file: Path, stamp: tuple[int, ...]) -> tuple[Epoch[float | None], ...]:
    """Parse a file's epochs, cached until its stamp changes: most runs have ended."""
    data = read_bounded(file, MAX_EPOCHS_BYTES, tail_only=True) or b""
    epochs: dict[int, Epoch[float | None]] = {}
    for line in data.split(b"\n"):
        if epoch := parse_epoch(line):
            epochs[epoch.epoch] = epoch
    return tuple(epochs[n] for n in sorted(epochs))


def parse_epoch(line: bytes) -> Epoch[float | None] | None:
    """Parse a line of epochs.jsonl; None if it is not an epoch."""
    try:
        values = dict_or_empty(json.loads(line.decode("utf-8", "replace")))
    except (ValueError, RecursionError):
        return None
    epoch = natural_number(values.get("epoch"), maximum=1_000_000)
    if not epoch:
        return None
    numbers = {field.name: finite_number(values.get(field.name)) for field in fields(Epoch)}
    shares = {name: fraction(values.get(name)) for name in SHARES}
    planned = natural_number(values.get("planned"), maximum=1_000_000)
    skipped = natural_number(values.get("skipped_steps"), maximum=10**9)
    whole = {"epoch": epoch, "planned": planned, "skipped_steps": skipped}
    return Epoch(**{**numbers, **shares, **whole})  # type: ignore[arg-type]


def list_conv1_epochs(folder: RunFolder) -> Iterator[int]:
    """Yield the epochs after which conv1 was drawn."""
    for path in list_entries(folder.conv1):
        if match := CONV1_PICTURE.fullmatch(path.name):
            yield int(match[1])


def parse_start_time(name: str) -> datetime | None:
    """Parse the time with which a run's name begins; None if it does not."""
    match = START_TIME.match(name)
    try:
        return datetime.strptime(match[1], "%Y%m%d-%H%M%S").replace(tzinfo=UTC) if match else None
    except ValueError:
        return None


def datetime_from_timestamp(seconds: float | None) -> datetime | None:
    """Convert seconds since 1970 to a time in UTC; None if they are out of range."""
    try:
        return datetime.fromtimestamp(seconds, UTC) if seconds is not None else None
    except (OverflowError, ValueError, OSError):
        return None


def parse_fraction_pair(value: object) -> tuple[float, float] | None:
    """Return a list of two numbers from 0 to 1 as a tuple, or None."""
    fractions = [fraction(part) for part in value] if isinstance(value, list) else []
    match fractions:
        case [float() as first, float() as second]:
            return first, second
    return None

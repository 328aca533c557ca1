"""A run's result: one small JSON file, from which the findings are computed."""

import base64
import json
import zlib
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from storage.files import write_atomically
from storage.findings import RESULTS

RESULT_FORMAT = 1
"""Version of the JSON format."""
PerImage = npt.NDArray[np.uint8]


class ResultError(ValueError):
    """A file among the results that is not one, or experiments that cannot be run."""


@dataclass(frozen=True, kw_only=True)
class Count:
    """How many of the test images are wrong."""

    wrong: int
    images: int

    @property
    def error(self) -> float:
        """The error rate, 0–1."""
        return self.wrong / self.images


@dataclass(frozen=True, kw_only=True)
class RunData:
    """The images of a run.

    kind: the kind of data. fingerprint: of the images and classes themselves. train, held_out,
    test: how many images there are; held out are training images that show the curve's errors.
    """

    kind: str
    fingerprint: str
    classes: int
    train: int
    held_out: int
    test: int


@dataclass(frozen=True, kw_only=True)
class Point:
    """A finished epoch. Errors are 0–1, by the centre crop."""

    epoch: int
    rate: float
    loss: float
    held_out_error: float
    training_error: float | None


@dataclass(frozen=True, kw_only=True)
class RunResult:
    """Everything that is kept of a run.

    purpose: a search chooses a value, such as the rate, and is not measured. recipe: its values
    that are not the paper's, epochs and seed among them. errors: on the test images, looked at
    once: "centre top-1", "crops top-1" and so on, where "crops" are ten, or the nine of the nets
    for CIFAR-10. per_image: a number for each test image, packed (`pack`): whether it is wrong by
    "centre" or "crops", or "hits" among the neighbours. measured: anything else. copied_from: the
    experiment that made this very run, which counts its time.
    """

    experiment: str
    arm: str
    seed: int
    data: RunData
    recipe: dict[str, Any]
    precision: str
    curve: tuple[Point, ...]
    errors: dict[str, Count]
    per_image: dict[str, str]
    measured: dict[str, float]
    cpu_seconds: float
    seconds: float
    machine: str
    cores: int
    versions: dict[str, str]
    commit: str
    purpose: Literal["measurement", "search"] = "measurement"
    weights: str | None = None
    diverged: str = ""
    copied_from: str = ""
    format: int = field(default=RESULT_FORMAT)

    @property
    def epochs(self) -> int:
        """The epochs planned; 0 where nothing was trained."""
        return int(self.recipe.get("epochs", 0))

    @property
    def identity(self) -> dict[str, Any]:
        """What makes two runs the same run, whatever the experiment."""
        values = {"recipe": self.recipe, "seed": self.seed, "weights": self.weights}
        return values | {"data": asdict(self.data), "precision": self.precision}

    def write(self, file: Path) -> None:
        """Write the file, a line for each point of the curve. Raises OSError."""
        values = asdict(self)
        points = [json.dumps(point) for point in values.pop("curve")]
        text = json.dumps(values | {"curve": "CURVE"}, indent=1, ensure_ascii=False)
        curve = "[\n  " + ",\n  ".join(points) + "\n ]" if points else "[]"
        file.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(file, text.replace('"CURVE"', curve) + "\n")


def name_result(experiment: str, data: RunData, epochs: int, arm: str, seed: int) -> Path:
    """Return the path of a run's file below the folder of results."""
    length = f"{data.kind}-{data.train}x{epochs}" if epochs else data.kind
    slug = "".join(c if c.isalnum() or c in ".-" else "-" for c in arm.lower())
    return Path(experiment) / f"{length}-{slug}-seed{seed}.json"


def read_results(folder: Path = RESULTS) -> list[RunResult]:
    """Read all runs, in the order of their files. Raises ResultError naming a damaged one."""
    return [read_result(file) for file in sorted(folder.glob("*/*.json"))]


def read_result(file: Path) -> RunResult:
    """Read a run's file. Raises ResultError."""
    try:
        values = json.loads(file.read_text())
        if values["format"] != RESULT_FORMAT:
            raise ValueError(f"format {values['format']}, not {RESULT_FORMAT}")
        values["data"] = RunData(**values["data"])
        values["curve"] = tuple(Point(**point) for point in values["curve"])
        values["errors"] = {name: Count(**count) for name, count in values["errors"].items()}
        return RunResult(**values)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ResultError(f"{file} is not a run's result: {error}; remove it") from error


def pack(values: PerImage | npt.NDArray[np.bool_]) -> str:
    """Pack a number from 0 to 255 for each image into text."""
    return base64.b64encode(zlib.compress(values.astype(np.uint8).tobytes(), 9)).decode()


def unpack(text: str) -> PerImage:
    """Return what `pack` packed: uint8 [N]."""
    return np.frombuffer(zlib.decompress(base64.b64decode(text)), np.uint8)


def find_same_run(identity: dict[str, Any], folder: Path = RESULTS) -> Iterator[RunResult]:
    """Yield the runs of any experiment that are the same as one to be made."""
    for result in read_results(folder):
        if result.identity == identity and not result.copied_from:
            yield result

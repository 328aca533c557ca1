"""What `training/evaluate.py` measures: the content of its JSON files, and how they are written.

`asdict` of an `Evaluation` is the JSON file. It refers to classes by name, never by index. It holds
no time, no machine, and no paths except those relative to the data folder.
"""

import json
import re
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from storage.files import write_atomically
from storage.home import Home

EVALUATION_FORMAT = 1
"""Version of the JSON format."""
ENSEMBLE = "ensemble"
Crops = Literal["ten", "centre"]
CROPS_LABELS: dict[Crops, str] = {"ten": "ten crops", "centre": "centre crop"}
MAX_NAME_LENGTH = 80
"""Characters of a network's name in a file name."""


@dataclass(frozen=True, kw_only=True)
class Rate:
    """A share of images and its 95 % interval by Wilson's score (Wilson 1927)."""

    wrong: int
    """Images on which the guess was wrong."""
    images: int
    """Images in all."""
    error: float
    """wrong / images, 0–1."""
    low: float
    """Lower end of the interval, 0–1."""
    high: float
    """Upper end, 0–1."""


@dataclass(frozen=True, kw_only=True)
class Difference:
    """The difference in error between two networks, or two kinds of crops, on the same images."""

    difference: float
    """Error of the first minus error of the second, −1 to 1."""
    low: float
    """Lower end of its 95 % interval, by a paired bootstrap."""
    high: float
    """Upper end."""
    only_first_wrong: int
    """Images that the first got wrong and the second right."""
    only_second_wrong: int
    """Images that the second got wrong and the first right."""
    p: float
    """p-value of McNemar's exact test: how likely so uneven a split would be by chance."""


@dataclass(frozen=True, kw_only=True)
class EvaluationData:
    """The photographs that the networks were evaluated on."""

    folder: str
    """As named on the command line."""
    layout: str
    """split: <split>/<class>/*; folders: <class>/*; files: <WordNet id>_*."""
    split: str | None
    """The split, where the layout has splits."""
    images: int
    """Photographs evaluated."""
    classes: int
    """Classes among them."""
    unreadable: tuple[str, ...]
    """Photographs left out because they cannot be read: path and reason."""
    unknown: dict[str, int]
    """Classes left out because the networks do not know them, with their number of photographs."""


@dataclass(frozen=True, kw_only=True)
class ModelInfo:
    """A network that was evaluated."""

    name: str
    """Its name within the evaluation."""
    identity: str
    """Digest of everything that its predictions depend on."""
    classes: int
    """Number of classes; any of them may be guessed."""
    side: int
    """Side of the square that a photograph is scaled and cropped to, in pixels."""
    crop: int
    """Side of the crop that the network sees, in pixels."""
    preset: str
    """The preset of its training recipe."""
    epochs: int | None
    """Passes over its training set; None if unknown."""
    images: int | None
    """Images in its training set; None if unknown."""


@dataclass(frozen=True, kw_only=True)
class ClassErrors:
    """The errors on the images of one class."""

    folder: str
    """The class, by folder name."""
    label: str
    """Its label."""
    top1: Rate
    top5: Rate


@dataclass(frozen=True, kw_only=True)
class Mistake:
    """A photograph whose guess is wrong."""

    path: str
    """Path from the data folder, with forward slashes."""
    true: str
    """Its class, by folder name."""
    true_label: str
    """The label of its class."""
    true_probability: float
    """Predicted probability of its class, 0–1."""
    guess: str
    """The most probable class, by folder name."""
    guess_label: str
    """The label of the guess."""
    probability: float
    """Predicted probability of the guess, 0–1."""
    rank: int
    """Rank of the true class among the guesses, from 2: the second guess."""


@dataclass(frozen=True, kw_only=True)
class Result:
    """The errors of one network, or of the ensemble, with one kind of crops."""

    name: str
    """The network, or "ensemble": the mean of all networks' probabilities."""
    crops: Crops
    """centre: the centre crop; ten: ten crops averaged (§4.1)."""
    top1: Rate
    """Images whose most probable class is not the true one."""
    top5: Rate
    """Images whose true class is not among the five most probable."""
    classes: tuple[ClassErrors, ...]
    """The errors of each class that has images."""
    confusion: dict[str, dict[str, int]]
    """How many images of the first class were guessed to be of the second; zeros are left out."""
    mistakes: tuple[Mistake, ...]
    """The most confident wrong guesses, by descending probability."""


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Two results compared on the same images."""

    first: str
    """The result whose error is the minuend."""
    first_crops: Crops
    second: str
    """The result whose error is subtracted."""
    second_crops: Crops
    guesses: int
    """1: top-1 error; 5: top-5 error."""
    found: Difference
    """Difference, interval and test."""


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """Everything that an evaluation measured."""

    format: int
    """Version of this file's format."""
    data: EvaluationData
    precision: str
    """Precision of the layers' arithmetic: f32 or bf16."""
    models: tuple[ModelInfo, ...]
    labels: dict[str, str]
    """Labels of the networks' classes by folder name, in the first network's order."""
    results: tuple[Result, ...]
    differences: tuple[Comparison, ...]
    """All pairs with the same crops, and each network's ten crops against its centre crop."""

    @property
    def main_result(self) -> Result:
        """The result to show in detail: if possible the ensemble's, and with ten crops."""
        return max(self.results, key=lambda r: (r.name == ENSEMBLE, r.crops == "ten"))


def save_evaluation(evaluation: Evaluation, home: Home, root: Path) -> Path:
    """Write an evaluation where the application finds it, and return the file.

    Adds `created`, the time, and `root`, the absolute path of the photographs' folder. Raises
    OSError.
    """
    now = datetime.now(UTC)
    models = evaluation.models
    name = models[0].name if len(models) == 1 else ENSEMBLE
    stem = f"{now:%Y%m%d-%H%M%S}-{re.sub(r'[^A-Za-z0-9._-]+', '_', name)[:MAX_NAME_LENGTH]}"
    home.evaluations.mkdir(parents=True, exist_ok=True)
    taken = {file.name for file in home.evaluations.iterdir()}
    names = (f"{stem}{f'-{n}' if n > 1 else ''}.json" for n in range(1, len(taken) + 2))
    file = home.evaluations / next(name for name in names if name not in taken)
    where = {"created": f"{now:%Y-%m-%dT%H:%M:%SZ}", "root": str(root.resolve())}
    write_json(file, where | asdict(evaluation))
    return file


def write_json(file: Path, content: dict[str, object]) -> None:
    """Write an evaluation's JSON file, indented, in UTF-8. Raises OSError."""
    write_atomically(file, json.dumps(content, indent=2, ensure_ascii=False) + "\n")

"""What `training/evaluate.py` measures: the content of its JSON files, and how they are written.

`asdict` of an `Evaluation` is the JSON file. It names classes, never their positions, and holds no
path but those from the data folder, no time and no machine.
"""

import json
import re
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from storage.files import write_atomically
from storage.home import Home

FORMAT = 1
ENSEMBLE = "ensemble"
Crops = Literal["ten", "centre"]
CROPS_LABELS: dict[Crops, str] = {"ten": "ten crops", "centre": "centre crop"}
MAX_NAME_LENGTH = 80


@dataclass(frozen=True, kw_only=True)
class Rate:
    """A share of images and its 95 % interval by Wilson's score (Wilson 1927)."""

    wrong: int
    """Images on which the guess was wrong."""
    images: int
    """Images in all."""
    error: float
    """The first by the second, 0–1."""
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
    """McNemar's exact test: the probability, by chance, of a split at least as uneven."""


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
    """Its name in this file."""
    identity: str
    """Digest of all that its predictions depend on."""
    classes: int
    """How many it tells apart; every one of them may be guessed."""
    side: int
    """The square, in pixels, that a photograph is scaled and cropped to."""
    crop: int
    """The square that the network sees of it."""
    preset: str
    """The recipe it was trained by."""
    epochs: int
    """Passes over its training set."""
    images: int
    """Images in its training set."""


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
    """From the data folder."""
    true: str
    """Its class, by folder name."""
    true_label: str
    """The label of its class."""
    true_probability: float
    """What the network gave its class, 0–1."""
    guess: str
    """The most probable class, by folder name."""
    guess_label: str
    """The label of the guess."""
    probability: float
    """What the network gave the guess, 0–1."""
    rank: int
    """The rank of the true class among the guesses; 2: the second guess."""


@dataclass(frozen=True, kw_only=True)
class Result:
    """The errors of one network, or of the ensemble, with one kind of crops."""

    name: str
    """The network, or "ensemble": the mean of all networks' probabilities."""
    crops: Crops
    """centre: the centre crop; ten: ten crops averaged (§4.1)."""
    top1: Rate
    """The most probable class is not the true one."""
    top5: Rate
    """The true class is not among the five most probable."""
    classes: tuple[ClassErrors, ...]
    """By class, for those that have images."""
    confusion: dict[str, dict[str, int]]
    """How many images of the first class were guessed to be of the second; zeros are left out."""
    mistakes: tuple[Mistake, ...]
    """The most confident wrong guesses, by falling probability."""


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Two results compared on the same images."""

    first: str
    """Whose error is taken."""
    first_crops: Crops
    second: str
    """Whose error is subtracted."""
    second_crops: Crops
    guesses: int
    """1: top-1 error; 5: top-5 error."""
    found: Difference
    """Difference, interval and test."""


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """All that an evaluation measured."""

    format: int
    """Version of this file's format."""
    data: EvaluationData
    precision: str
    """Of the layers' arithmetic: f32 or bf16."""
    models: tuple[ModelInfo, ...]
    labels: dict[str, str]
    """Labels of the networks' classes by folder name, in the first network's order."""
    results: tuple[Result, ...]
    differences: tuple[Comparison, ...]
    """Every pair with the same crops, and each one's ten crops against its centre crop."""

    @property
    def main_result(self) -> Result:
        """The result to look at in detail: the ensemble's, with ten crops, where there is one."""
        return max(self.results, key=lambda r: (r.name == ENSEMBLE, r.crops == "ten"))


def save_evaluation(evaluation: Evaluation, home: Home, root: Path) -> Path:
    """Write an evaluation where the application finds it; give the file.

    It adds what only this machine knows: `created`, the time, and `root`, the folder of the
    photographs, absolute. Raises OSError.
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

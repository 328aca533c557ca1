"""What an evaluation found, as numbers: errors, differences, confusions, mistakes.

`asdict` of a `Verdict` is the JSON file. It names classes, never their positions, and holds no
path but those from the data folder, no time and no machine.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from model.dataset import ClassName
from training.evaluation.confidence import Difference, Rate, difference, rate
from training.evaluation.predictions import ENSEMBLE, Answered, Answers, Crops, Key, Model

FORMAT = 1
TOPS = (1, 5)


@dataclass(frozen=True, kw_only=True)
class Data:
    """What the networks were judged on."""

    folder: str
    """As named on the command line."""
    layout: str
    """split: <split>/<class>/*; folders: <class>/*; files: <WordNet id>_*."""
    split: str | None
    """The split, where the layout has splits."""
    images: int
    """Photographs that were judged."""
    classes: int
    """Classes that they are of."""
    unreadable: tuple[str, ...]
    """Photographs left out because they cannot be read: path and reason."""
    unknown: dict[str, int]
    """Classes left out because the networks do not know them, and their photographs."""


@dataclass(frozen=True, kw_only=True)
class Judged:
    """A network."""

    name: str
    """What it is called in this file."""
    identity: str
    """Digest of all that its answers depend on."""
    classes: int
    """How many it can tell apart; every one of them may be guessed."""
    side: int
    """The square, in pixels, a photograph is brought to."""
    crop: int
    """What the network sees of it."""
    preset: str
    """The recipe it was trained by."""
    epochs: int
    """Passes over its training set."""
    images: int
    """Images of its training set."""


@dataclass(frozen=True, kw_only=True)
class ClassErrors:
    """The errors on the images of one class."""

    folder: str
    """The class."""
    label: str
    """What a person reads."""
    top1: Rate
    """With one guess."""
    top5: Rate
    """With five."""


@dataclass(frozen=True, kw_only=True)
class Mistake:
    """A photograph whose guess is wrong."""

    path: str
    """From the data folder."""
    true: str
    """Its class, by folder name."""
    true_label: str
    """What a person reads."""
    true_probability: float
    """What the network gave it, 0–1."""
    guess: str
    """The most probable class, by folder name."""
    guess_label: str
    """What a person reads."""
    probability: float
    """What the network gave it, 0–1."""
    rank: int
    """The place of the true class among the guesses; 2: the second."""


@dataclass(frozen=True, kw_only=True)
class Result:
    """How one network, or the ensemble, answered from one kind of crops."""

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
    """How many images of the class named first were guessed to be of the second; none: absent."""
    mistakes: tuple[Mistake, ...]
    """The wrong guesses of the greatest probability, falling."""


@dataclass(frozen=True, kw_only=True)
class Compared:
    """Two results compared on the same images."""

    first: str
    """Whose error is taken."""
    first_crops: Crops
    """From which crops."""
    second: str
    """Whose error is subtracted."""
    second_crops: Crops
    """From which crops."""
    guesses: int
    """1: top-1 error; 5: top-5 error."""
    found: Difference
    """Difference, interval and test."""


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """An evaluation."""

    format: int
    """Of this file."""
    data: Data
    """On what."""
    precision: str
    """Of the layers' arithmetic: f32 or bf16."""
    models: tuple[Judged, ...]
    """Which networks."""
    labels: dict[str, str]
    """The networks' classes: what a person reads, by folder name, in the first one's order."""
    results: tuple[Result, ...]
    """How they answered."""
    differences: tuple[Compared, ...]
    """Every pair with the same crops, and each one's ten crops against its centre crop."""

    @property
    def best_informed(self) -> Result:
        """The result to look at more closely: the ensemble's, from ten crops, where they are."""
        return max(self.results, key=lambda r: (r.name == ENSEMBLE, r.crops == "ten"))


def judge(
    answered: Answered,
    models: Sequence[Model],
    classes: Sequence[ClassName],
    data: Data,
    *,
    precision: str,
    mistakes: int,
) -> Verdict:
    """Count. `classes` are those that the answers number."""
    return Verdict(
        format=FORMAT,
        data=data,
        precision=precision,
        models=tuple(described(model) for model in models),
        labels={known.folder: known.label for known in classes},
        results=tuple(
            result(key, said, answered, classes, mistakes) for key, said in answered.answers.items()
        ),
        differences=tuple(compared(answered.answers)),
    )


def described(model: Model) -> Judged:
    """Which network this is."""
    weights = model.predictor.weights
    return Judged(
        name=model.name,
        identity=model.predictor.identity,
        classes=weights.config.classes,
        side=weights.config.side,
        crop=weights.config.crop,
        preset=weights.provenance.preset,
        epochs=weights.provenance.epochs,
        images=weights.provenance.images,
    )


def result(
    key: Key, said: Answers, answered: Answered, classes: Sequence[ClassName], mistakes: int
) -> Result:
    """Everything about one key's answers."""
    true = np.array([photograph.class_index for photograph in answered.photographs])
    return Result(
        name=key.name,
        crops=key.crops,
        top1=rate(said.wrong(1)),
        top5=rate(said.wrong(5)),
        classes=tuple(class_errors(said, true == i, classes[i]) for i in np.unique(true)),
        confusion=confusion(said, true, classes),
        mistakes=tuple(most_confident(said, true, answered, classes, mistakes)),
    )


def class_errors(said: Answers, own: np.ndarray, name: ClassName) -> ClassErrors:
    """The errors among a class's own images."""
    top1, top5 = (rate(said.wrong(guesses)[own]) for guesses in TOPS)
    return ClassErrors(folder=name.folder, label=name.label, top1=top1, top5=top5)


def confusion(
    said: Answers, true: np.ndarray, classes: Sequence[ClassName]
) -> dict[str, dict[str, int]]:
    """The confusion matrix, as far as it is not zero."""
    pairs, counts = np.unique(np.stack([true, said.guess]), axis=1, return_counts=True)
    found: dict[str, dict[str, int]] = {}
    for is_, guess, count in zip(*pairs, counts, strict=True):
        found.setdefault(classes[is_].folder, {})[classes[guess].folder] = int(count)
    return found


def most_confident(
    said: Answers, true: np.ndarray, answered: Answered, classes: Sequence[ClassName], count: int
) -> list[Mistake]:
    """The wrong guesses by falling probability, at most so many."""
    (wrong,) = said.wrong(1).nonzero()
    order = wrong[np.argsort(-said.probability[wrong], kind="stable")][:count]
    return [
        Mistake(
            path=answered.photographs[i].path,
            true=classes[true[i]].folder,
            true_label=classes[true[i]].label,
            true_probability=float(said.true_probability[i]),
            guess=classes[said.guess[i]].folder,
            guess_label=classes[said.guess[i]].label,
            probability=float(said.probability[i]),
            rank=int(said.rank[i]) + 1,
        )
        for i in order
    ]


def compared(answers: dict[Key, Answers]) -> list[Compared]:
    """The comparisons worth making: two of the same crops, or ten crops and centre of the same."""
    pairs = [(a, b) for a, b in combinations(answers, 2) if a.crops == b.crops or a.name == b.name]
    return [
        Compared(
            first=a.name,
            first_crops=a.crops,
            second=b.name,
            second_crops=b.crops,
            guesses=guesses,
            found=difference(answers[a].wrong(guesses), answers[b].wrong(guesses)),
        )
        for a, b in pairs
        for guesses in TOPS
    ]

"""What an experiment consists of: the claim, the arms that test it, and how long they run."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal

from model.dataset.folder import ClassName
from training.recipe.config import Recipe

DataKind = Literal["cifar10", "imagenette", "imagenet"]
"""What the photographs are; "imagenette" is any folder of photographs with few classes."""
DATA_LABELS: Mapping[DataKind, str] = {
    "cifar10": "CIFAR-10",
    "imagenette": "Imagenette",
    "imagenet": "ImageNet",
}
CIFAR10_CLASSES = frozenset(
    ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
)
IMAGENET_CLASSES = 1000
MakeArms = Callable[[int], Mapping[str, Recipe]]
"""Makes each arm's recipe, by name, of the number of epochs."""


@dataclass(frozen=True, kw_only=True)
class Setting:
    """How an experiment is run on one kind of data.

    make_arms: the arms' recipes. few: how many seeds an arm has that has fewer than the others.
    images: training images used, of all classes alike; None: all. minutes: the budget. held_out:
    one in so many training images is held out; the curves show the error on a thousand of them, and
    rates are searched by training on them. rates: what is searched for each arm, over
    `search_epochs`. target: the training error, 0–1, that ends a run. plateau: whether a run ends
    once its loss has left the first plateau. sample: training images whose error is measured after
    each epoch. test_images: validation images of the test, of all classes alike; None: all. only:
    the arms to run; none named: all.
    """

    make_arms: MakeArms
    epochs: int
    seeds: int
    minutes: float
    few: Mapping[str, int] = field(default_factory=dict)
    images: int | None = None
    held_out: int = 10
    rates: tuple[float, ...] = ()
    search_epochs: int = 1
    target: float | None = None
    plateau: bool = False
    sample: int = 2000
    test_images: int | None = None
    only: tuple[str, ...] = ()

    def choose_arms(self, epochs: int) -> Mapping[str, Recipe]:
        """Return the recipes of the arms to run."""
        made = self.make_arms(epochs)
        return {name: made[name] for name in self.only or made}

    def count_seeds(self, arm: str, seeds: int) -> int:
        """Return how many of `seeds` seeds an arm has."""
        return min(seeds, self.few.get(arm, seeds))


@dataclass(frozen=True, kw_only=True)
class Contrast:
    """Two arms that are compared: by the claim, the first has more of what is measured."""

    more: str
    less: str


@dataclass(frozen=True, kw_only=True)
class Claim:
    """A sentence of the paper that can be tested.

    measure: the name of what is compared (experiments/claims/measures.py). contrasts: all must
    hold. data: the kinds of data it is tested on; none named: all of the experiment's. ratio:
    whether arms are compared by their ratio, not their difference. over: what the interval is over.
    paper: the paper's figure, in words. paper_value: the same as a number, if it is comparable.
    """

    statement: str
    measure: str
    paper: str
    contrasts: tuple[Contrast, ...] = ()
    data: tuple[DataKind, ...] = ()
    ratio: bool = False
    over: Literal["seeds", "images", "runs"] = "seeds"
    paper_value: float | None = None


@dataclass(frozen=True, kw_only=True)
class Experiment:
    """An experiment by its name on the command line.

    settings: by kind of data; none: it is read from other experiments' runs. special: what its
    runner does beside training the arms (experiments/claims/runner.py). note: what a reader must
    know of how it differs from the paper's own.
    """

    name: str
    title: str
    section: str
    claims: tuple[Claim, ...]
    settings: Mapping[DataKind, Setting] = field(default_factory=dict)
    special: Literal["", "ensemble", "neighbours", "baseline", "chain", "kernels"] = ""
    note: str = ""


def find_data_kind(classes: tuple[ClassName, ...]) -> DataKind:
    """Find out what kind of data these classes are."""
    if {name.folder for name in classes} == CIFAR10_CLASSES:
        return "cifar10"
    return "imagenet" if len(classes) >= IMAGENET_CLASSES else "imagenette"


def label_data(kind: str) -> str:
    """Return the name of a kind of data."""
    return next(label for known, label in DATA_LABELS.items() if known == kind)

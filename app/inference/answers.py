"""What the engine gives: what it is ready to answer with, and answers."""

import time
from dataclasses import dataclass
from typing import Literal

from app.database import images
from index.sample import ImageSample
from index.store import Index, Manifest
from model.predict import Guess, Predictor

Reason = Literal["no-weights", "no-index", "mismatch", "damaged", "database", "search"]


@dataclass(frozen=True, kw_only=True)
class Ready:
    """Weights and an index made by them.

    sample: what the index knows of some images beyond their features; None for an older index.
    """

    predictor: Predictor
    index: Index
    version: images.Version
    sample: ImageSample | None = None

    @property
    def manifest(self) -> Manifest:
        """What the index says of itself."""
        return self.index.manifest


@dataclass(frozen=True, kw_only=True)
class NotReady:
    """Why nothing can be answered yet: `message` is for people, `command` mends it."""

    reason: Reason
    message: str
    command: str


class NotReadyError(Exception):
    """Asked for an answer while there is no pair of weights and index to give one."""

    def __init__(self, state: NotReady) -> None:
        super().__init__(f"{state.message} Run `{state.command}`.")
        self.state = state


@dataclass(frozen=True, kw_only=True)
class Neighbour:
    """A training image and its Euclidean distance: in the features of fc7, or by pixels.

    copies: how many training images have exactly its pixels, itself among them. near: whether it
    is nearly the image asked about: as near as an image re-encoded is to itself.
    """

    id: int
    label: str
    distance: float
    copies: int = 1
    near: bool = False


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What the network and the index say of one image.

    top5: at most five, falling. crops: the best of each of the ten crops, in their order.
    neighbours: at most six, nearest first. by_pixels: the same by the distance of 32×32 pixels;
    none where the index has no sample. sampled: how many images were compared by pixels, where
    those are not all. milliseconds: by step, "decode", "network", "search", "pixels". weights and
    version name what answered. width, height: of the image, in pixels, upright.
    """

    top5: list[Guess]
    crops: list[Guess]
    neighbours: list[Neighbour]
    by_pixels: list[Neighbour]
    sampled: int | None
    milliseconds: dict[str, float]
    weights: str
    version: images.Version
    width: int
    height: int


class Watch:
    """Times the steps of an answer, in milliseconds."""

    def __init__(self) -> None:
        self.milliseconds: dict[str, float] = {}
        self.last = time.perf_counter()

    def step(self, name: str) -> None:
        """Note the time since the step before."""
        now = time.perf_counter()
        self.milliseconds[name], self.last = 1000 * (now - self.last), now

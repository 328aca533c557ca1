"""What Figure 4 shows: labels by the network, neighbours by the index, for several images."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from app.database.images import CatalogueImage
from app.database.session import Sessions
from app.inference.classify import Neighbour, nearest_neighbours
from app.inference.loader import Ready
from app.views.figure4.choice import Selection
from model.predict import Floats, Pixels, Predictor
from model.preprocess import central_square, decode

ReadFile = Callable[[CatalogueImage], bytes]
"""Reads an image's file; raises ImageError or OSError when it is not the one entered."""


@dataclass(frozen=True, kw_only=True)
class Bar:
    """A label, its probability, 0–1, and whether it is the correct one."""

    label: str
    probability: float
    correct: bool


@dataclass(frozen=True, kw_only=True)
class LabelledImage:
    """An image of the left and its five most probable labels, falling."""

    picture: CatalogueImage
    bars: tuple[Bar, ...]


@dataclass(frozen=True, kw_only=True)
class Retrieval:
    """An image of the right and the training images nearest_neighbours to it, rising."""

    picture: CatalogueImage
    neighbours: tuple[Neighbour, ...]


@dataclass(frozen=True, kw_only=True)
class FigureContent:
    """The whole figure; weights and version name what answered."""

    left: tuple[LabelledImage, ...]
    right: tuple[Retrieval, ...]
    weights: str
    version: str


def compute_content(
    ready: Ready, sessions: Sessions, choice: Selection, read: ReadFile
) -> FigureContent:
    """Answer for all images of a choice: the left in one batch, the right in one search.

    Raises what `read` does, DatabaseError and SearchError.
    """
    squares = {key: decode_square(read(one)) for key, one in choice.pictures.items()}
    predictor = ready.predictor
    shares = predictor.probabilities(stack_squares(squares, choice.left))
    features = predictor.features(stack_squares(squares, choice.right))
    found = nearest_neighbours(ready, sessions, features)
    return FigureContent(
        left=tuple(
            LabelledImage(picture=one, bars=top_bars(predictor, own, one))
            for one, own in zip(choice.left, shares, strict=True)
        ),
        right=tuple(
            Retrieval(picture=one, neighbours=tuple(near))
            for one, near in zip(choice.right, found, strict=True)
        ),
        weights=predictor.identity,
        version=ready.version.name,
    )


def decode_square(data: bytes) -> Pixels:
    """Give what the network sees of a file: uint8 [256, 256, 3]."""
    return central_square(decode(data))


def stack_squares(squares: dict[int, Pixels], pictures: Sequence[CatalogueImage]) -> Pixels:
    """Put images after one another: uint8 [N, 256, 256, 3]."""
    return np.stack([squares[one.id] for one in pictures])


def top_bars(predictor: Predictor, shares: Floats, picture: CatalogueImage) -> tuple[Bar, ...]:
    """Give the five most probable labels of float32 [classes], the correct one marked."""
    correct = rank_of_correct(predictor, shares, picture)
    return tuple(
        Bar(label=guess.label, probability=guess.probability, correct=place == correct)
        for place, guess in enumerate(predictor.top5(shares))
    )


def rank_of_correct(predictor: Predictor, shares: Floats, picture: CatalogueImage) -> int | None:
    """Find how many labels come before the correct one; None where the network has no such class.

    By the class's folder: labels may have been changed since, and two classes may have the same.
    """
    folder = picture.path.split("/")[1]
    index = next((i for i, own in enumerate(predictor.classes) if own.folder == folder), None)
    if index is None:
        return None
    return int((shares > shares[index]).sum() + (shares[:index] == shares[index]).sum())

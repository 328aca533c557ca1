"""What Figure 4 shows: the network's labels and the index's neighbours for the selected images."""

import re
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from flask import abort, current_app, request, url_for

from app import context
from app.database.images import CatalogueImage, find_validation_images
from app.database.session import Sessions
from app.inference.classify import Neighbour, find_nearest_neighbours
from app.inference.lru_cache import LruCache
from app.inference.state import Ready
from app.views.figure4.selection import Selection, draw_selection, pick_selection
from app.views.images import FILE_GONE, read_unchanged
from model.image.decode import ImageError
from model.predict import Floats, Pixels, Predictor

MAX_CACHED_FIGURES = 16
"""Figures whose contents are cached; each takes a few kilobytes."""
DRAW_NUMBER = re.compile(r"\d{1,18}")
BAD_DRAW = "`draw` must be 0, 1, 2 and so on."
NO_IMAGES = (
    "There are no validation images to show",
    "The figure shows images from the folder val, which the network was not trained on. "
    "A selection of the readable ones is stored with the index.",
)
ReadFile = Callable[[CatalogueImage], bytes]
"""Reads an image's file; raises ImageError or OSError if it is not the one that was indexed."""


@dataclass(frozen=True, kw_only=True)
class Bar:
    """A label, its probability, 0–1, and whether it is the correct one."""

    label: str
    probability: float
    correct: bool


@dataclass(frozen=True, kw_only=True)
class LabelledImage:
    """An image on the left side and its five most probable labels, in descending order."""

    picture: CatalogueImage
    bars: tuple[Bar, ...]


@dataclass(frozen=True, kw_only=True)
class Retrieval:
    """An image on the right side and its nearest training images, nearest first."""

    picture: CatalogueImage
    neighbours: tuple[Neighbour, ...]


@dataclass(frozen=True, kw_only=True)
class FigureContent:
    """The whole figure, and the weights and index version that it was computed with."""

    left: tuple[LabelledImage, ...]
    right: tuple[Retrieval, ...]
    weights: str
    version: str


class FigureState:
    """What requests for figures share: cached contents, and the lock for drawing."""

    def __init__(self) -> None:
        self.contents = LruCache(MAX_CACHED_FIGURES)
        self.drawing = threading.Lock()


def get_figure_state() -> FigureState:
    """Return the application's state for figures."""
    state: FigureState = current_app.extensions["figures"]
    return state


def list_validation_images(state: Ready) -> list[CatalogueImage]:
    """List the stored validation images whose files exist."""
    stored = find_validation_images(context.sessions(), state.version.dataset_id)
    return [one for one in stored if one.file.is_file()]


def read_selection(known: list[CatalogueImage]) -> Selection:
    """Return the images that the URL asks for. Raises SelectionError; 404 for a bad number."""
    left, right = (request.args.getlist(name) for name in ("image", "row"))
    if left or right:
        return pick_selection(known, left, right, is_readable)
    text = request.args.get("draw", "1")
    if not (text.isascii() and DRAW_NUMBER.fullmatch(text)):
        abort(404, BAD_DRAW)
    return draw_selection(known, int(text), is_readable)


def is_readable(picture: CatalogueImage) -> bool:
    """Return whether an image's file is the one that was indexed."""
    try:
        return bool(read_unchanged(picture))
    except (ImageError, OSError):
        return False


def make_figure_url(selection: Selection, endpoint: str, **values: Any) -> str:
    """Return the URL of the figure, or of a file of it, with this selection."""
    if selection.draw is not None:
        return url_for(endpoint, draw=selection.draw, **values)
    left, right = selection.ids
    return url_for(endpoint, image=left, row=right, **values)


def get_content(state: Ready, selection: Selection) -> FigureContent:
    """Return the figure's content, cached; waits for a free slot to compute it."""

    def compute() -> FigureContent:
        try:
            with context.compute_slot():
                return compute_content(state, context.sessions(), selection, read_unchanged)
        except (ImageError, OSError):
            abort(404, FILE_GONE)

    content: FigureContent = get_figure_state().contents.get(
        make_content_key(state, selection), compute
    )
    return content


def make_content_key(state: Ready, selection: Selection) -> tuple[object, ...]:
    """Return what the content depends on."""
    return state.predictor.identity, state.version.name, selection.ids


def compute_content(
    ready: Ready, sessions: Sessions, selection: Selection, read: ReadFile
) -> FigureContent:
    """Compute the figure: the left side in one batch, the right side in one search.

    Raises what `read` raises, DatabaseError and SearchError.
    """
    predictor = ready.predictor
    squares = {
        key: context.decode_square(predictor, read(one)) for key, one in selection.pictures.items()
    }
    probabilities = predictor.predict_probabilities(stack_squares(squares, selection.left))
    features = predictor.extract_features(stack_squares(squares, selection.right))
    neighbours = find_nearest_neighbours(ready, sessions, features)
    return FigureContent(
        left=tuple(
            LabelledImage(picture=one, bars=list_top_bars(predictor, own, one))
            for one, own in zip(selection.left, probabilities, strict=True)
        ),
        right=tuple(
            Retrieval(picture=one, neighbours=tuple(near))
            for one, near in zip(selection.right, neighbours, strict=True)
        ),
        weights=predictor.identity,
        version=ready.version.name,
    )


def stack_squares(squares: dict[int, Pixels], pictures: Sequence[CatalogueImage]) -> Pixels:
    """Stack images into a batch: uint8 [N, 256, 256, 3]."""
    return np.stack([squares[one.id] for one in pictures])


def list_top_bars(
    predictor: Predictor, probabilities: Floats, picture: CatalogueImage
) -> tuple[Bar, ...]:
    """Return the five most probable labels of float32 [classes], the correct one marked."""
    correct = find_correct_rank(predictor, probabilities, picture)
    return tuple(
        Bar(label=guess.label, probability=guess.probability, correct=rank == correct)
        for rank, guess in enumerate(predictor.top5(probabilities))
    )


def find_correct_rank(
    predictor: Predictor, probabilities: Floats, picture: CatalogueImage
) -> int | None:
    """Count the labels ranked before the correct one; None if the network lacks the class.

    Classes are matched by folder: labels may have changed, and two classes may share one.
    """
    folder = picture.path.split("/")[1]
    index = next((i for i, own in enumerate(predictor.classes) if own.folder == folder), None)
    if index is None:
        return None
    higher = (probabilities > probabilities[index]).sum()
    tied_before = (probabilities[:index] == probabilities[index]).sum()
    return int(higher + tied_before)

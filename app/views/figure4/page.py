"""Figure 4 of the paper, made of this installation's own validation images, and as a file."""

import re
import threading
from collections.abc import Callable
from functools import partial
from typing import Any

from flask import Blueprint, Response, abort, current_app, render_template, request, url_for
from werkzeug.utils import secure_filename

from app import context
from app.database.images import CatalogueImage, find_images, find_validation_images
from app.http_cache import not_modified
from app.inference.loader import Ready
from app.inference.lru_cache import LruCache
from app.views.figure4.caption import list_remarks, write_caption
from app.views.figure4.choice import (
    LEFT,
    RIGHT,
    Selection,
    SelectionError,
    draw_selection,
    pick_selection,
)
from app.views.figure4.rows import FigureContent, compute_content, decode_square
from app.views.images import FILE_GONE, read_unchanged
from app.views.pictures import picture_response
from model.predict import Pixels
from model.preprocess import ImageError

blueprint = Blueprint("figure4", __name__)
MAX_CACHED_FIGURES = 16
"""Figures whose answers are kept; each is a few kilobytes."""
DRAW_NUMBER = re.compile(r"\d{1,18}")
BAD_DRAW = "Choices of images are numbered 1, 2, 3 and so on."
NO_IMAGES = (
    "There are no validation images to show",
    "The figure shows images of the folder val, which the network was not trained on. Some of "
    "those that can be read are entered when the index is built.",
)


class FigureState:
    """What figures need between requests: answers computed last, and the right to draw."""

    def __init__(self) -> None:
        self.plates = LruCache(MAX_CACHED_FIGURES)
        self.drawing = threading.Lock()


@blueprint.get("/figure-4")
def show_figure() -> str | tuple[str, int]:
    """Show the figure: at once where it is known or waited for, else its frame, to be filled."""
    state = context.require_ready()
    known = list_validation_images(state)
    try:
        choice = requested_selection(known)
    except SelectionError as error:
        return render_selection_form(known, str(error)), 400
    if not choice.left:
        heading, sentence = NO_IMAGES
        return render_template(
            "notice.html", heading=heading, sentence=sentence, command="flask index build"
        )
    wanted = "wait" in request.args or figure_state().plates.holds(content_key(state, choice))
    return render_template(
        "figure.html",
        choice=choice,
        plate=get_content(state, choice) if wanted else None,
        caption=write_caption(choice, state.predictor.weights.provenance),
        remarks=list_remarks(choice, known),
        address=partial(figure_url, choice),
        another=url_for(".show_figure", draw=(choice.draw or 0) + 1),
        bars=min(5, len(state.predictor.classes)),
    )


@blueprint.get("/figure-4/choose")
def select_figure_images() -> str | tuple[str, int]:
    """Show the validation images that are known, to pick from."""
    known = list_validation_images(context.require_ready())
    try:
        choice = requested_selection(known)
    except SelectionError as error:
        return render_selection_form(known, str(error)), 400
    return render_selection_form(known, marked=choice.ids)


@blueprint.get("/figure-4.png")
def figure_png() -> Response:
    """Give the figure as a PNG."""
    from app.views.figure4 import drawing  # matplotlib takes half a second, and only this needs it

    return send_figure_file("png", "image/png", drawing.render_png)


@blueprint.get("/figure-4.svg")
def figure_svg() -> Response:
    """Give the figure as an SVG."""
    from app.views.figure4 import drawing  # as above

    return send_figure_file("svg", "image/svg+xml", drawing.render_svg)


RenderFile = Callable[[FigureContent, dict[int, Pixels], str], bytes]


def send_figure_file(suffix: str, mimetype: str, draw: RenderFile) -> Response:
    """Give the figure as a file to be saved."""
    state = context.require_ready()
    try:
        choice = requested_selection(list_validation_images(state))
    except SelectionError as error:
        abort(400, str(error))
    if not choice.left:
        abort(404, f"{NO_IMAGES[0]}. {NO_IMAGES[1]}")
    etag = f"{state.predictor.identity[:16]}-{state.version.name}-{choice.key}-{suffix}"
    response = not_modified(etag)
    if response is None:
        said = write_caption(choice, state.predictor.weights.provenance)
        data = render_file(get_content(state, choice), said, draw)
        response = picture_response(data, etag, mimetype)
    name = f"{figure_file_name(state, choice)}.{suffix}"
    response.headers.set("Content-Disposition", "attachment", filename=name)
    return response


def render_file(found: FigureContent, said: str, draw: RenderFile) -> bytes:
    """Draw a figure, one at a time, with the images as they are on the disk."""
    near = [one.id for row in found.right for one in row.neighbours]
    own = [one.picture.id for side in (found.left, found.right) for one in side]
    shown = find_images(context.sessions(), [*own, *near])
    with figure_state().drawing, context.compute_slot():
        squares = {
            key: seen for key, one in shown.items() if (seen := read_square(one)) is not None
        }
        return draw(found, squares, said)


def read_square(image: CatalogueImage) -> Pixels | None:
    """Give what is seen of an image, uint8 [256, 256, 3]; None where its file no longer serves."""
    try:
        return decode_square(read_unchanged(image))
    except (ImageError, OSError):
        return None


def get_content(state: Ready, choice: Selection) -> FigureContent:
    """Give the figure's answers, computed in a turn where they are not kept."""

    def compute() -> FigureContent:
        try:
            with context.compute_slot():
                return compute_content(state, context.sessions(), choice, read_unchanged)
        except (ImageError, OSError):
            abort(404, FILE_GONE)

    found: FigureContent = figure_state().plates.get(content_key(state, choice), compute)
    return found


def content_key(state: Ready, choice: Selection) -> tuple[object, ...]:
    """Name what answers depend on."""
    return state.predictor.identity, state.version.name, choice.ids


def list_validation_images(state: Ready) -> list[CatalogueImage]:
    """Give the validation images whose files are there."""
    entered = find_validation_images(context.sessions(), state.version.dataset_id)
    return [one for one in entered if one.file.is_file()]


def requested_selection(known: list[CatalogueImage]) -> Selection:
    """Give the images that the address asks for. Raises ChoiceError; answers 404 to no number."""
    left, right = (request.args.getlist(name) for name in ("image", "row"))
    if left or right:
        return pick_selection(known, left, right, is_readable)
    text = request.args.get("draw", "1")
    if not (text.isascii() and DRAW_NUMBER.fullmatch(text)):
        abort(404, BAD_DRAW)
    return draw_selection(known, int(text), is_readable)


def is_readable(image: CatalogueImage) -> bool:
    """Whether an image's file is the one that was entered."""
    try:
        return bool(read_unchanged(image))
    except (ImageError, OSError):
        return False


def render_selection_form(
    known: list[CatalogueImage],
    problem: str | None = None,
    marked: tuple[tuple[int, ...], tuple[int, ...]] | None = None,
) -> str:
    """Show what can be picked, with what is picked now; what was wrong with that."""
    left, right = marked or (request.args.getlist(name) for name in ("image", "row"))
    return render_template(
        "figure_choice.html",
        images=sorted(known, key=lambda one: (one.label.casefold(), one.class_id, one.id)),
        left={str(one) for one in left},
        right={str(one) for one in right},
        wanted=(min(LEFT, len(known)), min(RIGHT, len(known))),
        problem=problem,
    )


def figure_url(choice: Selection, endpoint: str, **more: Any) -> str:
    """Give the address of something made of a choice."""
    if choice.draw is not None:
        return url_for(endpoint, draw=choice.draw, **more)
    left, right = choice.ids
    return url_for(endpoint, image=left, row=right, **more)


def figure_file_name(state: Ready, choice: Selection) -> str:
    """Name a file after the data and the number of the choice."""
    data = secure_filename(state.version.root.name)
    number = str(choice.draw) if choice.draw is not None else ""
    return "-".join(part for part in ("figure-4", data, number) if part)


def figure_state() -> FigureState:
    """Give what figures need between requests."""
    found: FigureState = current_app.extensions["figures"]
    return found

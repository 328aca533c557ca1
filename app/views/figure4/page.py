"""Figure 4 of the paper, made of this installation's own validation images, and as a file."""

import re
import threading
from collections.abc import Callable
from functools import partial
from typing import Any

from flask import Blueprint, Response, abort, current_app, render_template, request, url_for
from werkzeug.utils import secure_filename

from app import context
from app.database import images
from app.database.images import Picture
from app.http_cache import not_modified
from app.inference.answers import Ready
from app.inference.lru_cache import Kept
from app.views.figure4.caption import caption, remarks
from app.views.figure4.choice import LEFT, RIGHT, Choice, ChoiceError, drawn, picked
from app.views.figure4.rows import Plate, answered, square
from app.views.images import GONE, read_unchanged
from app.views.pictures import picture_response
from model.predict import Pixels
from model.preprocess import ImageError

blueprint = Blueprint("figure", __name__)
KEPT = 16
"""Figures whose answers are kept; each is a few kilobytes."""
NUMBER = re.compile(r"\d{1,18}")
UNNUMBERED = "Choices of images are numbered 1, 2, 3 and so on."
NOTHING = (
    "There are no validation images to show",
    "The figure shows images of the folder val, which the network was not trained on. Some of "
    "those that can be read are entered when the index is built.",
)


class Figures:
    """What figures need between requests: answers computed last, and the right to draw."""

    def __init__(self) -> None:
        self.plates = Kept(KEPT)
        self.drawing = threading.Lock()


@blueprint.get("/figure-4")
def show() -> str | tuple[str, int]:
    """Show the figure: at once where it is known or waited for, else its frame, to be filled."""
    state = context.ready()
    known = images_known(state)
    try:
        choice = choice_asked(known)
    except ChoiceError as error:
        return choosing(known, str(error)), 400
    if not choice.left:
        heading, sentence = NOTHING
        return render_template(
            "notice.html", heading=heading, sentence=sentence, command="flask index build"
        )
    wanted = "wait" in request.args or figures().plates.holds(key(state, choice))
    return render_template(
        "figure.html",
        choice=choice,
        plate=plate(state, choice) if wanted else None,
        caption=caption(choice, state.predictor.weights.provenance),
        remarks=remarks(choice, known),
        address=partial(address, choice),
        another=url_for(".show", draw=(choice.draw or 0) + 1),
        bars=min(5, len(state.predictor.classes)),
    )


@blueprint.get("/figure-4/choose")
def choose() -> str | tuple[str, int]:
    """Show the validation images that are known, to pick from."""
    known = images_known(context.ready())
    try:
        choice = choice_asked(known)
    except ChoiceError as error:
        return choosing(known, str(error)), 400
    return choosing(known, marked=choice.ids)


@blueprint.get("/figure-4.png")
def png() -> Response:
    """Give the figure as a PNG."""
    from app.views.figure4 import drawing  # matplotlib takes half a second, and only this needs it

    return file("png", "image/png", drawing.png)


@blueprint.get("/figure-4.svg")
def svg() -> Response:
    """Give the figure as an SVG."""
    from app.views.figure4 import drawing  # as above

    return file("svg", "image/svg+xml", drawing.svg)


Draw = Callable[[Plate, dict[int, Pixels], str], bytes]


def file(suffix: str, mimetype: str, draw: Draw) -> Response:
    """Give the figure as a file to be saved."""
    state = context.ready()
    try:
        choice = choice_asked(images_known(state))
    except ChoiceError as error:
        abort(400, str(error))
    if not choice.left:
        abort(404, f"{NOTHING[0]}. {NOTHING[1]}")
    etag = f"{state.predictor.identity[:16]}-{state.version.name}-{choice.key}-{suffix}"
    response = not_modified(etag)
    if response is None:
        said = caption(choice, state.predictor.weights.provenance)
        data = draw_file(plate(state, choice), said, draw)
        response = picture_response(data, etag, mimetype)
    name = f"{file_name(state, choice)}.{suffix}"
    response.headers.set("Content-Disposition", "attachment", filename=name)
    return response


def draw_file(found: Plate, said: str, draw: Draw) -> bytes:
    """Draw a figure, one at a time, with the images as they are on the disk."""
    near = [one.id for row in found.right for one in row.neighbours]
    own = [one.picture.id for side in (found.left, found.right) for one in side]
    shown = images.pictures_by_id(context.sessions(), [*own, *near])
    with figures().drawing, context.turn():
        squares = {key: seen for key, one in shown.items() if (seen := seen_of(one)) is not None}
        return draw(found, squares, said)


def seen_of(image: Picture) -> Pixels | None:
    """Give what is seen of an image, uint8 [256, 256, 3]; None where its file no longer serves."""
    try:
        return square(read_unchanged(image))
    except (ImageError, OSError):
        return None


def plate(state: Ready, choice: Choice) -> Plate:
    """Give the figure's answers, computed in a turn where they are not kept."""

    def compute() -> Plate:
        try:
            with context.turn():
                return answered(state, context.sessions(), choice, read_unchanged)
        except (ImageError, OSError):
            abort(404, GONE)

    found: Plate = figures().plates.get(key(state, choice), compute)
    return found


def key(state: Ready, choice: Choice) -> tuple[object, ...]:
    """Name what answers depend on."""
    return state.predictor.identity, state.version.name, choice.ids


def images_known(state: Ready) -> list[Picture]:
    """Give the validation images whose files are there."""
    entered = images.validation_images(context.sessions(), state.version.dataset_id)
    return [one for one in entered if one.file.is_file()]


def choice_asked(known: list[Picture]) -> Choice:
    """Give the images that the address asks for. Raises ChoiceError; answers 404 to no number."""
    left, right = (request.args.getlist(name) for name in ("image", "row"))
    if left or right:
        return picked(known, left, right, serves)
    text = request.args.get("draw", "1")
    if not (text.isascii() and NUMBER.fullmatch(text)):
        abort(404, UNNUMBERED)
    return drawn(known, int(text), serves)


def serves(image: Picture) -> bool:
    """Whether an image's file is the one that was entered."""
    try:
        return bool(read_unchanged(image))
    except (ImageError, OSError):
        return False


def choosing(
    known: list[Picture],
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


def address(choice: Choice, endpoint: str, **more: Any) -> str:
    """Give the address of something made of a choice."""
    if choice.draw is not None:
        return url_for(endpoint, draw=choice.draw, **more)
    left, right = choice.ids
    return url_for(endpoint, image=left, row=right, **more)


def file_name(state: Ready, choice: Choice) -> str:
    """Name a file after the data and the number of the choice."""
    data = secure_filename(state.version.root.name)
    number = str(choice.draw) if choice.draw is not None else ""
    return "-".join(part for part in ("figure-4", data, number) if part)


def figures() -> Figures:
    """Give what figures need between requests."""
    found: Figures = current_app.extensions["figures"]
    return found

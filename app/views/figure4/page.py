"""The page Figure 4: the paper's figure with this installation's validation images."""

from collections.abc import Callable
from functools import partial

from flask import Blueprint, Response, abort, render_template, request, url_for
from werkzeug.utils import secure_filename

from app import context
from app.database.images import CatalogueImage, find_images
from app.inference.state import Ready
from app.views.figure4.content import (
    NO_IMAGES,
    FigureContent,
    get_content,
    get_figure_state,
    list_validation_images,
    make_content_key,
    make_figure_url,
    read_selection,
)
from app.views.figure4.selection import (
    LEFT,
    RIGHT,
    Selection,
    SelectionError,
    list_remarks,
    write_caption,
)
from app.views.images import read_unchanged
from app.views.pictures import make_picture_response
from app.web import check_not_modified
from model.image.decode import ImageError
from model.predict import Pixels, Predictor

blueprint = Blueprint("figure4", __name__)
RenderFile = Callable[[FigureContent, dict[int, Pixels], str], bytes]


@blueprint.get("/figure-4")
def show_figure() -> str | tuple[str, int]:
    """Show the figure if it is cached or `wait` is given; otherwise a placeholder to fill in."""
    state = context.require_ready()
    known = list_validation_images(state)
    try:
        selection = read_selection(known)
    except SelectionError as error:
        return render_selection_form(known, str(error)), 400
    if not selection.left:
        heading, sentence = NO_IMAGES
        return render_template(
            "notice.html", heading=heading, sentence=sentence, command="flask index build"
        )
    complete = "wait" in request.args or get_figure_state().contents.contains(
        make_content_key(state, selection)
    )
    return render_template(
        "figure4.html",
        selection=selection,
        content=get_content(state, selection) if complete else None,
        caption=write_caption(selection, state.version.root, state.predictor.provenance),
        remarks=list_remarks(selection, known),
        figure_url=partial(make_figure_url, selection),
        shuffled=url_for(".show_figure", draw=(selection.draw or 0) + 1),
        bars=min(5, len(state.predictor.classes)),
    )


@blueprint.get("/figure-4/choose")
def select_figure_images() -> str | tuple[str, int]:
    """Show the validation images to choose from."""
    known = list_validation_images(context.require_ready())
    try:
        selection = read_selection(known)
    except SelectionError as error:
        return render_selection_form(known, str(error)), 400
    return render_selection_form(known, checked=selection.ids)


@blueprint.get("/figure-4.png")
def figure_png() -> Response:
    """Return the figure as a PNG."""
    from app.views.figure4 import drawing  # importing matplotlib takes half a second

    return send_figure_file("png", "image/png", drawing.render_png)


@blueprint.get("/figure-4.svg")
def figure_svg() -> Response:
    """Return the figure as an SVG."""
    from app.views.figure4 import drawing  # as above

    return send_figure_file("svg", "image/svg+xml", drawing.render_svg)


def send_figure_file(suffix: str, mimetype: str, render: RenderFile) -> Response:
    """Return the figure as a file to download."""
    state = context.require_ready()
    try:
        selection = read_selection(list_validation_images(state))
    except SelectionError as error:
        abort(400, str(error))
    if not selection.left:
        abort(404, f"{NO_IMAGES[0]}. {NO_IMAGES[1]}")
    etag = f"{state.predictor.identity[:16]}-{state.version.name}-{selection.key}-{suffix}"
    response = check_not_modified(etag)
    if response is None:
        caption = write_caption(selection, state.version.root, state.predictor.provenance)
        data = render_file(state, get_content(state, selection), caption, render)
        response = make_picture_response(data, etag, mimetype)
    name = f"{figure_file_name(state, selection)}.{suffix}"
    response.headers.set("Content-Disposition", "attachment", filename=name)
    return response


def render_file(state: Ready, content: FigureContent, caption: str, render: RenderFile) -> bytes:
    """Draw the figure, one at a time, with the images as they are on disk."""
    neighbours = [one.id for row in content.right for one in row.neighbours]
    selected = [one.picture.id for side in (content.left, content.right) for one in side]
    pictures = find_images(context.sessions(), [*selected, *neighbours])
    with get_figure_state().drawing, context.compute_slot():
        squares = {
            image_id: square
            for image_id, picture in pictures.items()
            if (square := read_square_or_none(picture, state.predictor)) is not None
        }
        return render(content, squares, caption)


def read_square_or_none(picture: CatalogueImage, predictor: Predictor) -> Pixels | None:
    """Read an image as the network sees it, uint8 [256, 256, 3]; None if its file is unusable."""
    try:
        return context.decode_square(predictor, read_unchanged(picture))
    except (ImageError, OSError):
        return None


def render_selection_form(
    known: list[CatalogueImage],
    problem: str | None = None,
    checked: tuple[tuple[int, ...], tuple[int, ...]] | None = None,
) -> str:
    """Render the form, the current selection checked, and what was wrong with it."""
    left, right = checked or (request.args.getlist(name) for name in ("image", "row"))
    return render_template(
        "figure4_selection.html",
        images=sorted(known, key=lambda one: (one.label.casefold(), one.class_id, one.id)),
        left={str(one) for one in left},
        right={str(one) for one in right},
        required=(min(LEFT, len(known)), min(RIGHT, len(known))),
        problem=problem,
    )


def figure_file_name(state: Ready, selection: Selection) -> str:
    """Name a file after the dataset and the number that the images were drawn by."""
    data = secure_filename(state.version.root.name)
    number = str(selection.draw) if selection.draw is not None else ""
    return "-".join(part for part in ("figure-4", data, number) if part)

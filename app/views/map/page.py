"""The page Map: the training images in two dimensions, laid out by their fc7 features."""

from typing import get_args

from flask import Blueprint, Response, abort, render_template, request, url_for

from app import context
from app.database.browse import ClassCount
from app.inference.state import BUILD_COMMAND, Ready
from app.views.format import format_count
from app.views.map.layout import COLOURS, TrainingMap, build_training_map
from app.views.map.picture import HEIGHT, WIDTH, ColourScheme, render_map
from app.views.map.points_file import pack_points
from app.views.pictures import make_picture_response
from app.views.review.page import MAX_LISTED, describe_correcting
from app.web import check_not_modified, set_cache_headers
from index.building.tsne import MAX_TSNE_IMAGES, MIN_TSNE_IMAGES, PCA_DIMENSIONS

blueprint = Blueprint("map", __name__)
FORMAT_VERSION = 2
"""Part of the URLs of points and pictures, which are cached for a year: increment on changes."""
HOW_TO_READ = (
    "Images that look alike to the network lie close together; the distances between groups mean "
    "little."
)
NO_MAP = "This index was built before maps were added. Rebuild it to create one."


@blueprint.get("/map")
def show_map() -> str:
    """Show the map, or the command that creates one."""
    state, classes = context.require_classes()
    layout = build_training_map(state, classes)
    if layout is None:
        heading = "This index has no map"
        return render_template(
            "notice.html", heading=heading, sentence=NO_MAP, command=BUILD_COMMAND
        )
    version = name_map_version(state)
    return render_template(
        "map.html",
        layout=layout,
        description=describe_map(layout),
        colours=len(COLOURS),
        points=url_for(".map_points", v=version),
        drawings={
            scheme: url_for(".map_picture", scheme=scheme, v=version)
            for scheme in get_args(ColourScheme)
        },
        width=WIDTH,
        height=HEIGHT,
        max_listed=MAX_LISTED,
        **describe_correcting(state),
    )


@blueprint.get("/map/points.bin")
def map_points() -> Response:
    """Return the points, a column after another (`app.views.map.points_file`)."""
    state, classes = context.require_classes()
    etag = f"{name_map_version(state)}-points"
    if fresh := check_not_modified(etag, version=etag):
        return fresh
    data = pack_points(require_map(state, classes))
    response = Response(data, mimetype="application/octet-stream")
    return set_cache_headers(response, etag, version=etag)


@blueprint.get("/map.png")
def map_picture() -> Response:
    """Return the map as a PNG, in light colours or, with `scheme=dark`, in dark ones."""
    scheme: ColourScheme = "dark" if request.args.get("scheme") == "dark" else "light"
    state, classes = context.require_classes()
    etag = f"{name_map_version(state)}-{scheme}"
    if fresh := check_not_modified(etag, version=etag):
        return fresh
    with context.compute_slot():
        data = render_map(require_map(state, classes), scheme)
    return make_picture_response(data, etag, "image/png", version=etag)


def describe_map(layout: TrainingMap) -> str:
    """Say how the map was computed, from which images, and how to read it."""
    count, total = len(layout.ids), format_count(layout.images)
    if count == 1:
        return "There is only one image, so there is nothing to compare it with."
    if count < MIN_TSNE_IMAGES:
        method = "The first two principal components of the 4096-d fc7 features"
    else:
        method = (
            f"t-SNE of the 4096-d fc7 features, reduced to {PCA_DIMENSIONS} principal components"
        )
        if count > MAX_TSNE_IMAGES:
            method += f" ({format_count(MAX_TSNE_IMAGES)} laid out together, the others among them)"
    images = f"all {total}" if layout.whole else f"a sample of {format_count(count)} of {total}"
    return f"{method}, of {images} images. {HOW_TO_READ}"


def require_map(state: Ready, classes: list[ClassCount]) -> TrainingMap:
    """Return the map of the index being served; 404 if it has none."""
    return build_training_map(state, classes) or abort(404, NO_MAP)


def name_map_version(state: Ready) -> str:
    """Return the version in the URLs of the points and pictures.

    `flask index look` adds the review, and with it the guesses, to a version that had none.
    """
    reviewed = "" if state.review is None else "-reviewed"
    return f"{state.version.name}-{FORMAT_VERSION}{reviewed}"

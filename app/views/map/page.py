"""The page Map: the training images in two dimensions, laid out by their fc7 features."""

import json
from typing import get_args

from flask import Blueprint, Response, abort, render_template, request, url_for

from app import context
from app.database.browse import ClassCount
from app.inference.state import BUILD_COMMAND, Ready
from app.views.format import format_count
from app.views.map.layout import COLOURS, TrainingMap, build_training_map, list_map_columns
from app.views.map.picture import HEIGHT, WIDTH, ColourScheme, render_map
from app.views.pictures import make_picture_response
from app.web import check_not_modified, set_cache_headers
from index.building.tsne import MIN_TSNE_IMAGES, PCA_DIMENSIONS

blueprint = Blueprint("map", __name__)
FORMAT_VERSION = 1
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
    )


@blueprint.get("/map/points.json")
def map_points() -> Response:
    """Return the points as JSON, one list per column."""
    state, classes = context.require_classes()
    etag = f"{name_map_version(state)}-points"
    if fresh := check_not_modified(etag, version=etag):
        return fresh
    text = json.dumps(list_map_columns(require_map(state, classes)), separators=(",", ":"))
    return set_cache_headers(Response(text, mimetype="application/json"), etag, version=etag)


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
    images = f"all {total}" if layout.whole else f"a sample of {format_count(count)} of {total}"
    return f"{method}, of {images} images. {HOW_TO_READ}"


def require_map(state: Ready, classes: list[ClassCount]) -> TrainingMap:
    """Return the map of the index being served; 404 if it has none."""
    return build_training_map(state, classes) or abort(404, NO_MAP)


def name_map_version(state: Ready) -> str:
    """Return the version in the URLs of the points and pictures."""
    return f"{state.version.name}-{FORMAT_VERSION}"

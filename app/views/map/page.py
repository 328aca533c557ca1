"""The training images in two dimensions, as their features of fc7 lie."""

import json
from typing import get_args

from flask import Blueprint, Response, abort, render_template, request, url_for

from app import context
from app.database.browse import ClassCount
from app.http_cache import not_modified, set_cache_headers
from app.inference.loader import BUILD, Ready
from app.views.format import format_count
from app.views.map.colours import COLOURS
from app.views.map.layout import MapLayout, build_map_layout, map_columns
from app.views.map.picture import HEIGHT, WIDTH, ColourScheme, render_map
from app.views.pictures import picture_response
from index.building.tsne import MIN_TSNE_IMAGES, PCA_DIMENSIONS

blueprint = Blueprint("map", __name__)
FORMAT_VERSION = 1
"""Of what is sent under a version's name; another form has another address."""
PRINCIPAL = "The first two principal components"
REDUCED = f"by their first {PCA_DIMENSIONS} principal components"
HOW_TO_READ = (
    "Images that the network sees alike lie together; how far groups lie apart means little."
)
NO_MAP = "This index was built before there were maps; building it again makes one."


@blueprint.get("/map")
def show_map() -> str:
    """Show the map, or what makes one."""
    state, classes = context.require_classes()
    atlas = build_map_layout(state, classes)
    if atlas is None:
        heading = "There is no map in this index"
        return render_template("notice.html", heading=heading, sentence=NO_MAP, command=BUILD)
    key = map_version(state)
    return render_template(
        "map.html",
        atlas=atlas,
        how=describe_map(atlas),
        colours=len(COLOURS),
        points=url_for(".map_points", v=key),
        drawings={
            scheme: url_for(".map_picture", scheme=scheme, v=key)
            for scheme in get_args(ColourScheme)
        },
        width=WIDTH,
        height=HEIGHT,
    )


@blueprint.get("/map/points.json")
def map_points() -> Response:
    """Give the points, a list a column."""
    state, classes = context.require_classes()
    etag = f"{map_version(state)}-points"
    if fresh := not_modified(etag, version=etag):
        return fresh
    text = json.dumps(map_columns(require_map(state, classes)), separators=(",", ":"))
    return set_cache_headers(Response(text, mimetype="application/json"), etag, version=etag)


@blueprint.get("/map.png")
def map_picture() -> Response:
    """Give the map as a picture, on the light ground or, with `scheme=dark`, on the dark one."""
    scheme: ColourScheme = "dark" if request.args.get("scheme") == "dark" else "light"
    state, classes = context.require_classes()
    etag = f"{map_version(state)}-{scheme}"
    if fresh := not_modified(etag, version=etag):
        return fresh
    with context.compute_slot():
        data = render_map(require_map(state, classes), scheme)
    return picture_response(data, etag, "image/png", version=etag)


def describe_map(atlas: MapLayout) -> str:
    """Say how the map was computed, of which images, and how to read it."""
    count, everything = len(atlas.ids), format_count(atlas.images)
    if count == 1:
        return "One image alone: there is nothing to compare it with."
    few = f"{PRINCIPAL} of the 4096 features of fc7"
    method = few if count < MIN_TSNE_IMAGES else f"t-SNE of the 4096 features of fc7, {REDUCED}"
    of = (
        f"all {everything}" if atlas.whole else f"a sample of {format_count(count)} of {everything}"
    )
    return f"{method}; {of} images. {HOW_TO_READ}"


def require_map(state: Ready, classes: list[ClassCount]) -> MapLayout:
    """Give the map of what is served, or answer 404 where it has none."""
    return build_map_layout(state, classes) or abort(404, NO_MAP)


def map_version(state: Ready) -> str:
    """Name what is sent of a version."""
    return f"{state.version.name}-{FORMAT_VERSION}"

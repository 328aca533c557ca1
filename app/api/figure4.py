"""Figure 4: labels of eight validation images and neighbours of five."""

from typing import Any

from flask import abort
from marshmallow import Schema, fields, validate
from webargs.flaskparser import abort as refuse

from app import context
from app.api import etags, schemas
from app.api.openapi import ApiBlueprint
from app.database.images import CatalogueImage
from app.views.figure4.content import (
    NO_IMAGES,
    LabelledImage,
    Retrieval,
    get_content,
    list_validation_images,
    make_figure_url,
    read_selection,
)
from app.views.figure4.selection import Selection, SelectionError, write_caption

blueprint = ApiBlueprint(
    "figure-4", "Figure 4 of the paper, with this dataset's validation images."
)
PICKED_IDS = {"description": "ids of validation images; repeat the parameter"}


class FigureQuerySchema(Schema):
    """The images: drawn by a number, or chosen by id."""

    draw = fields.Integer(
        validate=validate.Range(min=0, max=10**18 - 1),
        metadata={"description": "the same number always draws the same images; default 1"},
    )
    image = fields.List(fields.Integer(), metadata=PICKED_IDS)
    row = fields.List(fields.Integer(), metadata=PICKED_IDS)


class BarSchema(schemas.LabelProbabilitySchema):
    """A label, its probability, and whether it is the correct one."""

    correct = fields.Boolean(required=True)


class LabelledImageSchema(Schema):
    """An image and its five most probable labels."""

    image = fields.Nested(schemas.ImageSchema, required=True)
    bars = fields.List(fields.Nested(BarSchema), required=True)


class RetrievalSchema(Schema):
    """An image and the training images nearest to it."""

    image = fields.Nested(schemas.ImageSchema, required=True)
    neighbours = fields.List(fields.Nested(schemas.NeighbourSchema), required=True)


class FigureSchema(Schema):
    """The content of the figure."""

    draw = fields.Integer(
        required=True,
        allow_none=True,
        metadata={"description": "null if the images were chosen by id"},
    )
    left = fields.List(fields.Nested(LabelledImageSchema), required=True)
    right = fields.List(fields.Nested(RetrievalSchema), required=True)
    caption = fields.String(required=True)
    png = fields.String(required=True, metadata={"format": "uri-reference"})
    svg = fields.String(required=True, metadata={"format": "uri-reference"})
    page = fields.String(required=True, metadata={"format": "uri-reference"})
    weights = fields.String(required=True)
    index = fields.String(required=True)


@blueprint.get("/figure-4", immutable=True)
@blueprint.arguments(FigureQuerySchema, location="query")
@blueprint.doc(operationId="figure4")
@blueprint.response(200, FigureSchema)
def get_figure(_: dict[str, Any]) -> dict[str, Any]:
    """Get the content of the figure"""
    state = context.require_ready()
    selection = require_selection(list_validation_images(state))
    etags.set_version_etag(state.version.name, selection.key)
    content = get_content(state, selection)
    return {
        "draw": selection.draw,
        "left": [dump_labelled_image(one) for one in content.left],
        "right": [dump_retrieval(one) for one in content.right],
        "caption": write_caption(selection, state.version.root, state.predictor.provenance),
        "png": make_figure_url(selection, "figure4.figure_png"),
        "svg": make_figure_url(selection, "figure4.figure_svg"),
        "page": make_figure_url(selection, "figure4.show_figure"),
        "weights": content.weights,
        "index": content.version,
    }


def require_selection(known: list[CatalogueImage]) -> Selection:
    """Return the images that the URL asks for; 422 if the figure cannot show them."""
    try:
        selection = read_selection(known)
    except SelectionError as error:
        refuse(422, exc=error, messages={"query": {"image, row": [str(error)]}})
    if not selection.left:
        abort(404, f"{NO_IMAGES[0]}. {NO_IMAGES[1]}")
    return selection


def dump_labelled_image(one: LabelledImage) -> dict[str, Any]:
    """Return an image and its labels as JSON."""
    return {"image": schemas.dump_image(one.picture), "bars": one.bars}


def dump_retrieval(one: Retrieval) -> dict[str, Any]:
    """Return an image and its neighbours as JSON."""
    return {
        "image": schemas.dump_image(one.picture),
        "neighbours": schemas.dump_neighbours(list(one.neighbours)),
    }

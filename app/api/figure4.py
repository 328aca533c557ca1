"""Figure 4: labels of eight validation images, and the neighbours of five."""

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
    figure_url,
    get_content,
    list_validation_images,
    requested_selection,
)
from app.views.figure4.selection import Selection, SelectionError, write_caption

blueprint = ApiBlueprint("figure-4", "Figure 4 of the paper, of this data set's validation images.")
PICKED_IDS = {"description": "ids of validation images; repeated"}


class FigureQuerySchema(Schema):
    """Which images: drawn by a number, or picked."""

    draw = fields.Integer(
        validate=validate.Range(min=0, max=10**18 - 1),
        metadata={"description": "the same number draws the same images; by default 1"},
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
    """The figure."""

    draw = fields.Integer(
        required=True, allow_none=True, metadata={"description": "null: picked one by one"}
    )
    left = fields.List(fields.Nested(LabelledImageSchema), required=True)
    right = fields.List(fields.Nested(RetrievalSchema), required=True)
    caption = fields.String(required=True)
    png = fields.String(required=True, metadata={"format": "uri-reference"})
    svg = fields.String(required=True, metadata={"format": "uri-reference"})
    page = fields.String(required=True, metadata={"format": "uri-reference"})
    weights = fields.String(required=True)
    index = fields.String(required=True)


@blueprint.get("/figure-4", lasting=True)
@blueprint.arguments(FigureQuerySchema, location="query")
@blueprint.doc(operationId="figure4")
@blueprint.response(200, FigureSchema)
def get_figure(_: dict[str, Any]) -> dict[str, Any]:
    """Tell what the figure shows"""
    state = context.require_ready()
    selection = require_selection(list_validation_images(state))
    etags.etag_by_version(state.version.name, selection.key)
    content = get_content(state, selection)
    return {
        "draw": selection.draw,
        "left": [dump_labelled_image(one) for one in content.left],
        "right": [dump_retrieval(one) for one in content.right],
        "caption": write_caption(selection, state.predictor.weights.provenance),
        "png": figure_url(selection, "figure4.figure_png"),
        "svg": figure_url(selection, "figure4.figure_svg"),
        "page": figure_url(selection, "figure4.show_figure"),
        "weights": content.weights,
        "index": content.version,
    }


def require_selection(known: list[CatalogueImage]) -> Selection:
    """Give the images that the address asks for; 422 where they cannot be shown together."""
    try:
        selection = requested_selection(known)
    except SelectionError as error:
        refuse(422, exc=error, messages={"query": {"image, row": [str(error)]}})
    if not selection.left:
        abort(404, f"{NO_IMAGES[0]}. {NO_IMAGES[1]}")
    return selection


def dump_labelled_image(one: LabelledImage) -> dict[str, Any]:
    """Tell of an image and its labels."""
    return {"image": schemas.dump_image(one.picture), "bars": one.bars}


def dump_retrieval(one: Retrieval) -> dict[str, Any]:
    """Tell of an image and its neighbours."""
    return {
        "image": schemas.dump_image(one.picture),
        "neighbours": schemas.dump_neighbours(list(one.neighbours)),
    }

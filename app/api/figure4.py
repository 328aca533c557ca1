"""Figure 4: labels of eight validation images, and the neighbours of five."""

from typing import Any

from flask import abort
from marshmallow import Schema, fields, validate
from webargs.flaskparser import abort as refuse

from app import context
from app.api import etags, schemas
from app.api.openapi import Subject
from app.database.images import Picture
from app.views.figure4 import page
from app.views.figure4.caption import caption
from app.views.figure4.choice import Choice, ChoiceError
from app.views.figure4.rows import Judged, Row

subject = Subject("figure-4", "Figure 4 of the paper, of this data set's validation images.")
PICKED = {"description": "ids of validation images; repeated"}


class FigureAskedSchema(Schema):
    """Which images: drawn by a number, or picked."""

    draw = fields.Integer(
        validate=validate.Range(min=0, max=10**18 - 1),
        metadata={"description": "the same number draws the same images; by default 1"},
    )
    image = fields.List(fields.Integer(), metadata=PICKED)
    row = fields.List(fields.Integer(), metadata=PICKED)


class BarSchema(schemas.GuessSchema):
    """A label, its probability, and whether it is the correct one."""

    correct = fields.Boolean(required=True)


class JudgedSchema(Schema):
    """An image and its five most probable labels."""

    image = fields.Nested(schemas.ImageSchema, required=True)
    bars = fields.List(fields.Nested(BarSchema), required=True)


class RowSchema(Schema):
    """An image and the training images nearest to it."""

    image = fields.Nested(schemas.ImageSchema, required=True)
    neighbours = fields.List(fields.Nested(schemas.NeighbourSchema), required=True)


class FigureSchema(Schema):
    """The figure."""

    draw = fields.Integer(
        required=True, allow_none=True, metadata={"description": "null: picked one by one"}
    )
    left = fields.List(fields.Nested(JudgedSchema), required=True)
    right = fields.List(fields.Nested(RowSchema), required=True)
    caption = fields.String(required=True)
    png = fields.String(required=True, metadata={"format": "uri-reference"})
    svg = fields.String(required=True, metadata={"format": "uri-reference"})
    page = fields.String(required=True, metadata={"format": "uri-reference"})
    weights = fields.String(required=True)
    index = fields.String(required=True)


@subject.get("/figure-4", lasting=True)
@subject.arguments(FigureAskedSchema, location="query")
@subject.doc(operationId="figure4")
@subject.response(200, FigureSchema)
def figure(_: dict[str, Any]) -> dict[str, Any]:
    """Tell what the figure shows"""
    state = context.ready()
    choice = chosen(page.images_known(state))
    etags.etag_by_version(state.version.name, choice.key)
    plate = page.plate(state, choice)
    return {
        "draw": choice.draw,
        "left": [judged(one) for one in plate.left],
        "right": [row(one) for one in plate.right],
        "caption": caption(choice, state.predictor.weights.provenance),
        "png": page.address(choice, "figure.png"),
        "svg": page.address(choice, "figure.svg"),
        "page": page.address(choice, "figure.show"),
        "weights": plate.weights,
        "index": plate.version,
    }


def chosen(known: list[Picture]) -> Choice:
    """Give the images that the address asks for; 422 where they cannot be shown together."""
    try:
        choice = page.choice_asked(known)
    except ChoiceError as error:
        refuse(422, exc=error, messages={"query": {"image, row": [str(error)]}})
    if not choice.left:
        abort(404, f"{page.NOTHING[0]}. {page.NOTHING[1]}")
    return choice


def judged(one: Judged) -> dict[str, Any]:
    """Tell of an image and its labels."""
    return {"image": schemas.image(one.picture), "bars": one.bars}


def row(one: Row) -> dict[str, Any]:
    """Tell of an image and its neighbours."""
    return {
        "image": schemas.image(one.picture),
        "neighbours": schemas.neighbours(list(one.neighbours)),
    }

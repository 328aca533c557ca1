"""Why an image has a label: by tower, by occlusion and by Grad-CAM."""

from typing import Any

from flask import abort
from marshmallow import Schema, fields, validate

from app import context
from app.api import etags
from app.api.openapi import ApiBlueprint
from app.views.current_image import UNKNOWN_IMAGE, CurrentImage, get_current_image
from app.views.why.explanation import (
    get_grad_cam,
    get_occlusion,
    get_probabilities,
    list_tower_answers,
    read_question,
)
from app.views.why.page import make_question_url
from model.attribution.occlusion import FINE_SIDE, PARTS, list_batches

blueprint = ApiBlueprint("why", "What in an image speaks for a label, and which tower.")


class WhyQuerySchema(Schema):
    """Which image, and why what."""

    of = fields.String(
        required=True,
        validate=validate.Length(min=1),
        metadata={"description": "token of a stored result, or an image id as in image-7"},
    )
    label = fields.String(
        metadata={"description": "folder of a class; by default the most probable one"}
    )
    tower = fields.Integer(
        metadata={"description": "the tower that answers alone, the other silenced; 0: both"}
    )


class OcclusionQuerySchema(WhyQuerySchema):
    """The same, and which part of the image is covered."""

    part = fields.Integer(
        load_default=0,
        validate=validate.Range(min=0, max=PARTS - 1),
        metadata={
            "description": "0 for every third cell in both directions, n for rows 3n − 3 to 3n − 1"
        },
    )


class TowerAnswerSchema(Schema):
    """The label's probability by one tower alone, or by all together."""

    tower = fields.Integer(required=True, metadata={"description": "0: all together"})
    probability = fields.Float(required=True, metadata={"minimum": 0, "maximum": 1})


class GradCamSchema(Schema):
    """Grad-CAM on the last layer of maps."""

    layer = fields.String(required=True)
    towers = fields.List(
        fields.List(fields.List(fields.Float())),
        required=True,
        metadata={"description": "each tower's part by row and column, before the ReLU"},
    )
    picture = fields.String(required=True, metadata={"format": "uri-reference"})


class WhySchema(Schema):
    """What speaks for a label, of the centre crop."""

    of = fields.String(required=True)
    folder = fields.String(required=True, metadata={"description": "of the label's class"})
    label = fields.String(required=True)
    tower = fields.Integer(required=True)
    answers = fields.List(fields.Nested(TowerAnswerSchema), required=True)
    grad_cam = fields.Nested(GradCamSchema, required=True)
    occlusion = fields.String(
        required=True,
        metadata={"format": "uri-reference", "description": "the picture of the coarse grid"},
    )
    guided = fields.String(required=True, metadata={"format": "uri-reference"})
    weights = fields.String(required=True)


class CoveredCellSchema(Schema):
    """A cell of the grid, and what is left of the label's probability while it is covered."""

    row = fields.Integer(required=True)
    column = fields.Integer(required=True)
    probability = fields.Float(required=True, metadata={"minimum": 0, "maximum": 1})


class OcclusionSchema(Schema):
    """One part of occlusion."""

    side = fields.Integer(required=True, metadata={"description": "cells along the crop's side"})
    parts = fields.Integer(required=True)
    uncovered = fields.Float(required=True, metadata={"description": "with nothing covered"})
    cells = fields.List(fields.Nested(CoveredCellSchema), required=True)
    weights = fields.String(required=True)


@blueprint.get("/why", immutable=True)
@blueprint.arguments(WhyQuerySchema, location="query")
@blueprint.doc(operationId="why")
@blueprint.response(200, WhySchema)
def explain_label(_: dict[str, Any]) -> dict[str, Any]:
    """Get which tower and which places speak for a label"""
    predictor, image = context.require_predictor(), require_image()
    question = read_question(predictor, image)
    name = predictor.classes[question.label]
    set_etag(image, name.folder, str(question.tower))
    found = get_grad_cam(question)
    return {
        "of": image.of,
        "folder": name.folder,
        "label": name.label,
        "tower": question.tower,
        "answers": [
            {"tower": one.tower, "probability": one.probability}
            for one in list_tower_answers(question)
        ],
        "grad_cam": {
            "layer": found.layer.name,
            "towers": [tower.tolist() for tower in found.towers],
            "picture": make_question_url(question, "why.grad_cam_picture"),
        },
        "occlusion": make_question_url(question, "why.occlusion_picture"),
        "guided": make_question_url(question, "why.guided_picture"),
        "weights": predictor.identity,
    }


@blueprint.get("/why/occlusion", immutable=True)
@blueprint.arguments(OcclusionQuerySchema, location="query")
@blueprint.doc(operationId="occlusion")
@blueprint.response(200, OcclusionSchema)
def measure_occlusion_part(query: dict[str, Any]) -> dict[str, Any]:
    """Get the label's probability while a grey square covers each place of a part"""
    predictor, image = context.require_predictor(), require_image()
    question, part = read_question(predictor, image), query["part"]
    folder = predictor.classes[question.label].folder
    set_etag(image, folder, str(question.tower), str(part))
    covered = get_occlusion(image, question.tower, part)[:, question.label].tolist()
    cells = [cell for batch in list_batches(part) for cell in batch]
    return {
        "side": FINE_SIDE,
        "parts": PARTS,
        "uncovered": float(get_probabilities(image, question.tower)[question.label]),
        "cells": [
            {"row": row, "column": column, "probability": probability}
            for (row, column), probability in zip(cells, covered, strict=True)
        ],
        "weights": predictor.identity,
    }


def require_image() -> CurrentImage:
    """Return the image that the address names; 404 if there is none."""
    return get_current_image(or_last=False) or abort(404, UNKNOWN_IMAGE)


def set_etag(image: CurrentImage, *parts: str) -> None:
    """Let a client that has this answer keep it."""
    identity = context.require_predictor().identity
    etags.set_version_etag(identity, image.key, *parts, immutable=not image.private)

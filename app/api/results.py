"""Stored results of uploads, visible to anyone who has their token."""

from datetime import datetime, timedelta
from typing import Any

from flask import after_this_request, url_for
from marshmallow import Schema, fields

from app import context
from app.api import schemas
from app.api.openapi import ApiBlueprint
from app.inference.classify import Neighbour
from app.uploads.results import find_true_label
from app.views import results as page

blueprint = ApiBlueprint("results", "Stored results of uploads, for anyone who has their token.")


class ResultSchema(Schema):
    """The stored classification of an upload."""

    token = fields.String(required=True)
    created = fields.AwareDateTime(required=True)
    expires = fields.AwareDateTime(
        required=True, allow_none=True, metadata={"description": "null if never"}
    )
    filename = fields.String(required=True)
    width = fields.Integer(required=True)
    height = fields.Integer(required=True)
    correct = fields.String(
        required=True,
        allow_none=True,
        metadata={"description": "the correct label, if the upload was one of the examples"},
    )
    top5 = fields.List(fields.Nested(schemas.LabelProbabilitySchema), required=True)
    crops = fields.List(fields.Nested(schemas.LabelProbabilitySchema), required=True)
    neighbours = fields.List(fields.Nested(schemas.NeighbourSchema), required=True)
    by_pixels = fields.List(fields.Nested(schemas.NeighbourSchema), required=True)
    sampled = fields.Integer(required=True, allow_none=True)
    sureness = fields.Nested(
        schemas.SurenessSchema,
        required=True,
        allow_none=True,
        metadata={"description": "null without an index, or if it was not calibrated"},
    )
    milliseconds = fields.Dict(keys=fields.String(), values=fields.Float(), required=True)
    weights = fields.String(required=True)
    index = fields.String(
        required=True,
        allow_none=True,
        metadata={"description": "version of the index used; null, and no neighbours, without one"},
    )
    picture = fields.String(required=True, metadata={"format": "uri-reference"})
    thumbnail = fields.String(required=True, metadata={"format": "uri-reference"})
    page = fields.String(required=True, metadata={"format": "uri-reference"})


@blueprint.get("/results/<token>")
@blueprint.doc(operationId="result")
@blueprint.response(200, ResultSchema)
def get_result(token: str) -> dict[str, Any]:
    """Get a stored result"""
    result = page.find_result_or_404(token)
    after_this_request(page.keep_private)
    return {
        "token": result.token,
        "created": result.created_at,
        "expires": compute_expiry_time(result.created_at),
        "filename": result.filename,
        "width": result.width,
        "height": result.height,
        "correct": find_true_label(result, context.sessions()),
        "top5": result.top5,
        "crops": result.crops,
        "neighbours": dump_stored_neighbours(result.neighbours),
        "by_pixels": dump_stored_neighbours(result.by_pixels),
        "sampled": result.sampled,
        "sureness": result.sureness,
        "milliseconds": result.milliseconds,
        "weights": result.weights,
        "index": result.index_version.name if result.index_version else None,
        "picture": url_for("results.serve_picture", token=result.token),
        "thumbnail": url_for("results.serve_thumbnail", token=result.token),
        "page": url_for("results.show_result", token=result.token),
    }


def dump_stored_neighbours(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return stored neighbours as JSON."""
    return schemas.dump_neighbours([Neighbour(**row) for row in rows])


def compute_expiry_time(created: datetime) -> datetime | None:
    """Return when a result will be deleted, or None for never."""
    days = context.settings().upload_days
    return created + timedelta(days=days) if days else None

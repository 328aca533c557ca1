"""Results of uploads that are kept: to be seen by whoever has their token."""

from datetime import datetime, timedelta
from typing import Any

from flask import after_this_request, url_for
from marshmallow import Schema, fields

from app import context
from app.api import etags, schemas
from app.api.openapi import ApiBlueprint
from app.inference.classify import Neighbour
from app.uploads.results import find_true_label
from app.views import results as page

blueprint = ApiBlueprint("results", "Results of uploads on the pages, for whoever has their token.")


class ResultSchema(Schema):
    """What was answered for an upload."""

    token = fields.String(required=True)
    created = fields.AwareDateTime(required=True)
    expires = fields.AwareDateTime(
        required=True, allow_none=True, metadata={"description": "null: never"}
    )
    filename = fields.String(required=True)
    width = fields.Integer(required=True)
    height = fields.Integer(required=True)
    correct = fields.String(
        required=True,
        allow_none=True,
        metadata={"description": "the correct label, where one of the examples was sent"},
    )
    top5 = fields.List(fields.Nested(schemas.LabelProbabilitySchema), required=True)
    crops = fields.List(fields.Nested(schemas.LabelProbabilitySchema), required=True)
    neighbours = fields.List(fields.Nested(schemas.NeighbourSchema), required=True)
    by_pixels = fields.List(fields.Nested(schemas.NeighbourSchema), required=True)
    sampled = fields.Integer(required=True, allow_none=True)
    milliseconds = fields.Dict(keys=fields.String(), values=fields.Float(), required=True)
    weights = fields.String(required=True)
    picture = fields.String(required=True, metadata={"format": "uri-reference"})
    thumbnail = fields.String(required=True, metadata={"format": "uri-reference"})
    page = fields.String(required=True, metadata={"format": "uri-reference"})


@blueprint.get("/results/<token>")
@blueprint.doc(operationId="result")
@blueprint.response(200, ResultSchema)
def get_result(token: str) -> dict[str, Any]:
    """Tell a kept result"""
    found = page.find_result_or_404(token)
    after_this_request(page.forbid_indexing)
    etags.etag_by_content()
    return {
        "token": found.token,
        "created": found.created_at,
        "expires": expiry_time(found.created_at),
        "filename": found.filename,
        "width": found.width,
        "height": found.height,
        "correct": find_true_label(found, context.sessions()),
        "top5": found.top5,
        "crops": found.crops,
        "neighbours": dump_stored_neighbours(found.neighbours),
        "by_pixels": dump_stored_neighbours(found.by_pixels),
        "sampled": found.sampled,
        "milliseconds": found.milliseconds,
        "weights": found.weights,
        "picture": url_for("results.serve_picture", token=found.token),
        "thumbnail": url_for("results.serve_thumbnail", token=found.token),
        "page": url_for("results.show_result", token=found.token),
    }


def dump_stored_neighbours(kept: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Tell neighbours as they were kept."""
    return schemas.dump_neighbours([Neighbour(**row) for row in kept])


def expiry_time(created: datetime) -> datetime | None:
    """Say when a result is deleted, if ever."""
    days = context.settings().upload_days
    return created + timedelta(days=days) if days else None

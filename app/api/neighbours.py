"""The training images nearest to an image, to features, or to the mean of several images."""

from typing import Any

import numpy as np
from flask import request
from marshmallow import Schema, ValidationError, fields, validate, validates_schema
from webargs.flaskparser import FlaskParser, abort

from app import context
from app.api import etags, features, schemas, uploads
from app.api.openapi import ID_RULE, ApiBlueprint
from app.inference.classify import DEFAULT_NEIGHBOURS, find_nearest_neighbours
from app.inference.mean_query import MAX_PICKED, MIN_PICKED, PickError, find_nearest_to_mean
from app.inference.state import Ready
from app.uploads.receive import Upload, UploadError
from app.views.images import find_image_or_404
from index.search import MAX_NEIGHBOURS, QueryError
from index.vectors import Floats
from model.network.config import FEATURES

blueprint = ApiBlueprint("neighbours", "The nearest training images by 4096-d fc7 features.")
MAX_JSON_BYTES = 512 * 1024
"""Limit of a JSON body: 4096 numbers of some twenty characters take 90 kB."""
PARSER = FlaskParser()


class SearchOptionsSchema(Schema):
    """How many neighbours to return, and of which classes."""

    k = fields.Integer(
        load_default=DEFAULT_NEIGHBOURS, validate=validate.Range(min=1, max=MAX_NEIGHBOURS)
    )
    classes = fields.List(
        fields.Integer(validate=validate.Range(min=0, max=context.MAX_ID)),
        data_key="class",
        validate=validate.Length(min=1, max=1000),
        metadata={"description": "restrict to these class ids; repeat the parameter for several"},
    )


class NeighbourQuerySchema(Schema):
    """The query: features, or images whose mean features to use."""

    feature = fields.List(
        fields.Float(), validate=validate.Length(equal=FEATURES), metadata={"description": "of fc7"}
    )
    images = fields.List(
        fields.Integer(validate=validate.Range(min=0, max=context.MAX_ID)),
        validate=validate.Length(min=MIN_PICKED, max=MAX_PICKED),
        metadata={"description": "ids of indexed images"},
    )

    @validates_schema
    def check_one_given(self, data: dict[str, Any], **_: Any) -> None:
        """Check that exactly one of the two is given."""
        if len(data) != 1:
            raise ValidationError("Give either feature or images.")


class PickedSchema(Schema):
    """One of the images that the mean was computed from, and its distance to the mean."""

    id = fields.Integer(required=True)
    label = fields.String(required=True)
    distance = fields.Float(required=True)


class NeighboursSchema(Schema):
    """The nearest training images, nearest first."""

    neighbours = fields.List(fields.Nested(schemas.NeighbourSchema), required=True)
    picked = fields.List(
        fields.Nested(PickedSchema),
        metadata={"description": "present when searching by the mean of images"},
    )
    weights = fields.String(required=True)
    index = fields.String(required=True)


@blueprint.post("/neighbours")
@blueprint.arguments(SearchOptionsSchema, location="query")
@blueprint.doc(
    requestBody=uploads.describe_image_body(
        uploads.ONE_IMAGE,
        **{"application/json": {"schema": NeighbourQuerySchema}},
    ),
    operationId="neighbours",
)
@blueprint.response(200, NeighboursSchema)
def search_neighbours(options: dict[str, Any]) -> dict[str, Any]:
    """Find the neighbours of an image, of features, or of the mean of several images

    When searching by a mean, its images and exact copies of them are left out.
    """
    state = context.require_ready()
    if not request.is_json:
        return search_by_feature(
            state, features.extract_upload_features(read_single_upload()), options
        )
    query = parse_json_query()
    if "images" in query:
        return search_by_mean(state, query["images"], options)
    # Numbers beyond float32 become infinite, which the search rejects.
    with np.errstate(over="ignore"):
        return search_by_feature(state, np.array(query["feature"], np.float32), options)


@blueprint.get(f"/images/{ID_RULE}:image_id>/neighbours", immutable=True)
@blueprint.arguments(SearchOptionsSchema, location="query")
@blueprint.doc(operationId="neighboursOfImage")
@blueprint.response(200, NeighboursSchema)
def search_image_neighbours(options: dict[str, Any], image_id: int) -> dict[str, Any]:
    """Find the neighbours of an image in the database, without the image itself"""
    state, picture = context.require_ready(), find_image_or_404(image_id)
    etags.set_version_etag(state.version.name, picture.sha256)
    return search_by_feature(
        state, features.load_or_extract_features(picture), options, without=image_id
    )


def parse_json_query() -> dict[str, Any]:
    """Parse the JSON body."""
    request.max_content_length = MAX_JSON_BYTES
    try:
        query: dict[str, Any] = PARSER.parse(NeighbourQuerySchema, request, location="json")
    except RecursionError as error:
        abort(400, exc=error, messages={"json": ["Nested too deeply."]})
    return query


def read_single_upload() -> Upload:
    """Read the single image of the request. Raises UploadError."""
    sent = uploads.read_uploaded_files()
    if len(sent) > 1:
        raise UploadError("Send one image at a time.")
    return context.accept_upload(sent[0])


def search_by_feature(
    state: Ready, feature: Floats, options: dict[str, Any], without: int | None = None
) -> dict[str, Any]:
    """Search by features, float32 [4096]; return the neighbours as JSON."""
    classes = options.get("classes")
    try:
        with context.metrics().stage_seconds.labels("search").time():
            (near,) = find_nearest_neighbours(
                state,
                context.sessions(),
                feature[None],
                options["k"],
                without=without,
                classes=classes,
            )
    except QueryError as error:
        where, field = ("query", "class") if classes else ("json", "feature")
        abort(422, exc=error, messages={where: {field: [str(error)]}})
    return {"neighbours": schemas.dump_neighbours(near), **dump_versions(state)}


def search_by_mean(state: Ready, images: list[int], options: dict[str, Any]) -> dict[str, Any]:
    """Search by the mean of images' features; return the neighbours as JSON."""
    try:
        near = find_nearest_to_mean(
            state, context.sessions(), images, options["k"], options.get("classes")
        )
    except PickError as error:
        abort(422, exc=error, messages={"json": {"images": [str(error)]}})
    except QueryError as error:
        abort(422, exc=error, messages={"query": {"class": [str(error)]}})
    picked = [
        {"id": one.picture.id, "label": one.picture.label, "distance": one.distance}
        for one in near.picked
    ]
    return {
        "neighbours": schemas.dump_neighbours(near.neighbours),
        "picked": picked,
        **dump_versions(state),
    }


def dump_versions(state: Ready) -> dict[str, str]:
    """Return the identities of the weights and the index in service."""
    return {"weights": state.predictor.identity, "index": state.version.name}

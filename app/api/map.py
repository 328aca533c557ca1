"""The map of the training images, a list a column."""

from typing import Any

from marshmallow import Schema, fields

from app import context
from app.api import etags
from app.api.openapi import ApiBlueprint
from app.views.map.layout import MAX_COORDINATE, map_columns
from app.views.map.page import require_map

blueprint = ApiBlueprint(
    "map", "The training images in two dimensions, by t-SNE of their features."
)
COORDINATE = {"minimum": 0, "maximum": MAX_COORDINATE}


class MapClassSchema(Schema):
    """A class on the map, and where it lies densest."""

    id = fields.Integer(required=True)
    label = fields.String(required=True)
    images = fields.Integer(required=True, metadata={"description": "how many are on the map"})
    x = fields.Integer(required=True, metadata=COORDINATE)
    y = fields.Integer(required=True, metadata=COORDINATE)


class MapSchema(Schema):
    """The map. The lists hold one value for each image on it, in the same order."""

    scale = fields.Integer(required=True, metadata={"description": "the largest coordinate"})
    images = fields.Integer(required=True, metadata={"description": "how many are indexed"})
    whole = fields.Boolean(required=True, metadata={"description": "whether all are on the map"})
    classes = fields.List(fields.Nested(MapClassSchema), required=True)
    ids = fields.List(fields.Integer(), required=True)
    numbers = fields.List(
        fields.Integer(), required=True, metadata={"description": "places in classes, from 0"}
    )
    x = fields.List(fields.Integer(metadata=COORDINATE), required=True)
    y = fields.List(fields.Integer(metadata=COORDINATE), required=True)
    index = fields.String(required=True)


@blueprint.get("/map", lasting=True)
@blueprint.doc(operationId="map")
@blueprint.response(200, MapSchema)
def get_map() -> dict[str, Any]:
    """Tell where each image lies"""
    state, classes = context.require_classes()
    etags.etag_by_version(state.version.name)
    return {**map_columns(require_map(state, classes)), "index": state.version.name}

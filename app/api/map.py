"""The map of the training images, one list per column."""

from typing import Any

from marshmallow import Schema, fields

from app import context
from app.api import etags
from app.api.openapi import ApiBlueprint
from app.views.map.layout import MAX_COORDINATE, list_map_columns
from app.views.map.page import require_map

blueprint = ApiBlueprint(
    "map", "The training images in two dimensions, by t-SNE of their features."
)
COORDINATE = {"minimum": 0, "maximum": MAX_COORDINATE}


class MapClassSchema(Schema):
    """A class on the map, and its densest part."""

    id = fields.Integer(required=True)
    label = fields.String(required=True)
    images = fields.Integer(required=True, metadata={"description": "number of images on the map"})
    x = fields.Integer(required=True, metadata=COORDINATE)
    y = fields.Integer(required=True, metadata=COORDINATE)


class MapSchema(Schema):
    """The map. The lists have one value per image, in the same order."""

    scale = fields.Integer(
        required=True, metadata={"description": "the largest possible coordinate"}
    )
    images = fields.Integer(required=True, metadata={"description": "number of indexed images"})
    whole = fields.Boolean(required=True, metadata={"description": "whether all are on the map"})
    classes = fields.List(fields.Nested(MapClassSchema), required=True)
    ids = fields.List(fields.Integer(), required=True)
    numbers = fields.List(
        fields.Integer(), required=True, metadata={"description": "index into classes, from 0"}
    )
    x = fields.List(fields.Integer(metadata=COORDINATE), required=True)
    y = fields.List(fields.Integer(metadata=COORDINATE), required=True)
    guesses = fields.List(
        fields.Integer(allow_none=True),
        required=True,
        allow_none=True,
        metadata={
            "description": "index into classes of the network's guess, null for another class; "
            "null as a whole for an index that was not reviewed"
        },
    )
    index = fields.String(required=True)


@blueprint.get("/map", immutable=True)
@blueprint.doc(operationId="map")
@blueprint.response(200, MapSchema)
def get_map() -> dict[str, Any]:
    """Get the position of each image"""
    state, classes = context.require_classes()
    etags.set_version_etag(state.version.name)
    return {**list_map_columns(require_map(state, classes)), "index": state.version.name}

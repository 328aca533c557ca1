"""Every layer's activations for an image: shapes, connections and maxima."""

from typing import Any

from flask import abort
from marshmallow import Schema, fields, validate

from app import context
from app.api import etags, schemas
from app.api.openapi import ApiBlueprint
from app.views.current_image import UNKNOWN_IMAGE, CurrentImage, get_current_image
from app.views.layers import activations, sheets
from model.network.layers import Shape
from model.visualization.activations import LayerActivations

blueprint = ApiBlueprint("layers", "Activations of every layer for an image, by tower (Figure 2).")


class LayersQuerySchema(Schema):
    """Which image."""

    of = fields.String(
        required=True,
        validate=validate.Length(min=1),
        metadata={"description": "token of a stored result, or an image id as in image-7"},
    )


class TowerSchema(Schema):
    """One tower's part of a layer."""

    tower = fields.Integer(required=True)
    shape = fields.List(
        fields.Integer(), required=True, metadata={"description": "maps, rows, columns"}
    )
    first = fields.Integer(
        required=True,
        metadata={"description": "number of its first map, counted through all towers"},
    )
    largest = fields.Float(
        required=True, allow_none=True, metadata={"description": "largest activation"}
    )
    picture = fields.String(required=True, metadata={"format": "uri-reference"})
    width = fields.Integer(required=True)
    height = fields.Integer(required=True)


class LayerSchema(Schema):
    """A layer with weights, and the operations after it."""

    name = fields.String(required=True)
    kind = fields.String(required=True, metadata={"enum": ["maps", "neurons"]})
    kernel = fields.Integer(required=True, metadata={"description": "kernel size"})
    stride = fields.Integer(required=True)
    depth = fields.Integer(
        required=True, metadata={"description": "number of input maps of a kernel"}
    )
    sees = fields.String(required=True, metadata={"enum": ["image", "own", "both"]})
    meets = fields.Boolean(
        required=True, metadata={"description": "whether it takes input from both towers"}
    )
    after = fields.List(
        fields.String(), required=True, metadata={"description": "operations after it"}
    )
    leaves = fields.List(
        fields.Integer(),
        required=True,
        metadata={
            "description": "output shape per tower after these operations: maps, rows, columns"
        },
    )
    towers = fields.List(fields.Nested(TowerSchema), required=True)


class LayersSchema(Schema):
    """The activations for the centre crop of an image."""

    of = fields.String(required=True)
    name = fields.String(required=True)
    layers = fields.List(fields.Nested(LayerSchema), required=True)
    top5 = fields.List(
        fields.Nested(schemas.LabelProbabilitySchema),
        required=True,
        metadata={"description": "of the centre crop alone"},
    )
    weights = fields.String(required=True)


@blueprint.get("/layers", immutable=True)
@blueprint.arguments(LayersQuerySchema, location="query")
@blueprint.doc(operationId="layers")
@blueprint.response(200, LayersSchema)
def get_layers(_: dict[str, Any]) -> dict[str, Any]:
    """Get every layer's activations for an image"""
    predictor = context.require_predictor()
    image = get_current_image(or_last=False) or abort(404, UNKNOWN_IMAGE)
    etags.set_version_etag(predictor.identity, image.key, image.name, immutable=not image.private)
    computed = activations.compute_activations(image)
    return {
        "of": image.of,
        "name": image.name,
        "layers": [dump_layer_maps(image, maps) for maps in computed.layers[:-1]],
        "top5": schemas.dump_labels(predictor.top5(computed.probabilities)),
        "weights": predictor.identity,
    }


def dump_layer_maps(image: CurrentImage, maps: LayerActivations) -> dict[str, Any]:
    """Return a layer as JSON."""
    layer = maps.layer
    return {
        "name": layer.name,
        "kind": layer.kind,
        "kernel": layer.kernel,
        "stride": layer.stride,
        "depth": layer.input_depth,
        "sees": layer.input_from,
        "meets": layer.joins_towers,
        "after": layer.followed_by,
        "leaves": dump_shape(layer.output),
        "towers": [
            {
                "tower": sheet.tower,
                "shape": dump_shape(Shape(layer.maps, layer.side)),
                "first": sheet.first,
                "largest": sheet.largest,
                "picture": sheet.url,
                "width": sheet.width,
                "height": sheet.height,
            }
            for sheet in sheets.list_sheets(image, maps)
        ],
    }


def dump_shape(shape: Shape) -> list[int]:
    """Return a shape as JSON: maps, rows, columns."""
    return [shape.maps, shape.side, shape.side]

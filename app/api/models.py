"""The weights files on disk."""

from typing import Any

from flask import url_for
from marshmallow import Schema, fields

from app import context
from app.api import etags
from app.api.openapi import ApiBlueprint
from app.inference.weights_files import WeightsFile, list_weights_files
from app.views.models import find_fitting_indexes, find_served_key_now

blueprint = ApiBlueprint(
    "models", "The weights files on disk; switch between them on the Models page."
)


class WeightsFactsSchema(Schema):
    """Metadata of a weights file; null if unknown. Error rates are from 0 to 1."""

    identity = fields.String(required=True)
    preset = fields.String(required=True)
    data = fields.String(required=True)
    images = fields.Integer(required=True, allow_none=True)
    epochs = fields.Integer(required=True, allow_none=True)
    classes = fields.Integer(required=True)
    top1 = fields.Float(
        required=True, allow_none=True, metadata={"description": "from the centre crop"}
    )
    top5 = fields.Float(required=True, allow_none=True)
    ten1 = fields.Float(required=True, allow_none=True, metadata={"description": "from ten crops"})
    ten5 = fields.Float(required=True, allow_none=True)


class ModelSchema(Schema):
    """A weights file."""

    key = fields.String(required=True, metadata={"description": "path relative to ALEXNET_HOME"})
    run = fields.String(required=True)
    kind = fields.String(
        required=True, metadata={"enum": ["result", "best epoch", "imported", "elsewhere"]}
    )
    active = fields.Boolean(required=True, metadata={"description": "whether it is in service"})
    selected = fields.Boolean(
        required=True,
        metadata={"description": "whether the next `flask index build` indexes with it"},
    )
    bytes = fields.Integer(required=True)
    written = fields.AwareDateTime(required=True, allow_none=True)
    unfinished = fields.Boolean(
        required=True, metadata={"description": "whether its run may still replace it"}
    )
    pretrained = fields.Boolean(
        required=True, metadata={"description": "whether it ships with the project"}
    )
    facts = fields.Nested(
        WeightsFactsSchema,
        required=True,
        allow_none=True,
        metadata={"description": "null if the file is damaged"},
    )
    wrong = fields.String(required=True, metadata={"description": "why it cannot be used"})
    index = fields.String(
        required=True,
        allow_none=True,
        metadata={"description": "newest index version built with it"},
    )


class ModelsSchema(Schema):
    """All weights files, those of the newest runs first."""

    models = fields.List(fields.Nested(ModelSchema), required=True)
    page = fields.String(required=True, metadata={"format": "uri-reference"})


@blueprint.get("/models")
@blueprint.doc(operationId="models")
@blueprint.response(200, ModelsSchema)
def list_models() -> dict[str, Any]:
    """List the weights files"""
    etags.set_content_etag()
    index_names = find_fitting_indexes() or {}
    found = list_weights_files(context.settings().home)
    served = find_served_key_now(found)
    models = [dump_model(model, index_names, active=model.key == served) for model in found]
    return {"models": models, "page": url_for("models.show_models")}


def dump_model(model: WeightsFile, index_names: dict[str, str], *, active: bool) -> dict[str, Any]:
    """Return a weights file as JSON."""
    return {
        "key": model.key,
        "run": model.run,
        "kind": model.kind,
        "active": active,
        "selected": model.selected,
        "bytes": model.bytes,
        "written": model.written,
        "unfinished": model.unfinished,
        "pretrained": model.pretrained,
        "facts": model.info,
        "wrong": model.problem,
        "index": index_names.get(model.info.identity) if model.info else None,
    }

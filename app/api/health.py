"""Health: whether weights and an index are loaded."""

from typing import Any

from marshmallow import Schema, fields

from app import context
from app.api import etags
from app.api.openapi import ApiBlueprint
from app.inference.state import NotReady, NotReadyError
from app.views.health import describe_health

blueprint = ApiBlueprint("health", "Whether weights and an index are loaded.")


class HealthSchema(Schema):
    """The weights and the index in service."""

    status = fields.String(required=True, metadata={"enum": ["ready"]})
    weights = fields.String(required=True)
    index = fields.String(
        required=True,
        allow_none=True,
        metadata={"description": "null while there is no index: labels without neighbours"},
    )
    images = fields.Integer(required=True, metadata={"description": "number of indexed images"})
    reason = fields.String(
        metadata={"enum": ["no-index"], "description": "present if there is no index"}
    )
    message = fields.String(metadata={"description": "the reason in words"})
    command = fields.String(metadata={"description": "the command that builds an index"})


@blueprint.get("/health")
@blueprint.doc(operationId="health")
@blueprint.response(200, HealthSchema)
def get_health() -> dict[str, Any]:
    """Get the weights and the index in service

    If nothing can be classified, the 503 problem says what is missing, and which command creates
    it.
    """
    state = context.loader().probe_state()
    if isinstance(state, NotReady):
        raise NotReadyError(state)
    etags.set_content_etag()
    return describe_health(state)

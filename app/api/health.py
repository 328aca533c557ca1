"""Health: whether weights and an index are loaded."""

from typing import Any

from marshmallow import Schema, fields

from app import context
from app.api import etags
from app.api.openapi import ApiBlueprint
from app.inference.loader import NotReady, NotReadyError

blueprint = ApiBlueprint("health", "Whether weights and an index are loaded.")


class HealthSchema(Schema):
    """The weights and the index in use."""

    status = fields.String(required=True, metadata={"enum": ["ready"]})
    weights = fields.String(required=True)
    index = fields.String(required=True)
    images = fields.Integer(required=True, metadata={"description": "number of indexed images"})


@blueprint.get("/health")
@blueprint.doc(operationId="health")
@blueprint.response(200, HealthSchema)
def get_health() -> dict[str, Any]:
    """Get the weights and the index in use

    If something is missing, the 503 problem says what, and which command creates it.
    """
    state = context.loader().probe_state()
    if isinstance(state, NotReady):
        raise NotReadyError(state)
    etags.set_content_etag()
    return {
        "status": "ready",
        "weights": state.predictor.identity,
        "index": state.version.name,
        "images": state.version.count,
    }

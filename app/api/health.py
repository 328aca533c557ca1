"""Whether there is something to answer with."""

from typing import Any

from marshmallow import Schema, fields

from app import context
from app.api import etags
from app.api.openapi import ApiBlueprint
from app.inference.loader import NotReady, NotReadyError

blueprint = ApiBlueprint("health", "Whether there is something to answer with.")


class HealthSchema(Schema):
    """What answers."""

    status = fields.String(required=True, metadata={"enum": ["ready"]})
    weights = fields.String(required=True)
    index = fields.String(required=True)
    images = fields.Integer(required=True, metadata={"description": "in the index"})


@blueprint.get("/health")
@blueprint.doc(operationId="health")
@blueprint.response(200, HealthSchema)
def get_health() -> dict[str, Any]:
    """Tell which weights and index answer

    The problem, with status 503, says what is missing and the command that mends it.
    """
    state = context.loader().probe_state()
    if isinstance(state, NotReady):
        raise NotReadyError(state)
    etags.etag_by_content()
    return {
        "status": "ready",
        "weights": state.predictor.identity,
        "index": state.version.name,
        "images": state.version.count,
    }

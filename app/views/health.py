"""/healthz for monitoring: whether weights and an index that fit each other are loaded."""

from flask import Blueprint, Response, jsonify

from app import context
from app.inference.loader import NotReady
from app.problems import PROBLEM_KINDS, add_retry_after

blueprint = Blueprint("health", __name__)


@blueprint.get("/healthz")
def healthz() -> Response:
    """Return the weights and index in use; 503 with the reason and the command if not ready."""
    state = context.loader().probe_state()
    if not isinstance(state, NotReady):
        return jsonify(
            status="ready",
            weights=state.predictor.identity,
            index=state.version.name,
            images=state.version.count,
        )
    response = jsonify(
        status="unavailable",
        weights=None,
        index=None,
        images=0,
        reason=state.reason,
        message=PROBLEM_KINDS[state.reason].meaning,
        command=state.command,
    )
    response.status_code = 503
    return add_retry_after(response)

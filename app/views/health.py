"""For monitoring: whether this process lives, and whether it can answer."""

from flask import Blueprint, Response, jsonify

from app import context
from app.inference.loader import NotReady
from app.problems import PROBLEM_KINDS, add_retry_after

blueprint = Blueprint("health", __name__)


@blueprint.get("/livez")
def livez() -> Response:
    """Say that this process answers; asks nothing else."""
    return jsonify(status="alive")


@blueprint.get("/readyz")
@blueprint.get("/healthz")
def readyz() -> Response:
    """Return the weights and index in use; 503 with the reason and the command if not ready.

    Asks the database, and the server that holds the index if one does.
    """
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

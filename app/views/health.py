"""Whether there is something to answer with, for whoever watches the server."""

from flask import Blueprint, Response, jsonify

from app import context
from app.inference.loader import NotReady
from app.problems import PROBLEM_KINDS, add_retry_after

blueprint = Blueprint("health", __name__)


@blueprint.get("/healthz")
def healthz() -> Response:
    """Say which weights and index are loaded; 503 with the reason when they are not."""
    state = context.loader().probe_state()
    if isinstance(state, NotReady):
        return unavailable(state)
    return jsonify(
        status="ready",
        weights=state.predictor.identity,
        index=state.version.name,
        images=state.version.count,
    )


def unavailable(state: NotReady) -> Response:
    """Say what is missing and the command that mends it."""
    answer = jsonify(
        status="unavailable",
        weights=None,
        index=None,
        images=0,
        reason=state.reason,
        message=PROBLEM_KINDS[state.reason].meaning,
        command=state.command,
    )
    answer.status_code = 503
    return add_retry_after(answer)

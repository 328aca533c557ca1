"""For monitoring: whether this process lives, and whether it can answer."""

from typing import Any

from flask import Blueprint, Response, jsonify

from app import context
from app.inference.state import LabelsOnly, NotReady, Ready
from app.problems import PROBLEM_KINDS, add_retry_after

blueprint = Blueprint("health", __name__)


@blueprint.get("/livez")
def livez() -> Response:
    """Say that this process answers; asks nothing else."""
    return jsonify(status="alive")


@blueprint.get("/readyz")
@blueprint.get("/healthz")
def readyz() -> Response:
    """Return the weights and index in service; 503 with the reason and the command if not ready.

    Weights without an index give labels, so that is ready too, with the reason. Asks the database,
    and the server that holds the index if one does.
    """
    state = context.loader().probe_state()
    if not isinstance(state, NotReady):
        return jsonify(describe_health(state))
    response = jsonify(
        status="unavailable", weights=None, index=None, images=0, **describe_missing_part(state)
    )
    response.status_code = 503
    return add_retry_after(response)


def describe_health(state: Ready | LabelsOnly) -> dict[str, Any]:
    """Describe what is in service, as JSON."""
    found = {"status": "ready", "weights": state.predictor.identity}
    if isinstance(state, LabelsOnly):
        return {**found, "index": None, "images": 0, **describe_missing_part(state.missing)}
    return {**found, "index": state.version.name, "images": state.version.count}


def describe_missing_part(missing: NotReady) -> dict[str, str]:
    """Describe what is missing, and the command that creates it."""
    return {
        "reason": missing.reason,
        "message": PROBLEM_KINDS[missing.reason].meaning,
        "command": missing.command,
    }

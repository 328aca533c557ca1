"""Metrics for Prometheus, for those whom the settings name."""

import hmac
from ipaddress import ip_network

from flask import Blueprint, Response, abort, request
from werkzeug.datastructures import WWWAuthenticate

from app import context
from app.inference.state import LabelsOnly, Ready
from app.serving.limits import report_wrong_token
from app.serving.proxies import is_within

blueprint = Blueprint("metrics", __name__)


@blueprint.get("/metrics")
def show_metrics() -> Response:
    """Return all metrics in Prometheus's text format.

    404 while nobody may read them, 401 for a missing or wrong token, 403 for another address.
    """
    check_reader()
    accept = request.headers.get("Accept", "")
    text, media_type = context.metrics().render(accept, describe_served())
    return Response(text, content_type=media_type)


def check_reader() -> None:
    """Abort unless the client's address or its token may read the metrics."""
    settings = context.settings()
    if not settings.metrics and not settings.metrics_token:
        abort(404)
    if is_within(request.remote_addr or "", map(ip_network, settings.metrics)):
        return
    if not settings.metrics_token:
        abort(403)
    # An address that has sent too many wrong ones does not get here (app/serving/limits.py).
    sent = request.headers.get("Authorization", "")
    if not hmac.compare_digest(sent.encode(), f"Bearer {settings.metrics_token}".encode()):
        if sent:
            report_wrong_token("metrics")
        abort(401, www_authenticate=WWWAuthenticate("bearer"))


def describe_served() -> dict[str, str]:
    """Name what this process has in service, without reading anything new."""
    state = context.loader().current
    if not isinstance(state, Ready | LabelsOnly):
        return {"runtime": "", "device": "", "weights": "", "index": ""}
    return {
        "runtime": state.predictor.runtime.name,
        "device": state.predictor.device,
        "weights": state.predictor.identity,
        "index": state.version.name if isinstance(state, Ready) else "",
    }

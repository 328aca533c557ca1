"""How often an address may ask: uploads, the API, and wrong tokens."""

import logging
import time
from collections.abc import Callable
from typing import Any

from flask import Flask, Response, current_app, request
from flask_limiter import Limiter
from flask_limiter.util import get_remote_address

from app.config import Settings

UPLOADS = (
    "classify.submit_classify_form",
    "classify.classify_example",
    "results.classify_again",
    "api-classify.classify_images",
    "api-neighbours.search_neighbours",
    "api-features.extract_features",
)
"""Endpoints that classify images sent by strangers."""
TOKENS = (
    "models.switch_model",
    "review.add_corrections",
    "review.remove_correction",
    "new.enter_token",
)
"""The endpoints that take the administrator's token."""
METRICS = "metrics.show_metrics"
"""The endpoint that takes the token for metrics."""
WRONG_TOKENS = "5 per minute"
security_log = logging.getLogger("alexnet.security")


def limit_rates(app: Flask, settings: Settings) -> None:
    """Limit the requests of each address; what is over a limit is answered with 429.

    Requests are counted in this process, or in the storage that ALEXNET_RATE_STORAGE names.
    """
    limiter = Limiter(
        get_remote_address,
        app=app,
        storage_uri=settings.rate_storage,
        strategy="moving-window",
        # A storage that is away must not stop the application.
        in_memory_fallback_enabled=settings.rate_storage != "memory://",
    )
    for endpoint in app.view_functions:
        if settings.api_rate and endpoint.startswith("api-"):
            wrap(app, endpoint, limiter.shared_limit(settings.api_rate, scope="api"))
    for endpoint in UPLOADS:
        if settings.upload_rate:
            wrap(app, endpoint, limiter.shared_limit(settings.upload_rate, scope="uploads"))
    for endpoint in (*TOKENS, METRICS):
        wrap(app, endpoint, limiter.limit(WRONG_TOKENS, deduct_when=is_wrong_token))
    app.extensions["limiter"] = limiter


def wrap(app: Flask, endpoint: str, limit: Callable[[Any], Any]) -> None:
    """Limit an endpoint."""
    app.view_functions[endpoint] = limit(app.view_functions[endpoint])


def is_wrong_token(response: Response) -> bool:
    """Whether a token was missing or wrong."""
    return response.status_code in (401, 403)


def find_seconds_to_wait() -> int:
    """Return after how many seconds this address may ask again; call it when a limit is reached."""
    limiter: Limiter = current_app.extensions["limiter"]
    reached = limiter.current_limit
    return max(1, int(reached.reset_at - time.time())) if reached else 1


def report_wrong_token(kind: str) -> None:
    """Write a line to the security log, the only one that names an address."""
    security_log.warning("wrong %s token from %s", kind, request.remote_addr)

"""CORS: which other sites' pages may read the API; by default none."""

import re

from flask import Flask, Response, request
from flask_cors import CORS

from app.config import Settings
from app.problems import DOCS_PATH

EXPOSED_HEADERS = ("ETag", "Link", "Retry-After")
"""Response headers that those pages may read, besides the safelisted ones."""


def allow_origins(app: Flask, settings: Settings) -> None:
    """Let pages of the configured origins read /api, without cookies."""
    if not settings.cors_origins:
        return
    CORS(
        app,
        resources=re.compile(rf"{DOCS_PATH}/.*"),
        origins=[compile_origin(origin) for origin in settings.cors_origins],
        methods=["GET", "HEAD", "POST"],
        allow_headers=["Content-Type", "If-None-Match"],
        expose_headers=EXPOSED_HEADERS,
        send_wildcard=True,
        max_age=600,
    )
    app.after_request(add_vary_origin)


def add_vary_origin(response: Response) -> Response:
    """Tell caches that the response headers depend on the requesting origin."""
    if request.path.startswith(f"{DOCS_PATH}/"):
        response.vary.add("Origin")
    return response


def compile_origin(origin: str) -> str | re.Pattern[str]:
    """Match exactly this origin: flask-cors would take an IPv6 address for a regular expression."""
    return origin if origin == "*" else re.compile(re.escape(origin) + r"\Z")

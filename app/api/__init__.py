"""The JSON API: everything the pages show, one module per resource with schemas and views."""

import hashlib
import json

from flask import Flask, Response, request
from flask_wtf import CSRFProtect

from app.api import (
    classify,
    docs,
    features,
    figure4,
    filters,
    health,
    images,
    layers,
    map,
    models,
    neighbours,
    results,
    runs,
    uploads,
    why,
)
from app.api.cors import allow_origins
from app.api.openapi import ApiBlueprint, register_blueprints
from app.problems import DOCS_PATH

BLUEPRINTS: tuple[ApiBlueprint, ...] = (
    classify.blueprint,
    neighbours.blueprint,
    features.blueprint,
    images.blueprint,
    map.blueprint,
    filters.blueprint,
    layers.blueprint,
    why.blueprint,
    figure4.blueprint,
    runs.blueprint,
    models.blueprint,
    results.blueprint,
    health.blueprint,
)
SCHEMAS = (classify.ClassificationSchema, features.FeatureSchema, uploads.RejectedUploadSchema)
__all__ = ["allow_origins", "register_api"]


def register_api(app: Flask, csrf: CSRFProtect) -> None:
    """Register the API, its OpenAPI document and its documentation page.

    The API is exempt from CSRF protection: it reads no cookie and changes nothing, so another
    site cannot make a browser do anything there in a user's name.
    """
    document = register_blueprints(app, BLUEPRINTS, SCHEMAS)
    app.extensions["api"] = document
    app.extensions["api-digest"] = hashlib.sha256(json.dumps(document).encode()).hexdigest()
    app.register_blueprint(docs.blueprint)
    for blueprint in BLUEPRINTS:
        csrf.exempt(blueprint)
    app.after_request(strip_html_body)


def strip_html_body(response: Response) -> Response:
    """Remove the HTML body that Flask gives redirects: API clients have no use for it."""
    is_api = request.path.startswith(f"{DOCS_PATH}/")
    if is_api and response.mimetype == "text/html" and request.endpoint != "api-docs.show_api":
        response.set_data(b"")
        del response.headers["Content-Type"]
    return response

"""What the pages show, as JSON: a module a subject, its shapes beside its addresses."""

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
    figure4.blueprint,
    runs.blueprint,
    models.blueprint,
    results.blueprint,
    health.blueprint,
)
SCHEMAS = (classify.ClassificationSchema, features.FeatureSchema, uploads.RejectedUploadSchema)
__all__ = ["allow_origins", "register_api"]


def register_api(app: Flask, forms: CSRFProtect) -> None:
    """Attach the API, the document that describes it, and the page that shows that.

    The API needs no token against forged requests: it reads no cookie and changes nothing, so
    there is nothing that another site could have a browser do there in somebody's name.
    """
    document = register_blueprints(app, BLUEPRINTS, SCHEMAS)
    app.extensions["api"] = document
    app.extensions["api-digest"] = hashlib.sha256(json.dumps(document).encode()).hexdigest()
    app.register_blueprint(docs.blueprint)
    for subject in BLUEPRINTS:
        forms.exempt(subject)
    app.after_request(strip_html_body)


def strip_html_body(response: Response) -> Response:
    """Leave out the pages that Flask answers redirects and OPTIONS with: no program wants them."""
    inside = request.path.startswith(f"{DOCS_PATH}/")
    if inside and response.mimetype == "text/html" and request.endpoint != "api-docs.show_api":
        response.set_data(b"")
        del response.headers["Content-Type"]
    return response

"""The page on which a person browses and tries the API, and the document that it is made of."""

from importlib.metadata import version
from importlib.resources import files
from pathlib import Path

from flask import Blueprint, Response, current_app, jsonify, render_template, request
from flask import send_from_directory as send

from app.api import etags
from app.problems import DOCS_PATH, PROBLEM_KINDS
from app.web import SECONDS_PER_YEAR

blueprint = Blueprint("api-docs", __name__, url_prefix=DOCS_PATH)
PACKAGE = "flask-swagger-ui"
FOLDER = Path(str(files("flask_swagger_ui"))) / "dist"
"""Where the package holds Swagger UI, as its makers built it."""


@blueprint.get("", strict_slashes=False)
def show_api() -> str:
    """Show the operations, and what each kind of problem means."""
    return render_template("api.html", kinds=PROBLEM_KINDS, version=version(PACKAGE))


@blueprint.get("/openapi.json")
def openapi_document() -> Response:
    """Give the OpenAPI document."""
    etags.etag_by_content()
    servers = [{"url": request.script_root or "/"}]
    return jsonify({**current_app.extensions["api"], "servers": servers})


@blueprint.get("/swagger-ui/<any('swagger-ui.css', 'swagger-ui-bundle.js'):name>")
def swagger_ui_file(name: str) -> Response:
    """Give a file of Swagger UI, to be kept for a year under the address of its version."""
    own = request.args.get("v") == version(PACKAGE)
    answer = send(FOLDER, name, max_age=SECONDS_PER_YEAR if own else None)
    answer.cache_control.immutable = own
    return answer

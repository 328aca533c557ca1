"""The page for browsing and trying the API, the OpenAPI document behind it, and Swagger UI."""

from importlib.metadata import version
from importlib.resources import files
from pathlib import Path

from flask import (
    Blueprint,
    Response,
    current_app,
    jsonify,
    render_template,
    request,
    send_from_directory,
)

from app.api import etags
from app.problems import DOCS_PATH, PROBLEM_KINDS
from app.web import SECONDS_PER_YEAR

blueprint = Blueprint("api-docs", __name__, url_prefix=DOCS_PATH)
SWAGGER_UI = "flask-swagger-ui"
SWAGGER_UI_FOLDER = Path(str(files("flask_swagger_ui"))) / "dist"
"""The folder of the package that has the files of Swagger UI."""


@blueprint.get("", strict_slashes=False)
def show_api() -> str:
    """Show the operations and the meaning of each kind of problem."""
    return render_template("api.html", kinds=PROBLEM_KINDS, version=version(SWAGGER_UI))


@blueprint.get("/openapi.json")
def openapi_document() -> Response:
    """Return the OpenAPI document."""
    etags.set_content_etag()
    servers = [{"url": request.script_root or "/"}]
    return jsonify({**current_app.extensions["api"], "servers": servers})


@blueprint.get("/swagger-ui/<any('swagger-ui.css', 'swagger-ui-bundle.js'):name>")
def swagger_ui_file(name: str) -> Response:
    """Return a file of Swagger UI, cached for a year under a URL with its version."""
    is_versioned = request.args.get("v") == version(SWAGGER_UI)
    response = send_from_directory(
        SWAGGER_UI_FOLDER, name, max_age=SECONDS_PER_YEAR if is_versioned else None
    )
    response.cache_control.immutable = is_versioned
    return response

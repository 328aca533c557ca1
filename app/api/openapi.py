"""The OpenAPI document, generated from the code by flask-smorest, and the page that shows it."""

from collections.abc import Sequence
from http import HTTPStatus
from typing import Any

from flask import Flask
from flask_smorest import Api, Blueprint
from marshmallow import Schema, fields

from app import context
from app.problems import MEDIA_TYPE

ID_RULE = f"<int(max={context.MAX_ID})"
"""The start of a URL rule's part for an id."""
OPENAPI = "3.1.0"
VERSION = "1.0.0"
DESCRIPTION = """\
Everything the pages show, as JSON. Uploads are not stored, cookies are not read, and no token is
needed. URLs of pages and pictures are relative to this server.

Errors are problem documents (RFC 9457, `application/problem+json`).

Most responses have an `ETag`; a request with a matching `If-None-Match` is answered with 304 before
any work is done. A URL with `v=` and the version named in the response (`index`, or `weights` if
there is no index) may be cached for a year.

Lists are paginated: `page` counts from 1, `size` is at most 1000, and the `Link` header has the
first, previous, next and last page.

The weights in service can be switched on the Models page."""


VERSION_PARAMETER = {
    "name": "v",
    "description": "version named in the response; allows caching for a year",
    "schema": {"type": "string"},
}


class FieldErrorSchema(Schema):
    """One error in a request."""

    within = fields.String(
        required=True,
        data_key="in",
        metadata={"description": "query, json or another part of the request"},
    )
    field = fields.String(
        required=True,
        metadata={"description": "name of the field; empty if the error is not about one field"},
    )
    detail = fields.String(required=True)


class UploadLimitsSchema(Schema):
    """Limits for uploaded images."""

    types = fields.List(fields.String(), required=True)
    bytes = fields.Integer(required=True)
    pixels = fields.Integer(required=True)
    side = fields.Integer(
        required=True, metadata={"description": "maximum width and height, in pixels"}
    )
    files = fields.Integer(required=True, metadata={"description": "per request"})


class ProblemSchema(Schema):
    """A problem document (RFC 9457)."""

    type = fields.String(
        required=True,
        metadata={"format": "uri-reference", "description": "link to its meaning"},
    )
    title = fields.String(required=True)
    status = fields.Integer(required=True)
    detail = fields.String(required=True)
    instance = fields.String(required=True, metadata={"format": "uri-reference"})
    command = fields.String(metadata={"description": "command to run on the server to fix it"})
    accepted = fields.Nested(UploadLimitsSchema)
    errors = fields.List(fields.Nested(FieldErrorSchema))


class ProblemApi(Api):
    """flask-smorest's Api, leaving error handling and pagination to the application."""

    def _register_error_handlers(self) -> None:
        """Do nothing: app/errors.py handles errors."""

    def _register_pagination_header(self) -> None:
        """Do nothing: pages are described in the body and the Link header."""

    def _register_responses(self) -> None:
        """Add a response component for each HTTP status."""
        content = {"content": {MEDIA_TYPE: {"schema": ProblemSchema}}}
        for status in HTTPStatus:
            body = content if status >= HTTPStatus.BAD_REQUEST else {}
            self.spec.components.response(
                status.name, {"description": status.phrase, **body}, lazy=True
            )
        name = self.DEFAULT_ERROR_RESPONSE_NAME
        self.spec.components.response(name, {"description": "A problem", **content}, lazy=True)


class ApiBlueprint(Blueprint):
    """The URLs of one resource, and their section of the document."""

    def __init__(self, name: str, description: str) -> None:
        super().__init__(f"api-{name}", __name__, url_prefix="/api", description=description)
        self.tag = name

    def route(self, rule: str, *, immutable: bool = False, **options: Any) -> Any:
        """Register a view, like Flask, under the resource's tag; GET supports If-None-Match.

        immutable: whether the response may be cached for a year under a URL with its version.
        """
        if "GET" not in options["methods"]:
            return super().route(rule, tags=[self.tag], **options)
        parameters = ["IF_NONE_MATCH", *(["VERSION"] if immutable else [])]
        attach = super().route(rule, tags=[self.tag], parameters=parameters, **options)
        return lambda view: attach(self.alt_response(304, "NOT_MODIFIED")(view))


def register_blueprints(
    app: Flask, blueprints: Sequence[ApiBlueprint], schemas: Sequence[type[Schema]]
) -> dict[str, Any]:
    """Register the blueprints and return the document that describes them.

    schemas: those that the blueprints only refer to by `$ref`.
    """
    api = ProblemApi(
        app,
        spec_kwargs={
            "title": "AlexNet",
            "version": VERSION,
            "openapi_version": OPENAPI,
            "info": {"description": DESCRIPTION},
        },
    )
    api.spec.components.parameter("VERSION", "query", VERSION_PARAMETER)
    for schema in schemas:
        api.spec.components.schema(schema.__name__.removesuffix("Schema"), schema=schema)
    for blueprint in blueprints:
        app.register_blueprint(blueprint)
        blueprint.register_views_in_doc(api, app, api.spec, name=blueprint.name, parameters=None)
        api.spec.tag({"name": blueprint.tag, "description": blueprint.description})
    document: dict[str, Any] = api.spec.to_dict()
    resolve_parameters(document)
    return document


def resolve_parameters(document: dict[str, Any]) -> None:
    """Replace each reference to a parameter by the parameter.

    Swagger UI shows an input without a name for a reference that stands at a path.
    """
    known = document["components"].get("parameters", {})
    for path in document["paths"].values():
        operations = [value for value in path.values() if isinstance(value, dict)]
        for holder in (path, *operations):
            if "parameters" in holder:
                holder["parameters"] = [
                    known[one["$ref"].rsplit("/", 1)[1]] if "$ref" in one else one
                    for one in holder["parameters"]
                ]

"""The API's description of itself, an OpenAPI document made from the code by flask-smorest."""

from collections.abc import Sequence
from http import HTTPStatus
from typing import Any

from flask import Flask
from flask_smorest import Api, Blueprint
from marshmallow import Schema, fields

from app import context
from app.problems import MEDIA_TYPE

ID_RULE = f"<int(max={context.MAX_ID})"
"""Begins the part of an address that is an id."""
OPENAPI = "3.1.0"
VERSION = "1.0.0"
DESCRIPTION = """\
What the pages show, as JSON. Nothing that is sent here is kept, no cookie is read, and no token is
needed. The address of a page or a picture is relative to this server.

Errors are problem documents (RFC 9457, `application/problem+json`).

What does not change has an `ETag`; asked for with `If-None-Match` it is answered with 304, before
any work is done. An address that ends in `v=` and the version named in the answer (`index`, or
`weights` where there is no index) may be kept for a year.

Lists come in pages: `page` counts from 1, `size` is at most 1000, and the header `Link` leads to
the first, previous, next and last.

Which weights are in use is switched on the page of models, not here."""


VERSION_PARAMETER = {
    "name": "v",
    "description": "the version that the answer names, so that it may be kept for a year",
    "schema": {"type": "string"},
}


class FieldErrorSchema(Schema):
    """One thing that is wrong with a request."""

    within = fields.String(
        required=True,
        data_key="in",
        metadata={"description": "query, json, or another part of the request"},
    )
    field = fields.String(required=True, metadata={"description": "its name; empty: the whole"})
    detail = fields.String(required=True)


class UploadLimitsSchema(Schema):
    """What images are taken."""

    types = fields.List(fields.String(), required=True)
    bytes = fields.Integer(required=True)
    pixels = fields.Integer(required=True)
    files = fields.Integer(required=True, metadata={"description": "at once"})


class ProblemSchema(Schema):
    """What went wrong (RFC 9457)."""

    type = fields.String(
        required=True,
        metadata={"format": "uri-reference", "description": "leads to what it means"},
    )
    title = fields.String(required=True)
    status = fields.Integer(required=True)
    detail = fields.String(required=True)
    instance = fields.String(required=True, metadata={"format": "uri-reference"})
    command = fields.String(metadata={"description": "what mends it, on the server"})
    accepted = fields.Nested(UploadLimitsSchema)
    errors = fields.List(fields.Nested(FieldErrorSchema))


class ProblemApi(Api):
    """flask-smorest's Api; the application tells errors itself, as it does everywhere."""

    def _register_error_handlers(self) -> None:
        """Leave them to app/errors.py."""

    def _register_pagination_header(self) -> None:
        """Leave it out: pages are told in the body and by links."""

    def _register_responses(self) -> None:
        """Describe the answer of each status that an operation may name."""
        told = {"content": {MEDIA_TYPE: {"schema": ProblemSchema}}}
        for status in HTTPStatus:
            body = told if status >= HTTPStatus.BAD_REQUEST else {}
            self.spec.components.response(
                status.name, {"description": status.phrase, **body}, lazy=True
            )
        name = self.DEFAULT_ERROR_RESPONSE_NAME
        self.spec.components.response(name, {"description": "A problem", **told}, lazy=True)


class ApiBlueprint(Blueprint):
    """Some of the API's addresses that belong together, and their section of the document."""

    def __init__(self, subject: str, about: str) -> None:
        super().__init__(f"api-{subject}", __name__, url_prefix="/api", description=about)
        self.subject = subject

    def route(self, rule: str, *, lasting: bool = False, **options: Any) -> Any:
        """As Flask's, into the subject's section; what is got may be asked for conditionally.

        lasting: whether the answer may be kept long under an address that names its version.
        """
        if "GET" not in options["methods"]:
            return super().route(rule, tags=[self.subject], **options)
        told = ["IF_NONE_MATCH", *(["VERSION"] if lasting else [])]
        attach = super().route(rule, tags=[self.subject], parameters=told, **options)
        return lambda view: attach(self.alt_response(304, "NOT_MODIFIED")(view))


def register_blueprints(
    app: Flask, subjects: Sequence[ApiBlueprint], schemas: Sequence[type[Schema]]
) -> dict[str, Any]:
    """Attach the subjects to the application; give the document of them all.

    schemas: those that the subjects name only by their place in the document.
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
    for subject in subjects:
        app.register_blueprint(subject)
        subject.register_views_in_doc(api, app, api.spec, name=subject.name, parameters=None)
        api.spec.tag({"name": subject.subject, "description": subject.description})
    document: dict[str, Any] = api.spec.to_dict()
    return document
